"""The network as a backend of preprocessing: depth, masks and tracks of the fit's input.

Importing this module registers them; the commands do so.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.devices import choose_device
from msdyn.feedforward.config import ModelConfig
from msdyn.feedforward.inference import input_size, predict_windows
from msdyn.feedforward.pretrained import DEFAULT_MODEL, find_model
from msdyn.feedforward.windows import (
    WindowPixels,
    choose_windows,
    default_overlap,
    owners,
    pixels_of,
    trajectories,
)
from msdyn.geometry import project, transform_points
from msdyn.preprocess import (
    Backend,
    BackendOptions,
    CameraSolution,
    DepthMap,
    DepthResult,
    Footage,
    Mask,
    MaskResult,
    Masks,
    Streamed,
    TrackResult,
    register_backend,
)
from msdyn.preprocess.streamed import Figures
from msdyn.scene import Scene, Tracks

__all__ = ["NetworkDepth", "NetworkMasks", "NetworkTracks"]

_QUERY_EVERY = 4
"""Frames between those in which tracks start."""

Own = TypeVar("Own", bound="_Network")


@dataclass(frozen=True)
class _Network(Backend):
    """What the three backends have in common: the network and how it is run."""

    # `field()`: not the values of the base class for defaults.
    model: str = field(default=DEFAULT_MODEL)
    """A file of weights, or the name of a network that comes with msdyn."""
    device: str = field(default="auto", metadata={"option": False})

    @classmethod
    def from_options(cls: type[Own], options: BackendOptions) -> Own:
        """Return the network of a file."""
        return cls(options.model or DEFAULT_MODEL, options.device)

    @property
    def licence(self) -> str:
        return find_model(self.model).licence

    def _windows(self, scene: Scene) -> tuple[list[WindowPixels], ModelConfig]:
        """Return the prediction for all frames, and the config of the network."""
        found, device = find_model(self.model), choose_device(self.device)
        model = found.load().to(device)
        size = input_size(scene.info.width, scene.info.height, found.long_side, model.config.patch)
        windows, _ = predict_windows(
            model,
            scene,
            choose_windows(len(scene), found.frames, 1, default_overlap(found.frames)),
            size=size,
            scale=None,
            device=device,
            use_depth=False,
        )
        return windows, model.config


@register_backend("depth", "feedforward", needs=("frames", "cameras"), model=DEFAULT_MODEL)
@dataclass(frozen=True)
class NetworkDepth(_Network):
    """Depth by the feed-forward network, in the scale of the cameras."""

    def estimate(
        self,
        scene: Scene,
        tracks: Tracks | None,
        masks: Masks | None,
        solution: CameraSolution | None,
    ) -> DepthResult:
        """Return the predicted depth, resampled to the size of the frames."""
        return DepthResult(Streamed(self._maps(scene)))

    def _maps(self, scene: Scene) -> Generator[DepthMap, None, Figures]:
        windows, _ = self._windows(scene)
        for number, position in owners(windows).values():
            depth = _resampled(windows[number].depth[position], scene.size)
            yield DepthMap(depth.numpy())
        return {"windows": len(windows), "scale": windows[0].scale}


@register_backend("masks", "feedforward", needs=("frames", "tracks"), model=DEFAULT_MODEL)
@dataclass(frozen=True)
class NetworkMasks(_Network):
    """Masks of what the feed-forward network displaces: one object (paper, 4.5)."""

    def segment(self, scene: Scene, tracks: Tracks, solution: CameraSolution | None) -> MaskResult:
        """Return the masks; empty ones before the cameras are known."""
        if solution is None:
            nothing = (np.zeros(scene.size, np.uint8) for _ in range(len(scene)))
            return MaskResult(Streamed.of(nothing, {}), needs_cameras=True)
        return MaskResult(Streamed(self._masks(scene)), needs_cameras=True)

    def _masks(self, scene: Scene) -> Generator[Mask, None, Figures]:
        windows, config = self._windows(scene)
        for number, position in owners(windows).values():
            window = windows[number]
            size = window.displacements[position].norm(dim=-1).amax(-1) / window.scale
            yield (_resampled(size, scene.size) >= config.moving).numpy().astype(np.uint8)
        return {"windows": len(windows)}


@register_backend("tracks", "feedforward", needs=("frames", "cameras"), model=DEFAULT_MODEL)
@dataclass(frozen=True)
class NetworkTracks(_Network):
    """Tracks of a grid of pixels in every fourth frame, by the feed-forward network.

    The cameras come first, so they must be those of files.
    """

    step: int = 2
    """Spacing of the grid, in pixels of the network's images."""

    def track(self, scene: Scene, footage: Footage | None = None) -> TrackResult:
        """Return tracks; a point is visible where its depth is that which its frame shows."""
        windows, _ = self._windows(scene)
        frames = list(range(len(scene)))
        xy, visible, started = [], [], []
        for frame in frames[::_QUERY_EVERY]:
            points = _grid(windows, frame, self.step, frames)
            positions, seen = _observed(scene, windows, points)
            kept = seen[:, frame]  # not on the edge of two surfaces
            xy.append(positions[kept])
            visible.append(seen[kept])
            started.append(np.full(int(kept.sum()), frame))
        seen = np.concatenate(visible)
        tracks = Tracks.from_dense(
            np.concatenate(xy),
            seen,
            seen.astype(np.float32),
            np.full(len(seen), -1),
            np.concatenate(started),
        )
        return TrackResult(tracks, {"windows": len(windows)})


def _grid(
    windows: Sequence[WindowPixels], frame: int, step: int, frames: list[int]
) -> Float[Tensor, "points frames 3"]:
    """Return the positions over time of a grid of pixels of a frame, in the world."""
    number, position = owners(windows)[frame]
    height, width = windows[number].depth.shape[1:]
    index = torch.arange(height * width).reshape(height, width)
    chosen = index[step // 2 :: step, step // 2 :: step].flatten()
    start = windows[number].splats.means[position].reshape(-1, 3)[chosen]
    return start[:, None] + trajectories(windows, number, position, frames)[chosen]


def _observed(
    scene: Scene, windows: Sequence[WindowPixels], points: Float[Tensor, "points frames 3"]
) -> tuple[Float[np.ndarray, "points frames 2"], np.ndarray]:
    """Return pixels of points in all frames, and where they are visible."""
    cameras = scene.cameras
    xy = np.zeros((*points.shape[:2], 2), np.float32)
    visible = np.zeros(points.shape[:2], bool)
    for frame, (number, position) in owners(windows).items():
        _, on_surface = pixels_of(windows[number], position, points[:, frame])
        world = points[:, frame].double().numpy()
        local = transform_points(cameras.cam_from_world[frame], world)
        with np.errstate(divide="ignore", invalid="ignore"):
            xy[:, frame] = np.nan_to_num(project(cameras.intrinsics[frame], local))
        visible[:, frame] = on_surface.numpy()
    return np.where(visible[..., None], xy, 0), visible


def _resampled(
    values: Float[Tensor, "h w"], size: tuple[int, int]
) -> Float[Tensor, "height width"]:
    return torch.nn.functional.interpolate(
        values[None, None], size, mode="bilinear", align_corners=False
    )[0, 0]
