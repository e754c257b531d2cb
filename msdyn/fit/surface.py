"""Surfaces of depth maps, and the shapes of the first Gaussians on them.

A sphere on a slanted surface moves, between views, by the parallax of its centre, wherever a pixel
shows it; a disc that lies in the surface moves as the surface does. So Gaussians start as discs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer, Real

__all__ = ["Discs", "discs", "surface_tangents"]

# Half the side of the window to which planes are fitted, px.
_RADIUS = 2
# Relative differences of inverse depth, per px of distance, from which on pixels count little.
_SAME_SURFACE = 0.02
# Added to the variance of the positions in a window, px^2: slopes of few pixels are drawn to zero.
_RIDGE = 0.05
# The largest ratio of the axes of a disc, which is as long as its surface is slanted.
_LONGEST = 4.0
# Standard deviation along the normal, as a fraction of the smaller one in the surface.
_THICKNESS = 0.2


def surface_tangents(
    depth: Real[np.ndarray, "height width"],
    mask: Integer[np.ndarray, "height width"],
    intrinsics: Float[np.ndarray, "3 3"],
    pixels: Int[np.ndarray, " points"],
) -> Float[np.ndarray, "points 3 2"]:
    """Return by how much the surface point of a pixel moves, per px to the right and downwards.

    Planes, whose inverse depth is linear in the image, are fitted by weighted least squares to the
    pixels around each one that have its mask index and about its depth.

    Args:
        depth: z-depth, 0 where it is unknown; tangents are those of a plane parallel to the image
            where too little is known, and zero where the depth is.
        mask: object index.
        intrinsics: pinhole matrix, pixel centres at +0.5.
        pixels: at which tangents are wanted, counted row by row.

    Returns:
        Vectors in the axes of the camera, in units of the depth.
    """
    row, column = np.divmod(pixels, depth.shape[1])
    own = depth[row, column].astype(float)
    slopes = _inverse_depth_slopes(depth, mask, row, column)
    focal, centre = intrinsics[[0, 1], [0, 1]], intrinsics[:2, 2]
    lateral = (np.stack([column, row], -1) + 0.5 - centre) / focal
    rays = np.concatenate([lateral, np.ones((len(pixels), 1))], -1)
    tangents = -rays[..., None] * slopes[:, None, :]
    tangents[:, 0, 0] += 1 / focal[0]
    tangents[:, 1, 1] += 1 / focal[1]
    return tangents * own[:, None, None]


def _inverse_depth_slopes(
    depth: Real[np.ndarray, "height width"],
    mask: Integer[np.ndarray, "height width"],
    row: Int[np.ndarray, " points"],
    column: Int[np.ndarray, " points"],
) -> Float[np.ndarray, "points 2"]:
    """Return the slopes of inverse depth in x and y, per px, as fractions of it."""
    height, width = depth.shape
    own, label = depth[row, column].astype(float), mask[row, column]
    # Sums of 1, x, y, xx, xy, yy, v, vx, vy over the window, v the relative change of the inverse.
    sums = np.zeros((9, len(row)))
    for dy in range(-_RADIUS, _RADIUS + 1):
        for dx in range(-_RADIUS, _RADIUS + 1):
            y, x = row + dy, column + dx
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            y, x = y.clip(0, height - 1), x.clip(0, width - 1)
            near = depth[y, x].astype(float)
            same = inside & (own > 0) & (near > 0) & (mask[y, x] == label)
            change = np.where(same, own / np.where(same, near, 1.0) - 1, 0.0)
            outlying = change / (_SAME_SURFACE * (1 + np.hypot(dx, dy)))
            weight = same / (1 + outlying**2) ** 2
            terms = (1, dx, dy, dx * dx, dx * dy, dy * dy, change, change * dx, change * dy)
            for number, value in enumerate(terms):
                sums[number] += weight * value
    means = sums[1:] / np.maximum(sums[0], 1e-9)
    x, y, xx, xy, yy, v, vx, vy = means
    a, b, c = xx - x * x + _RIDGE, xy - x * y, yy - y * y + _RIDGE
    p, q = vx - v * x, vy - v * y
    determinant = a * c - b * b
    return np.stack([(c * p - b * q) / determinant, (a * q - b * p) / determinant], -1)


class Discs(NamedTuple):
    """The shapes of N Gaussians that lie in a surface.

    Attributes:
        rotations: [N, 3, 3] columns are the axes: the longer one, the shorter one, the normal.
        scales: [N, 3] along them, as multiples of the shorter one.
    """

    rotations: Float[np.ndarray, "points 3 3"]
    scales: Float[np.ndarray, "points 3"]


def discs(tangents: Float[np.ndarray, "points 3 2"]) -> Discs:
    """Return Gaussians whose images are round, given the tangents of `surface_tangents`.

    Where a surface is very slanted, they are not as long as they would have to be.
    """
    axes, lengths, _ = np.linalg.svd(tangents)
    axes[np.linalg.det(axes) < 0, :, 2] *= -1
    scales = np.ones((len(tangents), 3))
    scales[:, 0] = (lengths[:, 0] / np.maximum(lengths[:, 1], 1e-12)).clip(1, _LONGEST)
    scales[:, 2] = _THICKNESS
    return Discs(axes, scales)
