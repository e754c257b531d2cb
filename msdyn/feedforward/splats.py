"""Dynamic splatter pixels: from the raw output of the heads to Gaussians (paper, 3.1).

Shapes: B scenes, F frames, H x W pixels. Raw attributes have 11 channels, in the order colour 3,
scale 3, rotation 4 (wxyz), opacity 1. Positions and rotations are in the canonical world.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize, softplus

from msdyn.feedforward.embeddings import pixel_rays, rotated

__all__ = [
    "ATTRIBUTES",
    "SplatterPixels",
    "activate",
    "depth_of",
    "has_moved",
    "points_from_depth",
]

ATTRIBUTES = 11
"""Channels of raw attributes."""
_NEAREST, _FARTHEST = 0.001, 100.0
_SCALE_UNIT, _LARGEST_SCALE = 0.001, 0.3


@dataclass(frozen=True)
class SplatterPixels:
    """One Gaussian per pixel, in the canonical world.

    Attributes:
        means: positions.
        colours: RGB in [0, 1].
        scales: standard deviations.
        quats_wxyz: unit quaternions.
        opacities: in [0, 1].
    """

    means: Float[Tensor, "*batch 3"]
    colours: Float[Tensor, "*batch 3"]
    scales: Float[Tensor, "*batch 3"]
    quats_wxyz: Float[Tensor, "*batch 4"]
    opacities: Float[Tensor, "*batch"]

    @classmethod
    def joined(
        cls, parts: Sequence[SplatterPixels], join: Callable[[list[Tensor]], Tensor] = torch.cat
    ) -> SplatterPixels:
        """Return several sets as one, by default one after the other."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: join([getattr(part, name) for part in parts]) for name in names})

    def mapped(self, function: Callable[[Tensor], Tensor]) -> SplatterPixels:
        """Return the result of a function of each tensor."""
        return self.joined([self], lambda values: function(values[0]))

    def of_scene(self, index: int) -> SplatterPixels:
        """Return all Gaussians of one scene in one dimension: by frame, row, column."""
        return self.mapped(lambda value: value[index].flatten(0, 2))

    def select(self, keep: Bool[Tensor, " gaussians"]) -> SplatterPixels:
        """Return the Gaussians of a mask."""
        return self.mapped(lambda value: value[keep])


def depth_of(raw: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return z-depth from the raw output of the depth head: its exponential, limited."""
    return raw.exp().clamp(_NEAREST, _FARTHEST)


def points_from_depth(
    depth: Float[Tensor, "*batch height width"],
    world_from_cam: Float[Tensor, "*batch 4 4"],
    intrinsics: Float[Tensor, "*batch 4"],
) -> Float[Tensor, "*batch height width 3"]:
    """Return the world points of all pixel centres at a z-depth; intrinsics are normalised."""
    in_camera = pixel_rays(intrinsics, *depth.shape[-2:]) * depth[..., None]
    pose = world_from_cam[..., None, None, :, :]
    return rotated(pose[..., :3, :3], in_camera) + pose[..., :3, 3]


def has_moved(displacement: Float[Tensor, "*batch 3"], threshold: float) -> Bool[Tensor, "*batch"]:
    """Return which displacements are at least a threshold long."""
    return displacement.norm(dim=-1) >= threshold


def activate(
    raw: Float[Tensor, "*batch 11"],
    means: Float[Tensor, "*batch 3"],
    *,
    scale_unit: Literal["constant", "pixel"],
    pixel_width: Float[Tensor, "*batch"],
) -> SplatterPixels:
    """Return Gaussians from raw attributes and positions.

    Args:
        raw: attributes before activation.
        means: positions.
        scale_unit: of the raw scales, see `ModelConfig`.
        pixel_width: width of a pixel at its depth.
    """
    colour, scale, rotation, opacity = raw.split([3, 3, 4, 1], dim=-1)
    unit = _SCALE_UNIT if scale_unit == "constant" else pixel_width[..., None]
    return SplatterPixels(
        means,
        0.5 + 0.5 * colour.tanh(),
        (unit * softplus(scale)).clamp_max(_LARGEST_SCALE),
        normalize(rotation, dim=-1),
        0.5 + 0.5 * (opacity[..., 0] - 1).tanh(),
    )
