"""Which of the possible Gaussians are chosen, so that in every frame what was seen is covered."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from msdyn.fit.initial_lives import Lives
from msdyn.fit.spacing import finest_choice

__all__ = ["choose_by_coverage", "spacing_among_living"]

# Most points chosen, as a multiple of the number that would be chosen if all lived always.
_MOST = 3
# Neighbours whose distance is that of a point to the next ones.
_NEIGHBOURS = 3


def choose_by_coverage(
    lives: Lives,
    source: Int[np.ndarray, " points"],
    frames: Int[np.ndarray, " frames"],
    width: int,
    count: int,
) -> tuple[Int[np.ndarray, " kept"], float]:
    """Choose points so that in every frame living ones cover the objects evenly.

    Points are taken in order of their length of life, each if no living one covers its pixel in its
    own frame. The spacing, at least a pixel, is found by bisection: as many points as allowed exist
    in a frame on average, but not more than three times as many in all.

    Args:
        lives: of the points.
        source, frames: as for `life_spans`.
        width: of the images, px.
        count: maximum number of points that exist in a frame, on average.

    Returns:
        Indices of the points, and the spacing in px.
    """
    begin = np.searchsorted(frames, lives.spans[:, 0], side="left")
    alive = np.searchsorted(frames, lives.spans[:, 1], side="right") - begin
    visible = np.array([np.count_nonzero(row >= 0) for row in lives.pixel])
    # Ties, such as whole lives, are broken by the number of frames with evidence.
    order = np.lexsort((-visible, -alive))
    low, high = 1.0, 64.0
    kept = _cover(lives.pixel, source, order, width, low)
    life = alive / len(frames)

    def fits(chosen: Int[np.ndarray, " kept"]) -> bool:
        return float(life[chosen].sum()) <= count and len(chosen) <= _MOST * count

    if fits(kept):
        return kept, low
    found, spacing = finest_choice(
        lambda tried: _cover(lives.pixel, source, order, width, tried), fits, low, high, 7
    )
    return (kept if found is None else found), spacing


def _cover(
    pixel: Int[np.ndarray, "points frames"],
    source: Int[np.ndarray, " points"],
    order: Int[np.ndarray, " points"],
    width: int,
    spacing: float,
) -> Int[np.ndarray, " kept"]:
    """Return the points chosen at one spacing, in px."""
    columns = int(width / spacing) + 1

    def cells(pixels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        row, column = np.divmod(pixels, width)
        return (row / spacing).astype(np.int64) * columns + (column / spacing).astype(np.int64)

    rows = int(int(pixel.max(initial=0)) // width / spacing) + 1
    covered = np.zeros((pixel.shape[1], rows * columns), bool)
    own = cells(pixel[np.arange(len(source)), source])
    kept = []
    for i in order:
        if not covered[source[i], own[i]]:
            kept.append(i)
            there = np.flatnonzero(pixel[i] >= 0)
            covered[there, cells(pixel[i, there])] = True
    return np.sort(np.array(kept, np.int64))


def spacing_among_living(
    lives: Lives,
    source: Int[np.ndarray, " points"],
    width: int,
    least: float,
) -> Float[np.ndarray, " points"]:
    """Return the distance of each point to those beside it in its own frame, in px.

    Where lives are short, few points exist in a frame, and each has to cover more of it.

    Args:
        lives: of all points that were chosen.
        source: index of each point's own frame.
        width: of the images, px.
        least: spacing at which they were chosen, px.

    Returns:
        The mean distance to the three nearest that live there, at least `least`, at most three
        times the median of the frame.
    """
    result = np.full(len(source), least)
    for frame in np.unique(source):
        own = np.flatnonzero(source == frame)
        living = lives.pixel[lives.pixel[:, frame] >= 0, frame]
        count = min(_NEIGHBOURS + 1, len(living))
        if count < 2:
            continue
        places = np.column_stack(np.divmod(living, width))
        at = np.column_stack(np.divmod(lives.pixel[own, frame], width))
        # The nearest is the point itself.
        distance = np.asarray(KDTree(places).query(at, k=count)[0])[:, 1:].mean(1)
        result[own] = np.clip(distance, least, max(least, 3 * float(np.median(distance))))
    return result
