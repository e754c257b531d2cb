"""Trajectories of the surface points seen at given pixels: in the world, in the image, visible."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from msdyn.errors import InputError
from msdyn.geometry import Cameras, project, transform_points
from msdyn.render.queries import query_objects, query_tracks, rendered_depth
from msdyn.render.visibility import is_on_surface
from msdyn.sequence import GaussianSequence

__all__ = ["PointTracks", "grid_points", "point_tracks"]


@dataclass(frozen=True)
class PointTracks:
    """N surface points at T times.

    Attributes:
        query_frame: [N] fractional frame index in which the point was given.
        query_xy: [N, 2] px there.
        frames: [T] fractional frame indices.
        cameras: the camera at each of them.
        xyz: [N, T, 3] world, scene units; NaN where nothing is drawn at the query's pixel.
        xy: [N, T, 2] px in the clip's camera; NaN behind it.
        visible: [N, T] bool, in the image and not hidden.
        object: [N] 0 static, 1..K an object, -1 nothing drawn.
    """

    query_frame: np.ndarray
    query_xy: np.ndarray
    frames: np.ndarray
    cameras: Cameras
    xyz: np.ndarray
    xy: np.ndarray
    visible: np.ndarray
    object: np.ndarray

    def select(self, index: np.ndarray) -> PointTracks:
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


def grid_points(sequence: GaussianSequence, step: int) -> np.ndarray:
    """Return the centres [N, 2] px of every `step`-th pixel of the clip's images."""
    if step < 1:
        raise InputError(f"grid: expected a step of at least 1 px, got {step}")
    width, height = sequence.cameras.width, sequence.cameras.height
    x, y = np.meshgrid(np.arange(step // 2, width, step), np.arange(step // 2, height, step))
    return np.stack([x.ravel(), y.ravel()], axis=-1) + 0.5


def point_tracks(
    sequence: GaussianSequence,
    xy: np.ndarray,
    frame: float | np.ndarray,
    *,
    frames: np.ndarray | None = None,
    levels: int | None = None,
    backend: str = "auto",
) -> PointTracks:
    """Follow the surface points seen at given pixels through the clip.

    Args:
        sequence: the fit; its own cameras are those of the pixels.
        xy: [N, 2] px, pixel centres at +0.5.
        frame: frame index of the pixels, one or [N].
        frames: [T] frame indices to follow them through, fractional ones too; the clip's.
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
    ahead = depth > 1e-6  # false for NaN
    in_camera = np.where(ahead[..., None], in_camera, [np.nan, np.nan, 1.0])
    seen = project(at.intrinsics, in_camera)  # [T, N, 2]
    visible = ahead & ((seen >= 0) & (seen <= size)).all(-1)
    for row, position in enumerate(frames):
        inside = np.flatnonzero(visible[row])
        drawn = rendered_depth(
            sequence, float(position), seen[row, inside], levels=levels, backend=backend
        )
        metric = sequence.world_units == "metric"
        visible[row, inside] = is_on_surface(depth[row, inside], drawn, metric=metric)
    return PointTracks(query, xy, frames, at, xyz, seen.swapaxes(0, 1), visible.T, objects)
