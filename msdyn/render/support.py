"""Which pixels of a novel view are supported by the input views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Real

from msdyn.geometry import (
    Cameras,
    nearest_pixels,
    project,
    transform_points,
    world_points_from_depth,
)
from msdyn.render.render import render_image
from msdyn.render.visibility import ON_SURFACE
from msdyn.sequence import GaussianSequence

__all__ = ["InputViews"]

_NEAR = 0.5
"""Smallest depth of a supported pixel, relative to the nearest surfaces of the input view."""
_NEAREST = 2.0
"""Percentile of the depth of an input view that counts as its nearest surfaces."""


@dataclass(frozen=True)
class _View:
    """What an input view shows.

    Attributes:
        camera: of reduced size.
        depth: rendered z-depth of each pixel and its eight neighbours, 0 where nothing is.
        nearest: depth of the nearest surfaces, scene units.
    """

    camera: Cameras
    depth: Float[np.ndarray, "height width 9"]
    nearest: float

    def shows(self, points: Float[np.ndarray, "points 3"]) -> Bool[np.ndarray, " points"]:
        """Return which world points are on a surface of the view, up to a pixel."""
        in_camera = transform_points(self.camera.cam_from_world[0], points)
        depth = in_camera[:, 2]
        in_front = depth > 1e-9
        in_camera = np.where(in_front[:, None], in_camera, 1.0)
        xy = project(self.camera.intrinsics[0], in_camera)
        y, x, inside = nearest_pixels(xy, self.camera.height, self.camera.width)
        error = np.abs(self.depth[y, x] - depth[:, None]).min(1)
        return inside & in_front & (error < ON_SURFACE * depth)


class InputViews:
    """Views of a sequence in its input cameras, with which novel views are compared.

    A pixel of a novel view is unsupported if one of these holds:

    - less than half of it is covered;
    - it is static, and its surface is in none of the input views, up to a twentieth of its depth:
      it is a part of the background that the camera has not seen, or a smear between surfaces;
    - it is at less than half the depth of the nearest surfaces in the input view of that time: the
      camera is within an object, or just in front of one.
    """

    def __init__(
        self, sequence: GaussianSequence, positions: Real[np.ndarray, " views"], side: int
    ) -> None:
        """Render the input views.

        Args:
            sequence: the fit.
            positions: fractional frame indices of the views.
            side: longer side of all views in pixels; not more than that of the input.
        """
        self.sequence, self.side = sequence, side
        self.positions = np.unique(np.asarray(positions, np.float64))
        self.views = [self._view(position) for position in self.positions]

    def unsupported(self, camera: Cameras, time: float) -> Bool[np.ndarray, "height width"]:
        """Return the unsupported pixels of a novel view, at the reduced size.

        Args:
            camera: one camera, of the size of the input.
            time: normalised.
        """
        camera = camera.shrunk(self.side)
        image = render_image(self.sequence, camera, time)
        position = self.sequence.timeline.frame_position(time)
        # Most surfaces are in the view of the same time; the others are looked up in the next ones.
        order = np.argsort(np.abs(self.positions - position)).tolist()
        unsupported = (image.alpha < 0.5) | (image.depth < _NEAR * self.views[order[0]].nearest)
        unseen = ~unsupported & (image.moving < 0.5)
        points = world_points_from_depth(image.depth, camera)
        for view in order:
            unseen[unseen] = ~self.views[view].shows(points[unseen])
        return unsupported | unseen

    def _view(self, position: float) -> _View:
        camera = self.sequence.cameras.interpolated(np.array([position])).shrunk(self.side)
        timeline = self.sequence.timeline
        time = float(np.interp(position, np.arange(len(timeline)), timeline.times))
        image = render_image(self.sequence, camera, time)
        known = image.alpha > 0.5
        depth = np.pad(np.where(known, image.depth, 0.0), 1)
        height, width = image.depth.shape
        shifts = [depth[y : y + height, x : x + width] for y in range(3) for x in range(3)]
        nearest = float(np.percentile(image.depth[known], _NEAREST)) if known.any() else 0.0
        return _View(camera, np.stack(shifts, axis=-1), nearest)
