"""Completes a map that is known at some pixels only, along the edges of an image.

Minimises  sum_p w_p (u_p - v_p)^2 + s sum_pq g_pq (u_p - u_q)^2  over neighbouring pixels p, q,
where g decreases with the difference of their colours. From the coarsest scale to the finest, each
initialised by the one before, by exact solves of all rows and columns in turn (zebra line
relaxation), so a hole of any size is filled in a few passes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

__all__ = ["edge_weights", "fill"]

COARSEST = 8  # px
# Scale of the differences of colour (in [0, 1], the largest over the channels) at edges. The floor
# gives a value to regions without data that are enclosed by edges.
EDGE = 0.04
FLOOR = 0.003


def edge_weights(
    image: Float32[np.ndarray, "height width channels"],
) -> tuple[Float32[np.ndarray, "height width-1"], Float32[np.ndarray, "height-1 width"]]:
    """Return the weights g of neighbours: along rows [H, W-1] and columns [H-1, W].

    Args:
        image: [H, W, C] in [0, 1].
    """
    along, across = (
        np.exp(-np.abs(np.diff(image, axis=axis)).max(-1) / EDGE) + np.float32(FLOOR)
        for axis in (1, 0)
    )
    return along, across


def fill(
    values: Float[np.ndarray, "height width"],
    weights: Float[np.ndarray, "height width"],
    image: Float[np.ndarray, "height width channels"],
    smoothness: float,
    passes: int = 4,
) -> Float32[np.ndarray, "height width"]:
    """Return the completed map [H, W].

    Args:
        values: [H, W] known values; not used where the weight is zero.
        weights: [H, W] >= 0; if all are zero, so is the result.
        image: [H, W, C] in [0, 1], with edges between surfaces.
        smoothness: s, relative to the weights.
        passes: line relaxations in both directions at each scale.
    """
    weights = weights.astype(np.float32)
    known = np.where(weights > 0, values, 0).astype(np.float32)
    if not weights.any():
        return known
    return _fill(known * weights, weights, image.astype(np.float32), smoothness, passes)


def _fill(
    weighted: Float32[np.ndarray, "height width"],
    weights: Float32[np.ndarray, "height width"],
    image: Float32[np.ndarray, "height width channels"],
    smoothness: float,
    passes: int,
) -> Float32[np.ndarray, "height width"]:
    """Return the completed map, from that of half the size; `weighted` is values times weights."""
    import cv2

    height, width = weights.shape
    if min(height, width) <= COARSEST:
        start = np.full_like(weights, weighted.sum() / weights.sum())
        passes *= 4
    else:
        size = ((width + 1) // 2, (height + 1) // 2)
        coarse = [cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (weighted, weights)]
        shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], -1)
        # A coarse pixel has the data of four. The weight of the smoothness is unchanged: half as
        # many links in each direction, each with twice the difference.
        coarser = _fill(coarse[0] * 4, coarse[1] * 4, shrunk, smoothness, passes)
        start = cv2.resize(coarser, (width, height), interpolation=cv2.INTER_LINEAR)
    along, across = (smoothness * g for g in edge_weights(image))
    result = start
    for _ in range(passes):
        _relax_rows(result, weighted, weights, along, across)
        _relax_rows(result.T, weighted.T, weights.T, across.T, along.T)
    return result


def _relax_rows(
    u: Float32[np.ndarray, "height width"],
    weighted: Float32[np.ndarray, "height width"],
    weights: Float32[np.ndarray, "height width"],
    along: Float32[np.ndarray, "height width-1"],
    across: Float32[np.ndarray, "height-1 width"],
) -> None:
    """Solve every second row exactly, the others fixed, then the others; in place."""
    from scipy.linalg import solve_banded

    height, width = u.shape
    from_above = np.zeros((height, width), np.float32)
    from_below = np.zeros((height, width), np.float32)
    from_above[1:] = across
    from_below[:-1] = across
    diagonal = weights + from_above + from_below + np.float32(1e-12)
    diagonal[:, :-1] += along
    diagonal[:, 1:] += along
    for parity in (0, 1):
        rows = slice(parity, height, 2)
        right = weighted[rows].copy()
        upper = u[np.maximum(np.arange(parity, height, 2) - 1, 0)]
        lower = u[np.minimum(np.arange(parity, height, 2) + 1, height - 1)]
        right += from_above[rows] * upper + from_below[rows] * lower
        # All rows as one tridiagonal system, without links from the end of a row to the next one.
        count = right.shape[0]
        link = np.zeros((count, width), np.float32)
        link[:, :-1] = -along[rows]
        band = np.zeros((3, count * width), np.float32)
        band[0, 1:] = link.ravel()[:-1]
        band[1] = diagonal[rows].ravel()
        band[2] = link.ravel()
        solved = solve_banded(
            (1, 1), band, right.ravel(), overwrite_ab=True, overwrite_b=True, check_finite=False
        )
        u[rows] = solved.reshape(count, width)
