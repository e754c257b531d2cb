"""Point tracks by chaining optical flow from frame to frame.

A track is started wherever a cell of the image has no point. It follows the flow while forward and
backward flow agree, and ends at an occlusion, at the border, or where too many points are in one
cell. Tracks are short (10 to 30 frames on ordinary clips); a point that reappears is a new track.

Points are followed through the frames of the video between those of the scene too, and over blurred
frames; positions are kept in the frames of the scene.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from msdyn.preprocess.contracts import Backend, TrackResult
from msdyn.preprocess.frames.footage import Footage
from msdyn.preprocess.imaging.flow import (
    estimate_flow,
    follow_points,
    grey,
    look_alike,
    refine_points,
)
from msdyn.preprocess.progress import progress
from msdyn.preprocess.registry import register_backend
from msdyn.preprocess.tracks.bridging import FlowBetween, Step, flow_steps
from msdyn.scene import Scene, Tracks

__all__ = ["FlowTracks"]

BRIDGED_CONFIDENCE = 0.1
"""Highest confidence of a position that is interpolated over a blurred frame."""


@register_backend("tracks", "flow", needs=("frames",))
@dataclass(frozen=True)
class FlowTracks(Backend):
    """Tracks by chained optical flow, new ones started where the image is no longer covered."""

    cells: int = 107
    """Cells along the longer side of the image (at least 4 px wide); an empty cell gets a new
    track."""
    cell_capacity: int = 2
    """Most points in a cell; the oldest are kept."""
    anchor_frames: int = 8
    """Points are matched again to the image this many steps of flow before, against drift."""
    min_life: int = 3
    """Tracks visible in fewer frames are dropped."""
    drift_px: float = 1.5
    """Accumulated forward-backward error at which the confidence of a point is one half."""

    def track(self, scene: Scene, footage: Footage | None = None) -> TrackResult:
        """Return tracks through the whole clip.

        The figures: `tracks`, their number; `mean_life_frames`; `forward_backward_px`, the median
        difference of forward and backward flow in the steps that end at a frame of the scene;
        `frames_between`, the number of other frames that points were followed through;
        `bridged_frames`, the blurred frames of the scene in which positions are interpolated.
        """
        footage = footage or Footage.of_scene(scene)
        scene_frame = dict(zip(footage.kept.tolist(), range(len(scene)), strict=True))
        grid = _Grid(scene.size, self.cells)
        centres = grid.empty_centres(np.zeros((0, 2), np.float32))
        points = _Points(centres)
        recent: deque[tuple[np.ndarray, _Snapshot]] = deque(maxlen=self.anchor_frames)
        stored = deque([points.snapshot()])
        last_index, last_image, last = 0, grey(scene.image(0)), stored[0]
        errors, bridged = [], []
        for step in self._steps(footage, centres):
            before, frame = points.snapshot(), scene_frame.get(step.after)
            recent.append((step.pair.first, before))
            moved, error, valid = follow_points(step.pair, points.xy)
            points.advance(moved, error)
            points.keep(valid)
            for index in range(step.before + 1, step.after):
                if index in scene_frame:
                    share = (index - step.before) / (step.after - step.before)
                    stored.append(self._interpolated(before, points.snapshot(), share))
                    bridged.append(scene_frame[index])
            if len(recent) == self.anchor_frames:
                points.anchor(recent[0][0], step.pair.second, recent[0][1])
                points.keep(grid.inside(points.xy))
            if frame is None:
                continue
            if step.before != last_index:
                points.match_again(last_image, step.pair.second, last)
                points.keep(grid.inside(points.xy))
            errors.append(np.sqrt(error[valid]))
            points.keep(grid.within_capacity(points.xy, self.cell_capacity))
            points.add(grid.empty_centres(points.xy), frame)
            stored.append(points.snapshot())
            last_index, last_image, last = step.after, step.pair.second, stored[-1]
        tracks = self._collect(stored, np.array(points.first_frame, np.int32))
        life = tracks.lifetimes
        figures = {
            "tracks": len(tracks),
            "mean_life_frames": round(float(life.mean()), 2) if len(tracks) else 0.0,
            "forward_backward_px": round(float(np.median(np.concatenate(errors))), 4),
            "frames_between": len(footage) - len(scene),
            "bridged_frames": bridged,
        }
        return TrackResult(tracks, figures)

    def flow_between(self) -> FlowBetween:
        """Return the function that estimates the forward and backward flow of two images."""
        return lambda before, after: estimate_flow(grey(before), grey(after))

    def _steps(self, footage: Footage, probes: Float32[np.ndarray, "points 2"]) -> Iterator[Step]:
        """Yield the steps of flow through all frames, behind a progress bar."""
        images = iter(progress(footage.images(), "tracks", total=len(footage)))
        return flow_steps(images, self.flow_between(), probes)

    def _interpolated(self, before: _Snapshot, after: _Snapshot, share: float) -> _Snapshot:
        """Return the points of a skipped frame, some share of the way between two others."""
        _, old, new = np.intersect1d(before.ids, after.ids, assume_unique=True, return_indices=True)
        xy = before.xy[old] + np.float32(share) * (after.xy[new] - before.xy[old])
        drift = after.drift[new] + np.float32(self.drift_px**2 * (1 / BRIDGED_CONFIDENCE - 1))
        return _Snapshot(after.ids[new], xy, drift)

    def _collect(
        self, history: deque[_Snapshot], first_frame: Int[np.ndarray, " points"]
    ) -> Tracks:
        """Gather snapshots, one per frame, into tracks, without those that are too short.

        The snapshots are removed one by one, so that positions are not in memory twice.
        """
        frames = len(history)
        life = np.zeros(len(first_frame), np.int64)
        for snapshot in history:
            life[snapshot.ids] += 1
        kept = life >= self.min_life
        stop = first_frame + life
        run_shift = np.cumsum(np.where(kept, life, 0)) - stop  # index in the runs, minus the frame
        xy = np.zeros((life[kept].sum(), 2), np.float32)
        confidence = np.zeros(len(xy), np.float32)
        for frame in range(frames):
            snapshot = history.popleft()
            own = kept[snapshot.ids]
            index = run_shift[snapshot.ids[own]] + frame
            xy[index] = snapshot.xy[own]
            confidence[index] = 1 / (1 + snapshot.drift[own] / self.drift_px**2)
        return Tracks(
            frames,
            start=first_frame[kept],
            stop=stop[kept],
            run_xy=xy,
            run_visible=np.ones(len(xy), bool),
            run_confidence=confidence,
            object=np.full(len(life[kept]), -1),
            query_frame=first_frame[kept],
        )


@dataclass(frozen=True)
class _Snapshot:
    """The points of one frame.

    Attributes:
        ids: [N] of the points.
        xy: [N, 2] px.
        drift: [N] px^2, accumulated squared forward-backward error.
    """

    ids: Int[np.ndarray, " points"]
    xy: Float32[np.ndarray, "points 2"]
    drift: Float32[np.ndarray, " points"]


class _Points:
    """The points that are being followed, oldest first; see `_Snapshot`."""

    def __init__(self, xy: Float32[np.ndarray, "points 2"]) -> None:
        self.ids = np.zeros(0, np.int32)
        self.xy = np.zeros((0, 2), np.float32)
        self.drift = np.zeros(0, np.float32)
        self.first_frame: list[int] = []  # of each id
        self.add(xy, 0)

    def add(self, xy: Float32[np.ndarray, "new 2"], frame: int) -> None:
        """Start points in a frame."""
        count = len(self.first_frame)
        new = np.arange(count, count + len(xy), dtype=np.int32)
        self.ids = np.concatenate([self.ids, new])
        self.xy = np.concatenate([self.xy, xy])
        self.drift = np.concatenate([self.drift, np.zeros(len(xy), np.float32)])
        self.first_frame += [frame] * len(xy)

    def advance(
        self, moved: Float32[np.ndarray, "points 2"], error: Float32[np.ndarray, " points"]
    ) -> None:
        """Move the points; their squared forward-backward error [N] px^2 accumulates."""
        self.xy, self.drift = moved, self.drift + error

    def anchor(
        self,
        then: UInt8[np.ndarray, "height width"],
        now: UInt8[np.ndarray, "height width"],
        past: _Snapshot,
    ) -> None:
        """Match the points of an earlier frame again, from its image to the present one."""
        _, old, new = np.intersect1d(past.ids, self.ids, assume_unique=True, return_indices=True)
        self.xy[new] = refine_points(then, now, past.xy[old], self.xy[new])

    def match_again(
        self,
        then: UInt8[np.ndarray, "height width"],
        now: UInt8[np.ndarray, "height width"],
        past: _Snapshot,
    ) -> None:
        """Anchor the points in the frame of the scene before, and drop those that look different.

        Errors of the steps in between add up, and next to an occluder each step is similar.
        """
        self.anchor(then, now, past)
        _, old, new = np.intersect1d(past.ids, self.ids, assume_unique=True, return_indices=True)
        alike = np.ones(len(self.ids), bool)
        alike[new] = look_alike(then, now, past.xy[old], self.xy[new])
        self.keep(alike)

    def keep(self, which: Bool[np.ndarray, " points"]) -> None:
        """Drop all other points."""
        self.ids, self.xy, self.drift = self.ids[which], self.xy[which], self.drift[which]

    def snapshot(self) -> _Snapshot:
        """Return the points as they are now."""
        return _Snapshot(self.ids, self.xy, self.drift)


class _Grid:
    """Square cells over an image.

    Attributes:
        side: of a cell, px.
        rows, columns: number of cells.
    """

    def __init__(self, size: tuple[int, int], cells: int) -> None:
        self.side = max(4, round(max(size) / cells))
        self.rows, self.columns = (-(-extent // self.side) for extent in size)
        self.extent = np.array([size[1], size[0]], np.float32)
        self.last = self.extent - 0.5  # a cell cut by the border has its centre outside

    def inside(self, xy: Float32[np.ndarray, "points 2"]) -> Bool[np.ndarray, " points"]:
        """Return which points [N, 2] px lie in the image."""
        return np.all((xy >= 0) & (xy <= self.extent), axis=1)

    def cell_of(self, xy: Float32[np.ndarray, "points 2"]) -> Int[np.ndarray, " points"]:
        """Return the cell index [N] of points [N, 2] px."""
        column = np.clip(xy[:, 0] // self.side, 0, self.columns - 1)
        row = np.clip(xy[:, 1] // self.side, 0, self.rows - 1)
        return (row * self.columns + column).astype(np.int64)

    def empty_centres(self, xy: Float32[np.ndarray, "points 2"]) -> Float32[np.ndarray, "empty 2"]:
        """Return the centres [M, 2] px of the cells without any of the points [N, 2] px."""
        empty = np.setdiff1d(np.arange(self.rows * self.columns), self.cell_of(xy))
        row, column = np.divmod(empty, self.columns)
        centres = (np.stack([column, row], 1) + 0.5) * self.side
        return np.minimum(centres, self.last).astype(np.float32)

    def within_capacity(
        self, xy: Float32[np.ndarray, "points 2"], capacity: int
    ) -> Bool[np.ndarray, " points"]:
        """Return which points [N] are among the first `capacity` of their cell."""
        cells = self.cell_of(xy)
        order = np.argsort(cells, kind="stable")
        number = np.bincount(cells, minlength=self.rows * self.columns)
        start = np.cumsum(number) - number
        rank = np.empty(len(cells), np.int64)
        rank[order] = np.arange(len(cells)) - start[cells[order]]
        return rank < capacity
