"""Which of the possible Gaussians are chosen, so that in every frame what was seen is covered."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from scipy.spatial import KDTree

from msdyn.fit.data import FitData
from msdyn.fit.initial_lives import Lives
from msdyn.fit.spacing import finest_choice
from msdyn.scene import IGNORE

__all__ = ["MOST_LIVES", "Gaps", "choose_by_coverage", "moving_area", "spacing_among_living"]

# Most points chosen, as a multiple of the number that would be chosen if all lived always.
MOST_LIVES = 3
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
        return float(life[chosen].sum()) <= count and len(chosen) <= MOST_LIVES * count

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
    cells = _Cells(width, spacing)
    covered = np.zeros((pixel.shape[1], cells.count(int(pixel.max(initial=0)))), bool)
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


class Gaps:
    """Pixels of objects that no living point covers.

    Attributes:
        cells: number of the gaps of the size of the spacing, in all frames.
    """

    def __init__(self, data: FitData, lives: Lives, count: int) -> None:
        """Find the gaps at the spacing of `count` points, spread evenly over a frame's objects."""
        self.data, self.lives = data, lives
        frames = [int(frame) for frame in data.frames]
        area = sum(moving_area(data.mask.numpy(frame)) for frame in frames)
        self.spacing = max(1.0, math.sqrt(area / len(frames) / count))
        pixels = sum(moving_area(np.where(self(f), data.mask.numpy(f), 0)) for f in frames)
        self.cells = int(pixels / self.spacing**2)

    def __call__(self, frame: int) -> Bool[np.ndarray, "height width"]:
        """Return which pixels of a frame of the clip lie in cells that no living point covers."""
        _, height, width = self.data.mask.shape
        cells = _Cells(width, self.spacing)
        living = self.lives.pixel[:, np.searchsorted(self.data.frames, frame)]
        covered = np.zeros(cells.count(height * width - 1), bool)
        covered[cells(living[living >= 0])] = True
        return ~covered[cells(np.arange(height * width))].reshape(height, width)


@dataclass(frozen=True)
class _Cells:
    """Numbers of the cells of a grid over an image, from those of pixels, row by row."""

    width: int
    spacing: float

    def __call__(self, pixels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        row, column = np.divmod(pixels, self.width)
        across = int(self.width / self.spacing) + 1
        row, column = (
            (row / self.spacing).astype(np.int64),
            (column / self.spacing).astype(np.int64),
        )
        return row * across + column

    def count(self, last: int) -> int:
        """Return the number of cells up to that of the last pixel, in whole rows."""
        rows = int(last // self.width / self.spacing) + 1
        return rows * (int(self.width / self.spacing) + 1)


def moving_area(mask: Integer[np.ndarray, "height width"]) -> int:
    """Return the number of pixels on objects in a mask."""
    return int(((mask > 0) & (mask != IGNORE)).sum())
