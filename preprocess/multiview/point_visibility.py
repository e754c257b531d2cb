"""Which points of a cloud a camera sees, by a coarse depth buffer of the points themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from msdyn.geometry import Cameras, project, transform_points

__all__ = ["SeenPoints", "seen_points"]

POINTS_PER_CELL = 4.0
"""Mean number of points in the cells of the depth buffer that have any."""
SMALLEST_CELL, LARGEST_CELL = 1.0, 16.0
MOST = 4
"""Of the eight cells around one, so many may be nearer without occluding it."""
BEHIND = 0.08
"""Depth, as a share of that of the front, by which points of a cell may lie behind it."""


@dataclass(frozen=True)
class SeenPoints:
    """The points of a cloud that one camera sees.

    Attributes:
        index: of the visible points.
        xy: px of each visible point.
        depth: z-depth of each visible point.
        cell: px, size of a cell of the depth buffer.
        front: [rows, columns] depth of the front in each cell, infinite without points.
        size: height and width of the image.
    """

    index: Int[np.ndarray, " visible"]
    xy: Float64[np.ndarray, "visible 2"]
    depth: Float64[np.ndarray, " visible"]
    cell: float
    front: Float64[np.ndarray, "rows columns"]
    size: tuple[int, int]

    def sees(
        self, xy: Float[np.ndarray, "n 2"], depth: Float[np.ndarray, " n"]
    ) -> Bool[np.ndarray, " n"]:
        """Return which points, given by pixel and depth in this camera, lie at its front.

        Those in cells without points count as seen.
        """
        height, width = self.size
        inside = (depth > 0) & (xy >= 0).all(-1) & (xy[:, 0] < width) & (xy[:, 1] < height)
        column, row = (np.where(inside, xy[:, k], 0) // self.cell for k in (0, 1))
        return inside & (depth <= self.front[row.astype(int), column.astype(int)] * (1 + BEHIND))


def seen_points(xyz: Float64[np.ndarray, "points 3"], camera: Cameras) -> SeenPoints:
    """Return the points of a cloud that a camera sees.

    A point is seen if it is not behind the nearest point of its cell of the image, nor behind most
    of the eight cells around it (the gaps between points of a near surface). Of a surface that is
    seen at a small angle, half of these are nearer.

    Args:
        xyz: world positions.
        camera: one camera.
    """
    local = transform_points(camera.cam_from_world[0], xyz)
    depth = local[:, 2]
    xy = np.full((len(xyz), 2), -1.0)
    ahead = depth > 1e-9
    xy[ahead] = project(camera.intrinsics[0], local[ahead])
    size = camera.height, camera.width
    inside = ahead & (xy >= 0).all(1) & (xy < np.array(size[::-1])).all(1)
    index = np.flatnonzero(inside)
    area = camera.width * camera.height / max(len(index), 1)
    cell = float(np.clip(np.sqrt(POINTS_PER_CELL * area), SMALLEST_CELL, LARGEST_CELL))
    rows, columns = (int(np.ceil(side / cell)) for side in size)
    front = np.full((rows, columns), np.inf)
    row, column = (xy[index, 1] // cell).astype(int), (xy[index, 0] // cell).astype(int)
    np.minimum.at(front, (row, column), depth[index])
    padded = np.pad(front, 1, constant_values=np.inf)
    around = np.stack(
        [padded[1 + r : 1 + r + rows, 1 + c : 1 + c + columns]
         for r in (-1, 0, 1) for c in (-1, 0, 1) if r or c]
    )  # fmt: skip
    front = np.minimum(front, np.partition(around, MOST, axis=0)[MOST])
    seen = depth[index] <= front[row, column] * (1 + BEHIND)
    index = index[seen]
    return SeenPoints(index, xy[index], depth[index], cell, front, size)
