"""Depth of the first Gaussians, fused over the frames that see the same point.

A Gaussian starts at a pixel of known depth in one frame. The error of that depth is as large as
that of a single depth map, and at the border of a mask, or of an object, the depth is that of
something else. The other frames see the same point: carried there by the motion of its object, it
is compared with their depth maps. The mean of what agrees moves it along the ray on which it was
sampled. A point in front of what most frames see there is in empty space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from msdyn.fit.data import FitData
from msdyn.geometry import project, transform_points

__all__ = ["LEAST_TOLERANCE", "Carried", "Fused", "Sampled", "fuse_depth"]

# Rounds: where a surface is slanted, moving a point along its ray changes its pixels too.
_ROUNDS = 3
# Observations agree within this many robust standard deviations.
_AGREE = 3.0
# At least this fraction of the depth: the limit of bilinear samples of a depth map.
LEAST_TOLERANCE = 5e-3
# The four pixels around a position are one surface if their depth differs by less than this.
_SAME_SURFACE = 0.1
# From normal distribution: standard deviation over median absolute deviation.
_FROM_MEDIAN = 1.4826

Carried = Callable[[int], Float[np.ndarray, "points 3"]]
"""The positions of points in a frame of the clip."""


class Sampled(NamedTuple):
    """N points, each sampled in one frame of the clip.

    Attributes:
        points: [N, 3] where they were sampled, world of the fit.
        source: [N] index of that frame in the clip.
        labels: [N] what the masks say there: 0, or the index of an object.
    """

    points: Float[np.ndarray, "points 3"]
    source: Int[np.ndarray, " points"]
    labels: Int[np.ndarray, " points"]


class Fused(NamedTuple):
    """N points whose depth agrees with all frames.

    Attributes:
        points: [N, 3] in the frames in which they were sampled, world of the fit.
        kept: [N] false where more frames look through a point than see it.
        tolerance: difference of depth, as a fraction, up to which a frame sees a point.
    """

    points: Float[np.ndarray, "points 3"]
    kept: Bool[np.ndarray, " points"]
    tolerance: float


def fuse_depth(
    data: FitData,
    sampled: Sampled,
    frames: list[int],
    carry: Callable[[Float[np.ndarray, "points 3"]], Carried],
) -> Fused:
    """Move points along the rays on which they were sampled to where the frames see them.

    Args:
        data: input data of the fit.
        sampled: N points.
        frames: of the clip, with which they are compared; their own ones among them.
        carry: takes positions in the frames in which they were sampled, and returns a function
            that gives their positions in a frame of the clip.
    """
    points, centres = sampled.points, data.cameras.centres[sampled.source]
    kept, tolerance = np.ones(len(points), bool), LEAST_TOLERANCE
    for _ in range(_ROUNDS):
        at = carry(points)
        ratios = np.full((len(points), len(frames)), np.nan, np.float32)
        for number, frame in enumerate(frames):
            ratios[:, number] = _log_ratios(data, frame, at(frame), sampled.labels)
        tolerance = max(_AGREE * _spread(ratios), LEAST_TOLERANCE)
        agree = np.abs(ratios) <= tolerance
        kept = agree.sum(1) >= (ratios > tolerance).sum(1)
        change = np.where(agree, ratios, 0.0).sum(1) / agree.sum(1).clip(1)
        points = centres + (points - centres) * np.exp(change)[:, None]
    return Fused(points, kept, tolerance)


def _spread(ratios: Float32[np.ndarray, "points frames"]) -> float:
    """Return the robust standard deviation of log depths, of those of the same surface."""
    near = np.abs(ratios[np.abs(ratios) < _SAME_SURFACE])
    return _FROM_MEDIAN * float(np.median(near)) if len(near) else 0.0


def _log_ratios(
    data: FitData,
    frame: int,
    xyz: Float[np.ndarray, "points 3"],
    labels: Int[np.ndarray, " points"],
) -> Float[np.ndarray, " points"]:
    """Return the logarithm of what a frame sees over the depth of points; NaN where it is unknown.

    It is unknown outside the image, where the masks say that something else is there, and where
    the pixels around a point are not of one surface.
    """
    height, width = data.mask.shape[1:]
    camera = transform_points(data.cameras.cam_from_world[frame], xyz)
    result = np.full(len(xyz), np.nan)
    ahead = np.flatnonzero(camera[:, 2] > 1e-6)
    position = project(data.cameras.intrinsics[frame], camera[ahead]) - 0.5
    inside = ((position >= 0) & (position < (width - 1, height - 1))).all(1)
    ahead, position = ahead[inside], position[inside]
    column, row = np.floor(position).astype(int).T
    rows = np.stack([row, row, row + 1, row + 1])
    columns = np.stack([column, column + 1, column, column + 1])
    depth = data.depth.numpy(frame)[rows, columns].astype(float)
    good = (data.mask.numpy(frame)[rows, columns] == labels[ahead]).all(0) & (depth > 0).all(0)
    with np.errstate(divide="ignore"):
        inverse = np.where(good, 1 / depth, 1.0)
    good &= inverse.max(0) < (1 + _SAME_SURFACE) * inverse.min(0)
    x, y = (position - np.floor(position)).T
    weights = np.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y])
    ratio = -np.log((weights * inverse).sum(0) * camera[ahead, 2])
    result[ahead] = np.where(good, ratio, np.nan)
    return result
