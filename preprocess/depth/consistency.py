"""Whether depth maps of different frames put the same surface in the same place."""

from __future__ import annotations

from collections import deque

import numpy as np

from msdyn.geometry import Cameras, project, transform_points, world_points_from_depth

__all__ = ["Consistency", "depth_difference"]

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
            difference = depth_difference(self._cameras, frame - GAP, self._recent[0], frame, depth)
            if len(difference):
                self._medians.append(float(np.median(difference)))
        self._recent.append(depth)

    def figure(self) -> float | None:
        """Return the mean over frames of the median relative difference; None before any."""
        return round(float(np.mean(self._medians)), 5) if self._medians else None


def depth_difference(
    cameras: Cameras, first: int, first_depth: np.ndarray, second: int, second_depth: np.ndarray
) -> np.ndarray:
    """Return relative differences [n] of depth in one frame and of another's surface seen there.

    Args:
        cameras: one a frame.
        first, second: the frames.
        first_depth, second_depth: [H, W] z-depth, 0 where unknown or moving. Every seventh row and
            column of the first is compared; other surfaces, in front or behind, are left out.
    """
    world = world_points_from_depth(first_depth, cameras[first])
    rows, columns = np.nonzero(first_depth[::SAMPLES, ::SAMPLES])
    points = world[::SAMPLES, ::SAMPLES][rows, columns]
    there = transform_points(cameras.cam_from_world[second], points)
    there = there[there[:, 2] > 0]
    at = np.floor(project(cameras.intrinsics[second], there)).astype(int)
    height, width = second_depth.shape
    inside = (at >= 0).all(1) & (at < [width, height]).all(1)
    seen = second_depth[at[inside, 1], at[inside, 0]]
    difference = np.abs(seen / there[inside, 2] - 1)
    return difference[(seen > 0) & (difference < OCCLUDED)]
