"""Lifting 2D tracks to 3D, and choosing the canonical frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from msdyn.errors import InputError
from msdyn.geometry import Cameras, nearest_pixels, transform_points, unproject
from msdyn.scene.scene import Scene
from msdyn.scene.tracks2d import Tracks

__all__ = ["LiftedTracks", "Maps", "canonical_frame", "lift_scene_tracks", "lift_tracks"]


@runtime_checkable
class Maps(Protocol):
    """T maps that are read one by one: an array [T, H, W], or what has them in a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int | np.integer, /) -> Any: ...


@dataclass(frozen=True)
class LiftedTracks:
    """Trajectories of points on moving objects, in the world.

    Attributes:
        xyz: [N, T, 3] world positions; zero where not visible.
        visible: [N, T] visible, with a known depth on its own object.
        confidence: [N, T] in [0, 1], zero where not visible.
        object: [N] 1..K.
        xy: [N, T, 2] px, the observed image positions.
    """

    xyz: Float[np.ndarray, "tracks frames 3"]
    visible: Bool[np.ndarray, "tracks frames"]
    confidence: Float[np.ndarray, "tracks frames"]
    object: Int[np.ndarray, " tracks"]
    xy: Float[np.ndarray, "tracks frames 2"]

    def __len__(self) -> int:
        return len(self.xyz)

    @property
    def num_frames(self) -> int:
        return self.xyz.shape[1]

    def select(
        self, index: Int[np.ndarray, " chosen"] | Bool[np.ndarray, " tracks"]
    ) -> LiftedTracks:
        """Return the tracks at an index array or boolean mask."""
        return LiftedTracks(
            self.xyz[index],
            self.visible[index],
            self.confidence[index],
            self.object[index],
            self.xy[index],
        )

    def seen(self) -> LiftedTracks:
        """Return the tracks that are visible in some frame; these, without a copy, if all are."""
        visible = self.visible.any(1)
        return self if visible.all() else self.select(np.flatnonzero(visible))

    def frames(self, index: Int[np.ndarray, " chosen"]) -> LiftedTracks:
        """Return the tracks in some of the frames, without those not visible in any of them."""
        kept = self.visible[:, index].any(1)
        return LiftedTracks(
            self.xyz[kept][:, index],
            self.visible[kept][:, index],
            self.confidence[kept][:, index],
            self.object[kept],
            self.xy[kept][:, index],
        )


def lift_scene_tracks(scene: Scene) -> LiftedTracks:
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
) -> LiftedTracks:
    """Unproject every visible track point with the depth of its own object.

    The depth is the median of the known depths in the 3x3 pixels around the point whose mask index
    is the track's object, so that points next to a silhouette do not get the depth of the
    background. A point without such a pixel counts as not visible.

    Args:
        tracks: tracks on objects (`object` > 0).
        depths: [T, H, W] z-depth, 0 = unknown.
        masks: [T, H, W] object index.
        cameras: one per frame.

    Raises:
        InputError: the numbers of depth maps, masks, cameras and frames differ.
    """
    count, frames = len(tracks), tracks.num_frames
    if not depths.shape[0] == masks.shape[0] == len(cameras) == frames:
        raise InputError(
            f"lift_tracks: expected {frames} depths, masks and cameras, "
            f"got {depths.shape[0]}, {masks.shape[0]} and {len(cameras)}"
        )
    height, width = depths.shape[1:]
    xyz = np.zeros((count, frames, 3))
    visible = np.zeros((count, frames), bool)
    offsets = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij"), -1).reshape(-1, 2)
    for frame in range(frames):
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
        xyz[index[has_depth], frame] = transform_points(cameras.world_from_cam[frame], points)
        visible[index[has_depth], frame] = True
    return LiftedTracks(
        xyz,
        visible,
        np.where(visible, tracks.confidence, 0.0).astype(np.float64),
        tracks.object.astype(int),
        tracks.xy.astype(np.float64),
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
