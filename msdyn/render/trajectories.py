"""Trajectories of the surface points at given pixels: 3D and 2D positions, and visibility."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int, Real

from msdyn.errors import InputError
from msdyn.geometry import Cameras, project, transform_points
from msdyn.render.queries import query_objects, query_tracks, rendered_depth
from msdyn.render.visibility import is_on_surface
from msdyn.sequence import GaussianSequence

__all__ = ["PointTracks", "grid_points", "point_tracks"]


@dataclass(frozen=True)
class PointTracks:
    """Trajectories of surface points.

    Attributes:
        query_frame: fractional frame index of each query.
        query_xy: px in that frame.
        frames: fractional frame indices of the positions.
        cameras: the camera at each of them.
        xyz: world, scene units; NaN where nothing is rendered at the query's pixel.
        xy: px in the clip's camera; NaN behind it.
        visible: in the image and not occluded.
        object: 0 static, 1..K an object, -1 nothing rendered.
    """

    query_frame: Float64[np.ndarray, " queries"]
    query_xy: Float64[np.ndarray, "queries 2"]
    frames: Float64[np.ndarray, " times"]
    cameras: Cameras
    xyz: Float64[np.ndarray, "queries times 3"]
    xy: Float64[np.ndarray, "queries times 2"]
    visible: Bool[np.ndarray, "queries times"]
    object: Int[np.ndarray, " queries"]

    def select(
        self, index: Int[np.ndarray, " chosen"] | Bool[np.ndarray, " queries"]
    ) -> PointTracks:
        """Return the tracks at an index array or boolean mask."""
        return replace(
            self,
            query_frame=self.query_frame[index],
            query_xy=self.query_xy[index],
            xyz=self.xyz[index],
            xy=self.xy[index],
            visible=self.visible[index],
            object=self.object[index],
        )


def grid_points(sequence: GaussianSequence, step: int) -> Float64[np.ndarray, "points 2"]:
    """Return the centres of every `step`-th pixel of the clip's images, px.

    Raises:
        InputError: a step below 1.
    """
    if step < 1:
        raise InputError(f"grid: expected a step of at least 1 px, got {step}")
    width, height = sequence.cameras.width, sequence.cameras.height
    x, y = np.meshgrid(np.arange(step // 2, width, step), np.arange(step // 2, height, step))
    return np.stack([x.ravel(), y.ravel()], axis=-1) + 0.5


def point_tracks(
    sequence: GaussianSequence,
    xy: Real[np.ndarray, "queries 2"],
    frame: float | Real[np.ndarray, " queries"],
    *,
    frames: Real[np.ndarray, " times"] | None = None,
    levels: int | None = None,
    backend: str = "auto",
) -> PointTracks:
    """Follow the surface points at given pixels through the clip: see `query_tracks`.

    Args:
        sequence: the fit; the pixels are in its own cameras.
        xy: px, pixel centres at +0.5.
        frame: frame index of the pixels, one for all or one each.
        frames: frame indices of the positions, may be fractional; all of the clip by default.
        levels: use only the first so many motion levels.
        backend: see `rasterize`.

    Raises:
        InputError: pixels outside the image, or frames outside the clip.
    """
    xy = np.asarray(xy, np.float64).reshape(-1, 2)
    cameras, last = sequence.cameras, len(sequence.timeline) - 1
    query = np.broadcast_to(np.asarray(frame, np.float64), len(xy)).copy()
    frames = np.arange(last + 1.0) if frames is None else np.asarray(frames, np.float64)
    size = np.array([cameras.width, cameras.height])
    if not ((xy >= 0) & (xy <= size)).all():
        raise InputError(
            f"pixels: expected x from 0 to {size[0]} and y from 0 to {size[1]}, "
            f"got {xy[~((xy >= 0) & (xy <= size)).all(1)][0].tolist()}"
        )
    for name, value in (("frame", query), ("frames", frames)):
        if value.size and not (value.min() >= 0 and value.max() <= last):
            raise InputError(f"{name}: expected 0 to {last}, got {value.min()} to {value.max()}")
    xyz = query_tracks(sequence, query, xy, frames=frames, levels=levels, backend=backend)
    objects = query_objects(sequence, query, xy, levels=levels, backend=backend)
    at = cameras.interpolated(frames)
    in_camera = transform_points(at.cam_from_world, xyz.swapaxes(0, 1))  # [T, N, 3]
    depth = in_camera[..., 2]
    in_front = depth > 1e-6  # false for NaN
    in_camera = np.where(in_front[..., None], in_camera, [np.nan, np.nan, 1.0])
    projected = project(at.intrinsics, in_camera)  # [T, N, 2]
    visible = in_front & ((projected >= 0) & (projected <= size)).all(-1)
    for row, position in enumerate(frames):
        inside = np.flatnonzero(visible[row])
        rendered = rendered_depth(
            sequence, float(position), projected[row, inside], levels=levels, backend=backend
        )
        metric = sequence.world_units == "metric"
        visible[row, inside] = is_on_surface(depth[row, inside], rendered, metric=metric)
    return PointTracks(query, xy, frames, at, xyz, projected.swapaxes(0, 1), visible.T, objects)
