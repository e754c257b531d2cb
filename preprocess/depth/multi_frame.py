"""Dense depth of a rigid body: plane sweeps of many frames, fused where they agree.

The static background is a rigid body, with the cameras of the clip. A rigidly moving object is
another: relative to it the camera has a path of its own, so the same method measures its shape.
Each frame is swept against neighbours with enough parallax; a pixel is measured where the sweeps of
other frames agree on its surface point, and their inverse depths are averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float32

from msdyn.geometry import Cameras, nearest_pixels, project, transform_points, unproject
from msdyn.preprocess.contracts import Masks, SparsePoints
from msdyn.preprocess.depth.plane_sweep import Picture, match_cost, pick_planes, semi_global
from msdyn.preprocess.imaging.windows import Window, window_of
from msdyn.scene import Scene

__all__ = ["DenseBody", "Body", "choose_neighbours"]

# Baseline over depth of the neighbours on each side. On a rendered clip fewer or smaller ones lose
# up to a third of the accuracy, larger ones nothing.
PARALLAXES = (0.02, 0.035, 0.06, 0.1)
MAX_GAP = 32
PLANES = 64
PLANE_CHANGE, DEPTH_JUMP = 0.15, 1.5  # penalties of semi-global matching
MIN_CORRELATION = 0.3
AGREEMENT_GAPS = (-12, -8, -4, -2, 2, 4, 8, 12)
AGREEMENT = 0.03  # relative difference in depth of one surface point in two frames
# Weight of a depth confirmed by one other frame only: that may agree by chance, above all in dark
# and smooth regions.
PAIR_WEIGHT = 0.1
MIN_POINTS = 20
# The planes range from 0.6 of the farthest inverse depth to 1.35 of the nearest. Both are the
# extremes over cells of the image: near ground at the border of the image has few of the points.
BEYOND, BEFORE = 0.6, 1.35
CELLS, MIN_IN_CELL = 8, 3
WORKERS = 2  # sweeps at a time


@dataclass(frozen=True)
class Body:
    """One rigid body and the camera's path relative to it.

    Attributes:
        label: its index in the masks, 0 for the background.
        cameras: one per frame, of the size of the images, relative to the body.
        known: [T] whether the camera of each frame is known.
        points: triangulated points of it.
        swept: whether its depth is measured by sweeps; otherwise it is that of the points.
    """

    label: int
    cameras: Cameras
    known: Bool[np.ndarray, " frames"]
    points: SparsePoints
    swept: bool = True


Sweep: TypeAlias = tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]
"""Inverse depth of a frame at working size, and where it matches well."""


class DenseBody:
    """Measures the inverse depth of a body's pixels, frame by frame; keeps few frames in memory.

    A context manager, since threads compute the sweeps of the next frames ahead of time.
    """

    def __init__(self, scene: Scene, masks: Masks, body: Body, size: tuple[int, int]) -> None:
        """Prepare to sweep at a working size (height, width)."""
        self._scene, self._masks, self._body, self._size = scene, masks, body, size
        self._cameras = body.cameras.resized(size[1], size[0])
        self._ranges = _depth_ranges(body)
        self._picture: Callable[[int], Picture] = lru_cache(2 * MAX_GAP + 8)(self._load)
        self._sweeps: dict[int, Future[Sweep]] = {}
        self._workers = ThreadPoolExecutor(WORKERS)

    def __enter__(self) -> DenseBody:
        return self

    def __exit__(self, *error: object) -> None:
        self._workers.shutdown(cancel_futures=True)

    def measure(self, frame: int) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
        """Return the inverse depth [h, w] of a frame, and its weight [h, w].

        The weight is the number of frames that agree, `PAIR_WEIGHT` for two; zero where nothing is
        measured, and off the body.
        """
        if not self._body.known[frame]:
            return np.zeros(self._size, np.float32), np.zeros(self._size, np.float32)
        self._start_sweeps(frame)
        inverse, good = self._sweep(frame)
        rows, columns = np.nonzero(good)
        total = inverse[rows, columns].astype(np.float64)
        agreeing = np.ones(len(rows))
        xy = np.stack([columns + 0.5, rows + 0.5], axis=1)
        cameras = self._cameras
        local = unproject(cameras.intrinsics[frame], xy, 1 / total)
        world = transform_points(cameras.world_from_cam[frame], local)
        others = [o for o in (frame + gap for gap in AGREEMENT_GAPS) if self._has(o)]
        for other in others:
            there = transform_points(cameras.cam_from_world[other], world)
            at = project(cameras.intrinsics[other], there)
            swept, valid = self._sample(other, at)
            agrees = valid & (there[:, 2] > 0) & (np.abs(swept * there[:, 2] - 1) < AGREEMENT)
            local = unproject(cameras.intrinsics[other], at[agrees], 1 / swept[agrees])
            local = transform_points(cameras.world_from_cam[other], local)
            axis = cameras.cam_from_world[frame, 2]
            total[agrees] += 1 / (local @ axis[:3] + axis[3])
            agreeing += agrees
        measured = np.zeros(self._size, np.float32)
        weight = np.zeros(self._size, np.float32)
        measured[rows, columns] = total / agreeing
        weight[rows, columns] = np.select([agreeing > 2, agreeing == 2], [agreeing, PAIR_WEIGHT])
        return measured, weight

    def _has(self, frame: int) -> bool:
        return 0 <= frame < len(self._body.known) and bool(self._body.known[frame])

    def _start_sweeps(self, frame: int) -> None:
        """Start the sweeps that this frame and the next ones need; drop those no longer needed.

        So the workers are never idle while frames are measured one after another.
        """
        span = max(AGREEMENT_GAPS)
        for old in [f for f in self._sweeps if f < frame - span]:
            del self._sweeps[old]
        for needed in range(frame, frame + span + WORKERS):
            if self._has(needed) and needed not in self._sweeps:
                self._sweeps[needed] = self._workers.submit(self._match, needed)

    def _sweep(self, frame: int) -> Sweep:
        if frame not in self._sweeps:
            self._sweeps[frame] = self._workers.submit(self._match, frame)
        return self._sweeps[frame].result()

    def _sample(
        self, frame: int, xy: Float[np.ndarray, "points 2"]
    ) -> tuple[Float32[np.ndarray, " points"], Bool[np.ndarray, " points"]]:
        """Return the swept inverse depth [N] at pixels [N, 2] of a frame, and where it is good."""
        row, column, inside = nearest_pixels(xy, *self._size)
        inverse, good = self._sweep(frame)
        return inverse[row, column], inside & good[row, column]

    def _load(self, frame: int) -> Picture:
        """Return a frame at working size."""
        import cv2

        size = self._size[::-1]
        gray = cv2.cvtColor(self._scene.image(frame), cv2.COLOR_RGB2GRAY)
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
        own = (self._masks[frame] == self._body.label).astype(np.uint8)
        own = cv2.erode(own, np.ones((3, 3), np.uint8), borderValue=1)
        usable = cv2.resize(own, size, interpolation=cv2.INTER_NEAREST)
        return Picture(
            gray.astype(np.float32) / 255,
            usable.astype(np.float32),
            self._cameras.intrinsics[frame],
            self._cameras.cam_from_world[frame],
        )

    def _match(self, frame: int) -> Sweep:
        """Return the inverse depth of a frame by a sweep, and where it matches well."""
        inverse = np.zeros(self._size, np.float32)
        good = np.zeros(self._size, bool)
        reference = self._picture(frame)
        window = window_of(reference.usable)
        near, middle, far = self._ranges[frame]
        if window is None or not near:
            return inverse, good
        reference = _cropped(reference, window)
        sides = choose_neighbours(self._cameras.centres, frame, self._body.known, middle)
        planes = np.linspace(BEYOND / far, BEFORE / near, PLANES)
        cost = match_cost(reference, [[self._picture(n) for n in side] for side in sides], planes)
        total = semi_global(cost, reference.gray, PLANE_CHANGE, DEPTH_JUMP)
        position, best = pick_planes(total)
        correlation = 1 - np.take_along_axis(cost, best[None], axis=0)[0]
        inverse[window] = np.interp(position, np.arange(PLANES), planes)
        good[window] = (correlation > MIN_CORRELATION) & (reference.usable > 0)
        return inverse, good


def choose_neighbours(
    centres: Float[np.ndarray, "frames 3"],
    frame: int,
    known: Bool[np.ndarray, " frames"],
    depth: float,
) -> list[list[int]]:
    """Return the frames to sweep against, before and after: those nearest to `PARALLAXES`.

    Args:
        centres: [T, 3] camera centres.
        frame: the reference.
        known: [T] frames that may be chosen.
        depth: typical depth in the reference.
    """
    sides = []
    for step in (-1, 1):
        last = frame + step * (MAX_GAP + 1)
        candidates = [f for f in range(frame + step, last, step) if 0 <= f < len(known)]
        candidates = [f for f in candidates if known[f]]
        chosen = []
        if candidates:
            baseline = np.linalg.norm(centres[candidates] - centres[frame], axis=1)
            parallax = np.maximum(baseline / depth, 1e-9)
            best = {int(np.abs(np.log(parallax / wanted)).argmin()) for wanted in PARALLAXES}
            chosen = [candidates[i] for i in sorted(best)]
        sides.append(chosen)
    return sides


def _depth_ranges(body: Body) -> Float[np.ndarray, "frames 3"]:
    """Return the nearest, the median and the farthest depth [T, 3] of the points in each frame.

    In a frame with few points, of all points; zero without any points.
    """
    points, cameras = body.points, body.cameras
    axis = cameras.cam_from_world[points.frame, 2]
    depth = (axis[:, :3] * points.xyz[points.point]).sum(1) + axis[:, 3]
    column, row = (CELLS * points.xy / [cameras.width, cameras.height]).astype(int).T
    cell = (row * CELLS + column).clip(0, CELLS**2 - 1)

    def range_of(rows: np.ndarray) -> tuple[float, float, float]:
        if not len(rows):
            return 0.0, 0.0, 0.0
        near, middle, far = np.percentile(depth[rows], [1, 50, 99])
        by_cell = rows[np.argsort(cell[rows], kind="stable")]
        _, first, number = np.unique(cell[by_cell], return_index=True, return_counts=True)
        parts = zip(first, number, strict=True)
        medians = [np.median(depth[by_cell[i : i + n]]) for i, n in parts if n >= MIN_IN_CELL]
        return min([near, *medians]), middle, max([far, *medians])

    positive = np.flatnonzero(depth > 0)
    overall = range_of(positive)
    ranges = []
    for frame in range(len(cameras)):
        rows = positive[points.frame[positive] == frame]
        ranges.append(range_of(rows) if len(rows) >= MIN_POINTS else overall)
    return np.array(ranges)


def _cropped(picture: Picture, window: Window) -> Picture:
    """Return the rows and columns of a window."""
    intrinsics = picture.intrinsics.copy()
    intrinsics[:2, 2] -= window[1].start, window[0].start
    return Picture(picture.gray[window], picture.usable[window], intrinsics, picture.cam_from_world)
