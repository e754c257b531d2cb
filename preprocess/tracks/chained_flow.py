"""Point tracks by chaining optical flow from frame to frame.

A track is started wherever a cell of the image holds no point, follows the flow while the way
there and back agree, and ends at an occlusion, at the border, or where too many points have piled
up in one cell. Tracks are local in time (10 to 30 frames on ordinary clips); a point that
reappears is a new track.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdyn.preprocess.imaging.flow import (
    FlowPair,
    estimate_flow,
    follow_points,
    grey,
    refine_points,
)
from msdyn.preprocess.progress import progress
from msdyn.scene import Scene, Tracks

__all__ = ["FlowTracks"]


@dataclass(frozen=True)
class FlowTracks:
    """Tracks by chained optical flow, re-seeded where the image is no longer covered."""

    cells: int = 107
    """Cells along the longer side of the image (at least 4 px wide); one that is empty gets a new
    track."""
    cell_capacity: int = 2
    """Points that a cell may hold; the oldest stay."""
    anchor_frames: int = 8
    """Points are matched again to where they were this many frames before, against drift."""
    min_life: int = 3
    """Tracks seen in fewer frames are dropped."""
    drift_px: float = 1.5
    """Accumulated forward-backward error at which a point's confidence has fallen to one half."""

    name = "flow"

    def track(self, scene: Scene) -> tuple[Tracks, dict[str, Any]]:
        """Return tracks through the whole clip (object -1) and quality figures."""
        grid = _Grid(scene.size, self.cells)
        images: deque[np.ndarray] = deque(maxlen=self.anchor_frames + 1)
        living = _Living(grid.empty_centres(np.zeros((0, 2), np.float32)))
        history = deque([living.snapshot()])
        errors = []
        pairs = progress(self.flows(scene), "tracks", total=len(scene) - 1)
        for frame, pair in enumerate(pairs, start=1):
            images.extend([pair.second] if images else [pair.first, pair.second])
            moved, error, believed = follow_points(pair, living.xy)
            errors.append(np.sqrt(error[believed]))
            living.advance(moved, error)
            living.keep(believed)
            if frame >= self.anchor_frames:
                living.anchor(images[0], images[-1], history[-self.anchor_frames])
                living.keep(grid.inside(living.xy))
            living.keep(grid.uncrowded(living.xy, self.cell_capacity))
            living.add(grid.empty_centres(living.xy), frame)
            history.append(living.snapshot())
        tracks = self._collect(history, np.array(living.born, np.int32))
        life = tracks.lifetimes
        return tracks, {
            "tracks": len(tracks),
            "mean_life_frames": round(float(life.mean()), 2) if len(tracks) else 0.0,
            "forward_backward_px": round(float(np.median(np.concatenate(errors))), 4),
        }

    def flows(self, scene: Scene) -> Iterator[FlowPair]:
        """Yield the flow from each frame to the next, and back."""
        before = grey(scene.image(0))
        for frame in range(1, len(scene)):
            now = grey(scene.image(frame))
            yield estimate_flow(before, now)
            before = now

    def _collect(self, history: deque[_Snapshot], born: np.ndarray) -> Tracks:
        """Gather snapshots, one a frame, into tracks, without the short-lived ones.

        The snapshots are given up one by one, not to hold all positions twice.
        """
        frames = len(history)
        life = np.zeros(len(born), np.int64)
        for snapshot in history:
            life[snapshot.ids] += 1
        kept = life >= self.min_life
        stop = born + life
        runs = np.cumsum(np.where(kept, life, 0)) - stop  # plus the frame: its place in the runs
        xy = np.zeros((life[kept].sum(), 2), np.float32)
        confidence = np.zeros(len(xy), np.float32)
        for frame in range(frames):
            snapshot = history.popleft()
            own = kept[snapshot.ids]
            place = runs[snapshot.ids[own]] + frame
            xy[place] = snapshot.xy[own]
            confidence[place] = 1 / (1 + snapshot.drift[own] / self.drift_px**2)
        return Tracks(
            frames,
            start=born[kept],
            stop=stop[kept],
            run_xy=xy,
            run_visible=np.ones(len(xy), bool),
            run_confidence=confidence,
            object=np.full(len(life[kept]), -1),
            query_frame=born[kept],
        )


@dataclass(frozen=True)
class _Snapshot:
    """The living points of one frame: ids [N], positions [N, 2] px, accumulated error [N] px^2."""

    ids: np.ndarray
    xy: np.ndarray
    drift: np.ndarray


class _Living:
    """The points being followed, oldest first."""

    def __init__(self, xy: np.ndarray) -> None:
        self.ids = np.zeros(0, np.int32)
        self.xy = np.zeros((0, 2), np.float32)
        self.drift = np.zeros(0, np.float32)
        self.born: list[int] = []  # frame in which each id was started
        self.add(xy, 0)

    def add(self, xy: np.ndarray, frame: int) -> None:
        new = np.arange(len(self.born), len(self.born) + len(xy), dtype=np.int32)
        self.ids = np.concatenate([self.ids, new])
        self.xy = np.concatenate([self.xy, xy])
        self.drift = np.concatenate([self.drift, np.zeros(len(xy), np.float32)])
        self.born += [frame] * len(xy)

    def advance(self, moved: np.ndarray, error: np.ndarray) -> None:
        self.xy, self.drift = moved, self.drift + error

    def anchor(self, then: np.ndarray, now: np.ndarray, past: _Snapshot) -> None:
        """Match the points that lived in an earlier frame to that frame's image."""
        _, old, new = np.intersect1d(past.ids, self.ids, assume_unique=True, return_indices=True)
        self.xy[new] = refine_points(then, now, past.xy[old], self.xy[new])

    def keep(self, which: np.ndarray) -> None:
        self.ids, self.xy, self.drift = self.ids[which], self.xy[which], self.drift[which]

    def snapshot(self) -> _Snapshot:
        return _Snapshot(self.ids, self.xy, self.drift)


class _Grid:
    """Square cells over an image of a size (height, width)."""

    def __init__(self, size: tuple[int, int], cells: int) -> None:
        self.side = max(4, round(max(size) / cells))
        self.rows, self.columns = (-(-extent // self.side) for extent in size)
        self.extent = np.array([size[1], size[0]], np.float32)
        self.last = self.extent - 0.5  # a cell cut by the border has its centre outside

    def inside(self, xy: np.ndarray) -> np.ndarray:
        """Return which points [N, 2] px lie in the image."""
        return np.all((xy >= 0) & (xy <= self.extent), axis=1)

    def cell_of(self, xy: np.ndarray) -> np.ndarray:
        """Return the cell index [N] of points [N, 2] px."""
        column = np.clip(xy[:, 0] // self.side, 0, self.columns - 1)
        row = np.clip(xy[:, 1] // self.side, 0, self.rows - 1)
        return (row * self.columns + column).astype(np.int64)

    def empty_centres(self, xy: np.ndarray) -> np.ndarray:
        """Return the centres [M, 2] of the cells that hold none of the points [N, 2] px."""
        empty = np.setdiff1d(np.arange(self.rows * self.columns), self.cell_of(xy))
        row, column = np.divmod(empty, self.columns)
        centres = (np.stack([column, row], 1) + 0.5) * self.side
        return np.minimum(centres, self.last).astype(np.float32)

    def uncrowded(self, xy: np.ndarray, capacity: int) -> np.ndarray:
        """Return which points [N] stay when each cell keeps its first `capacity`."""
        cells = self.cell_of(xy)
        order = np.argsort(cells, kind="stable")
        number = np.bincount(cells, minlength=self.rows * self.columns)
        start = np.cumsum(number) - number
        rank = np.empty(len(cells), np.int64)
        rank[order] = np.arange(len(cells)) - start[cells[order]]
        return rank < capacity
