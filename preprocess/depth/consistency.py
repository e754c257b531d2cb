"""Consistency over time: whether depth maps of different frames put a surface in one place.

A difference of more than 10 % is another surface, in front of the one that was projected. Within a
few frames that happens to few pixels; where it happens to many, the maps contradict one another.
"""

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
from msdyn.preprocess.contracts import Figures

__all__ = ["Agreement", "Consistency", "depth_difference"]

GAP = 4  # frames between the compared ones
SAMPLES = 7  # every 7th row and column is compared
OCCLUDED = 0.1  # a larger relative difference is that of another surface


class Agreement:
    """Collects relative differences of depth between pairs of frames."""

    def __init__(self) -> None:
        self._medians: list[float] = []
        self._compared = self._other = 0

    def add(self, difference: Float[np.ndarray, " compared"]) -> None:
        """Add the differences [n] of a pair of frames, see `depth_difference`."""
        same = difference < OCCLUDED
        self._compared += len(difference)
        self._other += int((~same).sum())
        if same.any():
            self._medians.append(float(np.median(difference[same])))

    @property
    def difference(self) -> float | None:
        """Mean over pairs of the median difference on the same surface; None without any."""
        return float(np.mean(self._medians)) if self._medians else None

    @property
    def disagreeing(self) -> float | None:
        """Share of the pixels whose depth differs by more than 10 %; None without any pixel."""
        return self._other / self._compared if self._compared else None


class Consistency:
    """Compares each depth map with the one four frames before, projected into its camera."""

    def __init__(self, cameras: Cameras) -> None:
        self._cameras = cameras
        self._recent: deque[np.ndarray] = deque(maxlen=GAP)
        self._agreement = Agreement()

    def add(self, frame: int, depth: Float[np.ndarray, "height width"]) -> None:
        """Add the static depth [H, W] of the next frame, 0 where unknown or moving."""
        if len(self._recent) == GAP:
            difference = depth_difference(self._cameras, frame - GAP, self._recent[0], frame, depth)
            self._agreement.add(difference)
        self._recent.append(depth)

    def figures(self) -> Figures:
        """Return `reprojection_difference` and `disagreeing`, those of `Agreement`."""
        difference, disagreeing = self._agreement.difference, self._agreement.disagreeing
        return {
            "reprojection_difference": None if difference is None else round(difference, 5),
            "disagreeing": None if disagreeing is None else round(disagreeing, 4),
        }


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
            column of the first is projected into the second frame.
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
    return difference[stored > 0]
