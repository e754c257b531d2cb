"""The ground: the plane on which things of a scene stand."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["ground_plane"]

_DRAWS = 600
_SAMPLES = 6000
_TILT = np.cos(np.radians(60))
"""Least cosine between the plane's normal and the rough direction up."""


def ground_plane(
    points: Float[np.ndarray, "points 3"],
    up: Float[np.ndarray, " 3"],
    width: float,
    *,
    least: float = 0.1,
) -> tuple[Float[np.ndarray, " 3"], float] | None:
    """Return the plane with the most points that is roughly horizontal, or None.

    The plane of three random points with the most points within `width`, refined by a
    least-squares fit to these (RANSAC).

    Args:
        points: of the static scene, scene units.
        up: [3] unit, within 60 degrees of the plane's normal.
        width: distance of the plane's points from it, scene units.
        least: share of the points that the plane must have.

    Returns:
        The unit normal, on the side of `up`, and the height: `normal @ x = height`.
    """
    rng = np.random.default_rng(0)
    if len(points) < 50:
        return None
    if len(points) > _SAMPLES:
        points = points[rng.choice(len(points), _SAMPLES, replace=False)]
    corners = points[rng.integers(0, len(points), (_DRAWS, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1)
    normals /= length.clip(1e-12)[:, None]
    normals *= np.where(normals @ up < 0, -1, 1)[:, None]
    usable = (length > 1e-12) & (normals @ up > _TILT)
    if not usable.any():
        return None
    normals, anchors = normals[usable], corners[usable, 0]
    height = np.einsum("nd,nd->n", normals, anchors)
    near = np.abs(points @ normals.T - height) < width  # [P, draws]
    inliers = points[near[:, near.sum(0).argmax()]]
    normal, middle = up, points[0]
    for _ in range(3):
        if len(inliers) < max(50, least * len(points)):
            return None
        middle = inliers.mean(0)
        normal = np.linalg.svd(inliers - middle, full_matrices=False)[2][2]
        normal = -normal if normal @ up < 0 else normal
        inliers = points[np.abs((points - middle) @ normal) < width]
    return normal, float(normal @ middle)
