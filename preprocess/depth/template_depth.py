"""Depth of moving objects from a shape template that is fitted to every frame.

The points given for the first frame are the template; see `template_fit`. A pixel of an object has
the depth of the points in front near it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32

from msdyn.geometry import nearest_pixels
from msdyn.preprocess.contracts import Masks, SparsePoints
from msdyn.preprocess.depth.multi_frame import Body
from msdyn.preprocess.depth.shape_template import Posed, Template, make_template
from msdyn.preprocess.depth.template_fit import follow_template, front_of
from msdyn.scene import STATIC, Tracks

__all__ = ["TemplateDepth", "moving_points"]

LEAST_POINTS = 200
"""Fewest points of moving objects that make a template."""
NEAR = 3.0
"""A pixel has the depth of points up to this far away, in units of the distance between them."""
LEAST_COVERED = 0.5
"""Share of the pixels of an object that must have such a point."""
CELL_PX = 1.5
"""Side of the cells in which points hide one another, in units of the distance between them."""


class TemplateDepth:
    """Depth maps of the template, by frame.

    Attributes:
        posed: the nodes in every frame.
    """

    def __init__(self, template: Template, body: Body, tracks: Tracks) -> None:
        self._template, self._cameras = template, body.cameras
        self.posed: list[Posed] = list(follow_template(template, tracks, body.cameras))

    @classmethod
    def of(cls, body: Body, tracks: Tracks, masks: Masks) -> TemplateDepth | None:
        """Return the template of the moving points, None if there are too few."""
        moving = body.points.xyz[moving_points(body.points, masks)]
        template = make_template(moving) if len(moving) >= LEAST_POINTS else None
        return None if template is None else cls(template, body, tracks)

    def depth(
        self, frame: int, own: Bool[np.ndarray, "height width"]
    ) -> Float32[np.ndarray, "height width"] | None:
        """Return depth [H, W] for the pixels `own` of an object, None where it is not covered."""
        from scipy.ndimage import distance_transform_edt, gaussian_filter

        template, camera = self._template, self._cameras[frame]
        xyz = template.points(self.posed[frame])
        middle = camera.cam_from_world[0, 2, :3] @ xyz.mean(0) + camera.cam_from_world[0, 2, 3]
        apart = template.voxel * camera.intrinsics[0, 0, 0] / max(float(middle), 1e-6)  # px
        cell = max(1.0, CELL_PX * apart)
        xy, depth, visible = front_of(xyz, camera, cell, 2 * template.voxel)
        row, column, inside = nearest_pixels(xy, *own.shape)
        used = visible & inside
        count, total = np.zeros(own.shape), np.zeros(own.shape)
        np.add.at(count, (row[used], column[used]), 1.0)
        np.add.at(total, (row[used], column[used]), depth[used])
        known = count > 0
        if not known.any():
            return None
        near = distance_transform_edt(~known, return_distances=False, return_indices=True)
        assert isinstance(near, np.ndarray), "indices alone were asked for"
        far = np.linalg.norm(near - np.indices(own.shape), axis=0)
        if (far[own] < max(NEAR * apart, 2.0)).mean() < LEAST_COVERED:
            return None
        nearest = (total / np.maximum(count, 1))[near[0], near[1]]
        # Points have noise: the mean of those of about the same depth.
        sigma = 0.7 * max(apart, 1.0)
        weight = gaussian_filter(count, sigma)
        mean = gaussian_filter(total, sigma) / np.maximum(weight, 1e-9)
        same = (weight > 1e-3) & (np.abs(mean - nearest) < 2 * template.voxel)
        return np.where(same, mean, nearest).astype(np.float32)


def moving_points(points: SparsePoints, masks: Masks) -> Bool[np.ndarray, " points"]:
    """Return which points are on moving objects in the first frame.

    These are those seen where the mask of the first frame is an object, and those that no frame
    shows (`observed_points` keeps such points of moving objects only).
    """
    first = np.asarray(masks[0]) != STATIC
    row, column, _ = nearest_pixels(points.xy, *first.shape)
    on_object = (points.frame == 0) & first[row, column]
    moving = np.ones(len(points.xyz), bool)
    moving[points.point] = False
    moving[points.point[on_object]] = True
    moving[points.point[(points.frame != 0)]] = False
    return moving
