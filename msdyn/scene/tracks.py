"""Lifting 2D tracks to 3D, and choosing the canonical frame."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from msdyn.errors import InputError
from msdyn.geometry import Cameras, nearest_pixels, transform_points, unproject
from msdyn.scene.lifted import LiftedObservations, LiftedTracks
from msdyn.scene.scene import Scene
from msdyn.scene.tracks2d import Tracks

__all__ = ["Maps", "canonical_frame", "lift_scene_tracks", "lift_tracks"]


@runtime_checkable
class Maps(Protocol):
    """T maps that are read one by one: an array [T, H, W], or what has them in a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int | np.integer, /) -> Any: ...


def lift_scene_tracks(scene: Scene) -> LiftedObservations:
    """Lift the moving tracks of a scene directory."""
    tracks = scene.tracks
    return lift_tracks(
        tracks.select(tracks.object > 0), scene.depths(), scene.masks(), scene.cameras
    )


def lift_tracks(
    tracks: Tracks,
    depths: Maps,
    masks: Maps,
    cameras: Cameras,
    frames: Int[np.ndarray, " fitted"] | None = None,
) -> LiftedObservations:
    """Unproject every visible track point with the depth of its own object.

    The depth is the median of the known depths in the 3x3 pixels around the point whose mask index
    is the track's object, so that points next to a silhouette do not get the depth of the
    background. A point without such a pixel counts as not visible.

    Args:
        tracks: tracks on objects (`object` > 0).
        depths: [T, H, W] z-depth, 0 = unknown.
        masks: [T, H, W] object index.
        cameras: one per frame.
        frames: increasing indices of the F frames to look at; all by default. Those of the
            observations count these.

    Raises:
        InputError: the numbers of depth maps, masks, cameras and frames differ.
    """
    count = tracks.num_frames
    if not depths.shape[0] == masks.shape[0] == len(cameras) == count:
        raise InputError(
            f"lift_tracks: expected {count} depths, masks and cameras, "
            f"got {depths.shape[0]}, {masks.shape[0]} and {len(cameras)}"
        )
    chosen = np.arange(count) if frames is None else frames
    height, width = depths.shape[1:]
    rows, found, numbers = [np.zeros(0, int)], [np.zeros((0, 3))], [np.zeros(0, int)]
    image = [np.zeros((0, 2))]
    offsets = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij"), -1).reshape(-1, 2)
    for number, frame in enumerate(chosen):
        index, xy = tracks.at(frame)
        row, column, inside = nearest_pixels(xy, height, width)
        index, xy = index[inside], xy[inside].astype(np.float64)
        if not len(index):
            continue
        depth_map, mask = depths[frame], masks[frame]
        y = (row[inside, None] + offsets[:, 0]).clip(0, height - 1)  # [n, 9]
        x = (column[inside, None] + offsets[:, 1]).clip(0, width - 1)
        window = depth_map[y, x].astype(np.float64)
        own = (mask[y, x] == tracks.object[index, None]) & (window > 0)
        window[~own] = np.inf
        window.sort(axis=1)
        known = own.sum(1)
        has_depth = known > 0
        depth = window[np.arange(len(index)), np.maximum(known - 1, 0) // 2][has_depth]
        points = unproject(cameras.intrinsics[frame], xy[has_depth], depth)
        rows.append(index[has_depth])
        numbers.append(np.full(len(points), number))
        found.append(transform_points(cameras.world_from_cam[frame], points))
        image.append(xy[has_depth])
    track, number = np.concatenate(rows), np.concatenate(numbers)
    return LiftedObservations.from_unordered(
        len(chosen),
        tracks.object.astype(int),
        track,
        number,
        np.concatenate(found),
        np.concatenate(image),
        tracks.confidence_of(track, chosen[number]),
    )


def canonical_frame(tracks: LiftedTracks) -> int:
    """Return the frame with the least occlusion: the one with the most visible tracks.

    It maximises the fraction of visible tracks summed over objects, so that objects count equally.
    Without any track it is the middle frame.

    Reference: Gaussian Sequences with Multi-Scale Dynamics, IV-A.3.
    """
    fraction = np.zeros(tracks.num_frames)
    for instance in np.unique(tracks.object):
        own = tracks.visible[tracks.object == instance]
        fraction += own.sum(0) / max(int(own.any(1).sum()), 1)
    if not fraction.any():
        return tracks.num_frames // 2
    return int(fraction.argmax())
