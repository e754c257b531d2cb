"""The canonical world: the camera of the first input frame, at unit mean distance of the points.

The network knows no other scale: cameras and points given to it must be in this world (paper,
3.3.2, "Normalization").
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from msdyn.errors import InputError
from msdyn.feedforward.splats import points_from_depth

__all__ = ["canonical_cameras", "mean_distance", "scaled_cameras"]


def canonical_cameras(
    world_from_cam: Float[Tensor, "*batch frames 4 4"],
) -> Float[Tensor, "*batch frames 4 4"]:
    """Return cameras relative to the first one, which becomes the identity."""
    first = world_from_cam[..., :1, :, :]
    rotation = first[..., :3, :3].mT
    canonical_from_world = torch.eye(4, dtype=first.dtype, device=first.device).expand(first.shape)
    canonical_from_world = canonical_from_world.clone()
    canonical_from_world[..., :3, :3] = rotation
    canonical_from_world[..., :3, 3:] = -rotation @ first[..., :3, 3:]
    return canonical_from_world @ world_from_cam


def mean_distance(
    depth: Float[Tensor, "frames height width"],
    valid: Bool[Tensor, "frames height width"],
    world_from_cam: Float[Tensor, "frames 4 4"],
    intrinsics: Float[Tensor, "frames 4"],
) -> float:
    """Return the mean distance of the points of depth maps to the first camera.

    Args:
        depth: z-depth of the input frames.
        valid: where the depth is known.
        world_from_cam: canonical cameras, not scaled.
        intrinsics: normalised, (fx/W, fy/H, cx/W, cy/H).

    Raises:
        InputError: no depth is known.
    """
    if not valid.any():
        raise InputError("scale: expected depth in some pixel, got none")
    points = points_from_depth(depth, world_from_cam, intrinsics)
    return float(points[valid].double().norm(dim=-1).mean())


def scaled_cameras(
    world_from_cam: Float[Tensor, "*batch 4 4"], scale: float
) -> Float[Tensor, "*batch 4 4"]:
    """Return cameras in a world whose unit is `scale` of the present one."""
    scaled = world_from_cam.clone()
    scaled[..., :3, 3] /= scale
    return scaled
