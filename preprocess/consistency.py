"""Whether depth maps of different frames put the same surface in the same place."""

from __future__ import annotations

from collections import deque

import numpy as np

from msdyn.geometry import Cameras, project, transform_points, world_points_from_depth

__all__ = ["Consistency"]

GAP = 4  # frames between the compared ones
SAMPLES = 7  # every 7th row and column is compared
OCCLUDED = 0.1  # a larger relative difference is taken for another surface in front


class Consistency:
    """Compares each depth map with the one four frames before, seen from its camera."""

    def __init__(self, cameras: Cameras) -> None:
        self._cameras = cameras
        self._recent: deque[np.ndarray] = deque(maxlen=GAP)
        self._medians: list[float] = []

    def add(self, frame: int, depth: np.ndarray) -> None:
        """Take the next frame's static depth [H, W], 0 where unknown or moving."""
        if len(self._recent) == GAP:
            difference = self._differences(frame, depth, self._recent[0])
            if len(difference):
                self._medians.append(float(np.median(difference)))
        self._recent.append(depth)

    def figure(self) -> float | None:
        """Return the mean over frames of the median relative difference; None before any."""
        return round(float(np.mean(self._medians)), 5) if self._medians else None

    def _differences(self, frame: int, depth: np.ndarray, before: np.ndarray) -> np.ndarray:
        world = world_points_from_depth(before, self._cameras[frame - GAP])
        rows, columns = np.nonzero(before[::SAMPLES, ::SAMPLES])
        points = world[::SAMPLES, ::SAMPLES][rows, columns]
        there = transform_points(self._cameras.cam_from_world[frame], points)
        there = there[there[:, 2] > 0]
        at = np.floor(project(self._cameras.intrinsics[frame], there)).astype(int)
        height, width = depth.shape
        inside = (at >= 0).all(1) & (at < [width, height]).all(1)
        seen = depth[at[inside, 1], at[inside, 0]]
        difference = np.abs(seen / there[inside, 2] - 1)
        return difference[(seen > 0) & (difference < OCCLUDED)]
