"""Consistency over time: whether depth maps of different frames put a surface in one place."""

from __future__ import annotations

from collections import deque

import numpy as np
from jaxtyping import Float

from msdyn.geometry import (
    Cameras,
    nearest_pixels,
    project,
    transform_points,
    world_points_from_depth,
)

__all__ = ["Consistency", "depth_difference"]

GAP = 4  # frames between the compared ones
SAMPLES = 7  # every 7th row and column is compared
OCCLUDED = 0.1  # a larger relative difference is taken for another, occluding surface


class Consistency:
    """Compares each depth map with the one four frames before, projected into its camera."""

    def __init__(self, cameras: Cameras) -> None:
        self._cameras = cameras
        self._recent: deque[np.ndarray] = deque(maxlen=GAP)
        self._medians: list[float] = []

    def add(self, frame: int, depth: Float[np.ndarray, "height width"]) -> None:
        """Add the static depth [H, W] of the next frame, 0 where unknown or moving."""
        if len(self._recent) == GAP:
            difference = depth_difference(self._cameras, frame - GAP, self._recent[0], frame, depth)
            if len(difference):
                self._medians.append(float(np.median(difference)))
        self._recent.append(depth)

    def figure(self) -> float | None:
        """Return the mean over frames of the median relative difference; None before any."""
        return round(float(np.mean(self._medians)), 5) if self._medians else None


def depth_difference(
    cameras: Cameras,
    first: int,
    first_depth: Float[np.ndarray, "height width"],
    second: int,
    second_depth: Float[np.ndarray, "height width"],
) -> Float[np.ndarray, " compared"]:
    """Return relative differences [n] between the depth of a frame and that of an earlier one.

    Args:
        cameras: one per frame.
        first, second: the frames.
        first_depth, second_depth: [H, W] z-depth, 0 where unknown or moving. Every seventh row and
            column of the first is projected into the second frame; other surfaces, in front or
            behind, are left out.
    """
    world = world_points_from_depth(first_depth, cameras[first])
    rows, columns = np.nonzero(first_depth[::SAMPLES, ::SAMPLES])
    points = world[::SAMPLES, ::SAMPLES][rows, columns]
    there = transform_points(cameras.cam_from_world[second], points)
    there = there[there[:, 2] > 0]
    xy = project(cameras.intrinsics[second], there)
    row, column, inside = nearest_pixels(xy, *second_depth.shape)
    stored = second_depth[row, column][inside]
    difference = np.abs(stored / there[inside, 2] - 1)
    return difference[(stored > 0) & (difference < OCCLUDED)]
