"""The feed-forward network: from a posed clip to one Gaussian per pixel, and its motion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.checkpoint import checkpoint

from msdyn.feedforward.aggregator import Aggregator
from msdyn.feedforward.config import ModelConfig
from msdyn.feedforward.correlation import (
    CUE_CHANNELS,
    MOTION_CHANNELS,
    Correlation,
    CorrelationCue,
    MotionCue,
)
from msdyn.feedforward.dpt import DetailNetwork, DptHead
from msdyn.feedforward.embeddings import plucker_coordinates, time_encoding
from msdyn.feedforward.encoder import ImageEncoder
from msdyn.feedforward.splats import (
    ATTRIBUTES,
    SplatterPixels,
    activate,
    depth_of,
    has_moved,
    points_from_depth,
)

__all__ = [
    "ClipTensors",
    "Features",
    "Movies",
    "PixelMotion",
    "StaticPixels",
    "needs_float32",
]

# Of times, cameras and the outputs, which bfloat16 would round too coarsely.
_FLOAT32 = ("time_embed.", "extra_embed.", "output_conv2.", "shortcut.")


def needs_float32(name: str) -> bool:
    """Return whether a weight, by its name, stays in float32 in a network of lower precision."""
    return any(part in name for part in _FLOAT32)


@dataclass(frozen=True)
class ClipTensors:
    """The input: posed frames in the canonical world, whose scale is normalised.

    Attributes:
        images: RGB in [0, 1], sides multiples of the patch.
        world_from_cam: OpenCV axes; that of frame 0 is the identity.
        intrinsics: (fx/W, fy/H, cx/W, cy/H).
        times: in [0, 1].
    """

    images: Float[Tensor, "scenes frames 3 height width"]
    world_from_cam: Float[Tensor, "scenes frames 4 4"]
    intrinsics: Float[Tensor, "scenes frames 4"]
    times: Float[Tensor, "scenes frames"]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.images.shape[-2], self.images.shape[-1]

    def to(self, device: torch.device | str) -> ClipTensors:
        return ClipTensors(
            self.images.to(device),
            self.world_from_cam.to(device),
            self.intrinsics.to(device),
            self.times.to(device),
        )


@dataclass(frozen=True)
class Features:
    """What the heads read.

    Attributes:
        clip: the input.
        layers: patch tokens by the index of the pair of blocks.
        grid: rows and columns of patches.
        correlation: matches between the frames, if the network computes them.
        cue: features of the matches, of twice the resolution of the patches.
        detail: features of the images, of four times the resolution of the patches.
    """

    clip: ClipTensors
    layers: dict[int, Float[Tensor, "scenes frames patches channels"]]
    grid: tuple[int, int]
    correlation: Correlation | None = None
    cue: Float[Tensor, "scenes frames features rows columns"] | None = None
    detail: Float[Tensor, "scenes frames details fine_rows fine_columns"] | None = None


@dataclass(frozen=True)
class StaticPixels:
    """The prediction for the frames' own times.

    Attributes:
        depth: z-depth.
        depth_confidence: at least 1.
        points: in the canonical world.
        attributes: raw.
    """

    depth: Float[Tensor, "scenes frames height width"]
    depth_confidence: Float[Tensor, "scenes frames height width"]
    points: Float[Tensor, "scenes frames height width 3"]
    attributes: Float[Tensor, "scenes frames height width 11"]


@dataclass(frozen=True)
class PixelMotion:
    """The prediction for a query time.

    Attributes:
        displacement: from the position at the frame's own time, in the canonical world.
        confidence: of the displacement, at least 1.
        attributes: raw output for the attributes; None if they do not change.
    """

    displacement: Float[Tensor, "scenes frames height width 3"]
    confidence: Float[Tensor, "scenes frames height width"]
    attributes: Float[Tensor, "scenes frames height width 11"] | None


class Movies(nn.Module):
    """MoVieS: one network for appearance, geometry and motion of a posed video.

    Attributes:
        frame_chunk: frames that a head processes at once; None for all. The result is the same.
        recompute: activations of blocks and heads for gradients instead of keeping them, to save
            memory in training.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.frame_chunk: int | None = None
        self.encoder = ImageEncoder(config)
        if config.plucker:
            self.plucker_embed = PluckerEmbedding(config)
            # One group: normalises over channels, frames and space together.
            self.plucker_ln = nn.GroupNorm(1, config.width)
            nn.init.zeros_(self.plucker_ln.weight)
            if config.published:
                for value in self.plucker_embed.net.parameters():
                    nn.init.zeros_(value)
        if config.correlation:
            self.correlation_cue = CorrelationCue(config)
        if config.detail:
            self.detail = DetailNetwork()
        self.aggregator = Aggregator(config)
        tokens = 2 * config.width
        cue = CUE_CHANNELS if config.correlation else 0
        self.depth_head = DptHead(config, tokens, 1, timed=False, cue=cue)
        self.splat_head = DptHead(config, tokens, ATTRIBUTES, timed=False, shortcut=3)
        if config.motion:
            cue = MOTION_CHANNELS if config.correlation else 0
            self.motion_head = DptHead(config, tokens, 3, timed=True, cue=cue)
            if config.correlation:
                self.motion_cue = MotionCue()
            if config.attribute_motion != "none":
                self.motion_splat_head = DptHead(
                    config, tokens, ATTRIBUTES, timed=True, shortcut=ATTRIBUTES
                )

    @property
    def recompute(self) -> bool:
        return self.aggregator.recompute

    @recompute.setter
    def recompute(self, value: bool) -> None:
        self.aggregator.recompute = self.encoder.recompute = value

    def encode(self, clip: ClipTensors, *, matches: Correlation | None = None) -> Features:
        """Return the features of a clip, which all heads share.

        Matches between the frames may be given, if they have been computed before.
        """
        scenes, frames = clip.images.shape[:2]
        patch = self.config.patch
        grid = (clip.size[0] // patch, clip.size[1] // patch)
        patches = self.encoder(clip.images.flatten(0, 1)).unflatten(0, (scenes, frames))
        if self.config.plucker:
            patches = patches + self._camera_features(clip).to(patches.dtype)
        correlation = cue = None
        if self.config.correlation:
            added, cue, correlation = self.correlation_cue(
                clip.images, clip.world_from_cam, clip.intrinsics, clip.times, matches
            )
            patches = patches + added.to(patches.dtype)
        layers = self.aggregator(
            patches, grid, clip.world_from_cam, clip.intrinsics, self._encodable(clip.times)
        )
        detail = None
        if self.config.detail:
            detail = self.detail(clip.images.flatten(0, 1), grid).unflatten(0, (scenes, frames))
        return Features(clip, layers, grid, correlation, cue, detail)

    def static(self, features: Features, *, appearance: bool = True) -> StaticPixels:
        """Return depth and appearance at the frames' own times.

        Without `appearance`, the attributes are zero: for losses of depth and motion alone.
        """
        clip = features.clip
        raw, confidence = self._run_head(self.depth_head, features, cue=features.cue)
        depth = depth_of(raw[:, :, 0])
        if appearance:
            attributes, _ = self._run_head(self.splat_head, features, shortcut=clip.images)
            attributes = attributes.movedim(2, -1)
        else:
            attributes = depth.new_zeros(1).expand(*depth.shape, ATTRIBUTES)
        points = points_from_depth(depth, clip.world_from_cam, clip.intrinsics)
        return StaticPixels(depth, confidence, points, attributes)

    def move(
        self,
        features: Features,
        static: StaticPixels,
        query_times: Float[Tensor, " scenes"],
        *,
        appearance: bool = True,
    ) -> PixelMotion:
        """Return the motion of all pixels of all frames to a query time of each scene.

        Without `appearance`, the attributes do not change: for losses of depth and motion alone.
        """
        query = time_encoding(self._encodable(query_times))
        cue = first = None
        if features.correlation is not None:
            clip = features.clip
            cue, first = self.motion_cue(
                features.correlation,
                static.points.detach(),
                clip.world_from_cam,
                clip.intrinsics,
                clip.times,
                query_times,
            )
            cue = cue.unflatten(0, clip.times.shape)
            first = interpolate(first, clip.size, mode="bilinear", align_corners=False)
        displacement, confidence = self._run_head(self.motion_head, features, query=query, cue=cue)
        if first is not None:
            displacement = displacement + first.unflatten(0, displacement.shape[:2])
        attributes = None
        if appearance and self.config.attribute_motion != "none":
            raw, _ = self._run_head(
                self.motion_splat_head,
                features,
                query=query,
                shortcut=static.attributes.movedim(-1, 2),
            )
            attributes = raw.movedim(2, -1)
        return PixelMotion(displacement.movedim(2, -1), confidence, attributes)

    def gaussians(
        self, features: Features, static: StaticPixels, motion: PixelMotion | None = None
    ) -> SplatterPixels:
        """Return the Gaussians at the query time of a motion; None for without motion."""
        raw, means = static.attributes, static.points
        if motion is not None:
            means = means + motion.displacement
            if motion.attributes is not None and self.config.attribute_motion == "add":
                raw = raw + motion.attributes  # Eq. 1
            elif motion.attributes is not None:
                moved = has_moved(motion.displacement, self.config.moving)
                raw = torch.where(moved[..., None], motion.attributes, raw)
        focal = features.clip.intrinsics[..., 0] * features.clip.size[1]
        return activate(
            raw,
            means,
            scale_unit=self.config.scale_unit,
            pixel_width=static.depth / focal[..., None, None],
        )

    def _camera_features(
        self, clip: ClipTensors
    ) -> Float[Tensor, "scenes frames patches channels"]:
        """Return the Plücker embeddings of the patches."""
        rays = plucker_coordinates(clip.world_from_cam, clip.intrinsics, *clip.size)
        embedded = self.plucker_ln(self.plucker_embed(rays.movedim(2, 1)))  # [B, C, F, h, w]
        return embedded.movedim(1, -1).flatten(2, 3)

    def _encodable(self, times: Tensor) -> Tensor:
        """Return times as the network was trained with them.

        The released network computes their sines in bfloat16, where 2^9 t is wrong by radians
        unless t itself is a bfloat16 number.
        """
        device = times.device.type
        available = torch.amp.is_autocast_available(device)  # not on the meta device
        if self.config.published and available and torch.is_autocast_enabled(device):
            return times.to(torch.get_autocast_dtype(device)).float()
        return times

    def _run_head(
        self,
        head: DptHead,
        features: Features,
        *,
        query: Float[Tensor, "scenes numbers"] | None = None,
        shortcut: Float[Tensor, "scenes frames inputs height width"] | None = None,
        cue: Float[Tensor, "scenes frames features rows columns"] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return [B, F, outputs, H, W] and [B, F, H, W] of a head, in chunks of frames."""
        frames = features.clip.images.shape[1]
        run = self._run_chunk
        if self.recompute and torch.is_grad_enabled():
            run = partial(checkpoint, run, use_reentrant=False)
        parts = [
            run(head, features, chunk, query, shortcut, cue)
            for chunk in _chunks(frames, self.frame_chunk)
        ]
        outputs, confidences = zip(*parts, strict=True)
        return torch.cat(outputs, dim=1), torch.cat(confidences, dim=1)

    def _run_chunk(
        self,
        head: DptHead,
        features: Features,
        chunk: slice,
        query: Tensor | None,
        shortcut: Tensor | None,
        cue: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        layers = [
            features.layers[index][:, chunk].flatten(0, 1) for index in self.config.head_layers
        ]
        scenes = features.clip.images.shape[0]
        frames = len(layers[0]) // scenes
        raw, confidence = head(
            layers,
            features.grid,
            features.clip.size,
            query=None if query is None else query.repeat_interleave(frames, dim=0),
            shortcut=None if shortcut is None else shortcut[:, chunk].flatten(0, 1),
            cue=None if cue is None else cue[:, chunk].flatten(0, 1),
            detail=None if features.detail is None else features.detail[:, chunk].flatten(0, 1),
        )
        return raw.unflatten(0, (scenes, frames)), confidence.unflatten(0, (scenes, frames))


class PluckerEmbedding(nn.Module):
    """A convolution of Plücker coordinates over patches, stored with a time dimension of one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size = (1, config.patch, config.patch)
        self.net = nn.Conv3d(6, config.width, size, stride=size)

    def forward(
        self, rays: Float[Tensor, "scenes 6 frames height width"]
    ) -> Float[Tensor, "scenes channels frames rows columns"]:
        return self.net(rays)


def _chunks(count: int, size: int | None) -> Iterator[slice]:
    size = count if size is None else max(1, size)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
