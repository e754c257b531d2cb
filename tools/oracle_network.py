"""A feed-forward network that knows the truth of a synthetic scene, with errors if wanted.

It stands in for a trained network where the code around it is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from msdyn.feedforward import ClipTensors, Features, ModelConfig, Movies, PixelMotion, StaticPixels
from msdyn.feedforward.splats import ATTRIBUTES, points_from_depth
from msdyn.synthetic import SceneSpec
from msdyn.synthetic.raycast import Caster, pixel_centres, rays_through

SCALE = 3.0
"""Scene units per unit of the network's world, unless a scale is given."""

CONFIG = replace(
    ModelConfig.small(),
    width=16,
    encoder_blocks=1,
    encoder_heads=1,
    position_grid=2,
    pairs=1,
    heads=1,
    head_layers=(0, 0, 0, 0),
    head_channels=(4, 4, 4, 4),
    head_features=4,
    moving=0.003,
)


@dataclass(frozen=True)
class Errors:
    """Errors of a prediction, smooth in the image, of their own for each frame.

    Attributes:
        depth: standard deviation of the logarithm of depth.
        motion: standard deviation of displacements, as a share of their size.
        cells: of the grid between whose nodes errors are interpolated.
        seed: of the errors.
    """

    depth: float = 0.0
    motion: float = 0.0
    cells: int = 6
    seed: int = 0

    def field(self, *key: int, size: tuple[int, int], channels: int = 1) -> Tensor:
        """Return a smooth random field of unit variance, the same for the same key."""
        generator = torch.Generator().manual_seed(hash((self.seed, *key)) % 2**31)
        nodes = torch.randn(1, channels, self.cells, self.cells, generator=generator)
        return torch.nn.functional.interpolate(nodes, size, mode="bicubic", align_corners=True)[0]


class Oracle(Movies):
    """Answers with the true depth, colours and motion.

    Args:
        spec: the scene.
        windows: the frames of the clips that it will be asked about, in order.
        factors: by which depth and motion of each window are too large; none by default.
        errors: of depth and motion.
    """

    def __init__(
        self,
        spec: SceneSpec,
        windows: Sequence[Sequence[int]],
        factors: Sequence[float] | None = None,
        errors: Errors | None = None,
    ) -> None:
        super().__init__(CONFIG)
        self.caster = Caster(spec)
        self.windows = [list(frames) for frames in windows]
        self.factors = [1.0] * len(windows) if factors is None else list(factors)
        self.errors = errors or Errors()
        self.unit = SCALE

    def encode(self, clip: ClipTensors) -> Features:
        self.asked = self.windows.pop(0)
        self.factor = self.factors.pop(0)
        height, width = clip.size
        self.cameras = self.caster.spec.cameras[self.asked].resized(width, height)
        self.hits, self.depths = [], []
        for frame, camera in zip(self.asked, self.cameras, strict=True):
            rays = rays_through(camera, pixel_centres(camera))
            hits, _ = self.caster.mesh(frame).cast(camera.centres[0], rays)
            self.hits.append(hits)
            depth = self.caster.depth(frame, camera, rays, hits.face)
            self.depths.append(depth.reshape(height, width))
        return Features(clip, {}, (0, 0))

    def static(self, features: Features) -> StaticPixels:
        clip = features.clip
        depth = torch.from_numpy(np.stack(self.depths)).float()[None] * self.factor / self.unit
        for number, frame in enumerate(self.asked):
            error = self.errors.depth * self.errors.field(frame, size=clip.size)[0]
            depth[0, number] *= error.exp()
        raw = torch.zeros(*depth.shape, ATTRIBUTES)
        colours = clip.images.movedim(2, -1).clamp(0.01, 0.99)
        raw[..., :3] = torch.atanh(2 * colours - 1)
        raw[..., 3:6] = -0.5
        raw[..., 6] = 1  # no rotation in the canonical world
        raw[..., 10] = 3
        points = points_from_depth(depth, clip.world_from_cam, clip.intrinsics)
        return StaticPixels(depth, torch.ones_like(depth), points, raw)

    def move(self, features: Features, static: StaticPixels, query_times: Tensor) -> PixelMotion:
        times = features.clip.times[0]
        target = self.asked[int((times - query_times[0]).abs().argmin())]
        rotation = self.cameras.world_from_cam[0, :3, :3]
        height, width = features.clip.size
        moved = []
        for frame, hits in zip(self.asked, self.hits, strict=True):
            change = self.caster.positions(target, hits) - self.caster.positions(frame, hits)
            exact = torch.from_numpy((change @ rotation).reshape(height, width, 3)).float()
            error = self.errors.field(frame, target, size=(height, width), channels=3)
            size = exact.norm(dim=-1, keepdim=True)
            moved.append(exact + self.errors.motion * size * error.movedim(0, -1))
        displacement = torch.stack(moved)[None] * self.factor / self.unit
        return PixelMotion(displacement, torch.ones_like(static.depth), None)
