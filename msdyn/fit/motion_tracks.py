"""The tracks from which the motion of a fit is initialised: all of them, or a choice that covers.

The hierarchy clusters whole trajectories, in dense arrays [N, F]. As a longer clip has more tracks,
these would grow with the square of its length, so that their size is bounded. The losses have all
observations.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from msdyn.fit.spacing import finest_choice
from msdyn.scene import LiftedObservations, LiftedTracks

__all__ = ["MOST_ENTRIES", "choose_tracks", "motion_tracks"]

MOST_ENTRIES = 800_000
"""Tracks times frames of dense arrays, which take some 200 bytes each while motions are sought.

Usual clips of up to 100 frames of 384 px have fewer. docs/performance.md has what it costs.
"""

_SMALLEST_CELL = 2.0
"""Side of the cells that chosen tracks cover, px, where there are few too many tracks."""
_BISECTIONS = 8


def motion_tracks(
    observations: LiftedObservations, size: tuple[int, int], entries: int = MOST_ENTRIES
) -> LiftedTracks:
    """Return the tracks visible in some frame, or a choice of them, as dense trajectories.

    Args:
        observations: of N tracks in F frames.
        size: height and width of the images, px.
        entries: most tracks times frames, see `choose_tracks`.
    """
    seen = observations.seen()
    count = entries // max(seen.num_frames, 1)
    return seen.select(choose_tracks(seen, size, count)).dense()


def choose_tracks(
    observations: LiftedObservations, size: tuple[int, int], count: int
) -> Int[np.ndarray, " chosen"]:
    """Choose about `count` tracks that cover the objects in every frame.

    Every cell of the image in which an object is observed in a frame is one in which a chosen track
    of the object is observed in that frame. Tracks are taken in order of their lifetimes, each if
    it is observed in a cell that none before it covers. The side of the cells is found by
    bisection; with cells as large as the image, more tracks than `count` may be needed.

    Args:
        observations: of N tracks, each with an observation.
        size: height and width of the images, px.
        count: most tracks.

    Returns:
        Their indices, ascending; all if they are not more than `count`.
    """
    if len(observations) <= count:
        return np.arange(len(observations))
    order = np.lexsort((np.arange(len(observations)), -observations.lifetimes))
    largest = float(max(size))

    def cover(side: float) -> Int[np.ndarray, " chosen"]:
        return _cover(observations, size, order, side)

    chosen, _ = finest_choice(
        cover, lambda tried: len(tried) <= count, _SMALLEST_CELL, largest, _BISECTIONS
    )
    return cover(largest) if chosen is None else chosen


def _cover(
    observations: LiftedObservations,
    size: tuple[int, int],
    order: Int[np.ndarray, " tracks"],
    side: float,
) -> Int[np.ndarray, " chosen"]:
    """Return the tracks chosen with cells of one size, px."""
    columns, rows = (int(length / side) + 1 for length in reversed(size))
    column, row = (observations.xy / side).astype(np.int64).T
    own = observations.object[observations.track].astype(np.int64)
    cell = (row.clip(0, rows - 1) * columns + column.clip(0, columns - 1)) + own * rows * columns
    cell = cell * observations.num_frames + observations.frame
    _, cell = np.unique(cell, return_inverse=True)
    covered = np.zeros(int(cell.max(initial=-1)) + 1, bool)
    start, chosen = observations.start.tolist(), []
    for track in order.tolist():
        cells = cell[start[track] : start[track + 1]]
        if not covered[cells].all():
            covered[cells] = True
            chosen.append(track)
    return np.sort(np.array(chosen, np.int64))
