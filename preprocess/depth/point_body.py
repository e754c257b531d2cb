"""The static scene as measured by points that were given with the cameras, not by sweeps."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from msdyn.geometry import depth_in_camera, nearest_pixels
from msdyn.preprocess.depth.multi_frame import Body

__all__ = ["PointBody"]

WEIGHT = 3.0
"""Of the depth of a point: that of a depth on which three frames agree."""


class PointBody:
    """Inverse depth of a body's points, in the pixels of their observations.

    A context manager as `DenseBody`, in whose place it is used.
    """

    def __init__(self, body: Body, size: tuple[int, int]) -> None:
        """Prepare to measure at a working size (height, width)."""
        self._body, self._size = body, size

    def __enter__(self) -> PointBody:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def measure(self, frame: int) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
        """Return the inverse depth [h, w] of a frame, and its weight [h, w], 0 without a point."""
        points, cameras, (height, width) = self._body.points, self._body.cameras, self._size
        here = points.frame == frame
        z = depth_in_camera(cameras.cam_from_world[frame], points.xyz[points.point[here]])
        scale = np.array([width / cameras.width, height / cameras.height])
        row, column, inside = nearest_pixels(points.xy[here] * scale, height, width)
        used = inside & (z > 0)
        cell = (row * width + column)[used]
        count = np.bincount(cell, minlength=height * width)
        total = np.bincount(cell, 1 / z[used], minlength=height * width)
        inverse = (total / np.maximum(count, 1)).reshape(self._size).astype(np.float32)
        weight = np.where(count > 0, WEIGHT, 0).reshape(self._size).astype(np.float32)
        return inverse, weight
