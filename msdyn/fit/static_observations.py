"""Observations of static tracks: image positions and depths of the same points in many frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from msdyn.geometry import Cameras, nearest_pixels, transform_points, unproject
from msdyn.scene import Maps, Tracks

__all__ = [
    "MIN_TRACKS",
    "StaticObservations",
    "longest_static_tracks",
    "observe_static_tracks",
]

_MAX_TRACKS = 1500
# Fewer tracks do not constrain a frame.
MIN_TRACKS = 8


@dataclass(frozen=True)
class StaticObservations:
    """O observations of N points; those of a point follow each other.

    Attributes:
        point, frame: indices.
        xy: px.
        depth: z-depth, 0 unknown.
        weight: confidence.
        points: initial world positions of the points.
    """

    point: Int[np.ndarray, " observations"]
    frame: Int[np.ndarray, " observations"]
    xy: Float[np.ndarray, "observations 2"]
    depth: Float[np.ndarray, " observations"]
    weight: Float[np.ndarray, " observations"]
    points: Float[np.ndarray, "points 3"]

    def part(self, rows: slice) -> StaticObservations:
        """Return some of the observations, of the same points."""
        return replace(
            self,
            point=self.point[rows],
            frame=self.frame[rows],
            xy=self.xy[rows],
            depth=self.depth[rows],
            weight=self.weight[rows],
        )


def longest_static_tracks(tracks: Tracks, frames: Int[np.ndarray, " frames"], seed: int) -> Tracks:
    """Return the static tracks (object 0) seen in most frames, three times as many as are used.

    Args:
        tracks: of the whole clip.
        frames: indices of the frames that count.
        seed: of the choice among tracks of equal length.
    """
    use = np.zeros(tracks.num_frames, bool)
    use[frames] = True
    observed = tracks.observations()
    lifetime = np.bincount(observed.track[use[observed.frame]], minlength=len(tracks))
    lifetime *= tracks.object == 0
    rng = np.random.default_rng(seed)
    # In decreasing order of length, with random order among equals.
    order = np.lexsort((rng.random(len(tracks)), -lifetime))
    chosen = np.sort(order[: 3 * _MAX_TRACKS])
    return tracks.select(chosen[lifetime[chosen] > 0])


def observe_static_tracks(
    tracks: Tracks,
    depths: Maps,
    masks: Maps,
    cameras: Cameras,
    frames: Int[np.ndarray, " frames"],
) -> StaticObservations | None:
    """Return the observations of the longest of static tracks; None if there are too few.

    Args:
        tracks: static ones; only observations on pixels of mask 0 are used.
        depths: [T, H, W] z-depth, 0 = unknown.
        masks: [T, H, W] object index.
        cameras: one per frame.
        frames: frames in which tracks are observed.
    """
    height, width = depths.shape[1:]
    use = np.zeros(len(cameras), bool)
    use[frames] = True
    number, frame, xy, weight = tracks.observations()
    keep = use[frame]
    number, frame, xy = number[keep], frame[keep], xy[keep].astype(np.float64)
    y, x, inside = nearest_pixels(xy, height, width)
    depth, mask = np.zeros(len(xy)), np.zeros(len(xy), int)
    for own in _by_frame(frame, len(cameras)):
        at, own_frame = (y[own], x[own]), int(frame[own[0]])
        depth[own], mask[own] = depths[own_frame][at], masks[own_frame][at]
    inside &= mask == 0
    weight = weight[keep].astype(np.float64).clip(1e-3)
    # A point needs two observations, and a depth for its initial position.
    count = np.bincount(number, inside, minlength=len(tracks))
    with_depth = np.bincount(number, inside & (depth > 0), minlength=len(tracks))
    good = np.flatnonzero((count >= 2) & (with_depth >= 1))
    good = good[np.argsort(-count[good], kind="stable")][:_MAX_TRACKS]
    point_index = np.full(len(tracks), -1)
    point_index[good] = np.arange(len(good))
    keep = inside & (point_index[number] >= 0)
    point, frame, xy, depth = point_index[number[keep]], frame[keep], xy[keep], depth[keep]
    if len(good) < MIN_TRACKS:
        return None
    world = unproject(cameras.intrinsics[frame], xy[:, None], depth[:, None])
    world = transform_points(cameras.world_from_cam[frame], world)[:, 0]
    points = np.zeros((len(good), 3))
    for axis in range(3):
        points[:, axis] = _median_by(world[depth > 0, axis], point[depth > 0], len(good))
    return StaticObservations(point, frame, xy, depth, weight[keep], points)


def _median_by(
    values: Float[np.ndarray, " values"], group: Int[np.ndarray, " values"], count: int
) -> Float[np.ndarray, " groups"]:
    """Return the (lower) median of each group of values; no group is empty."""
    order = np.lexsort((values, group))
    size = np.bincount(group, minlength=count)
    return values[order][np.cumsum(size) - size + (size - 1) // 2]


def _by_frame(frame: Int[np.ndarray, " observations"], count: int) -> list[np.ndarray]:
    """Return the indices of the observations of each frame that has any."""
    order = np.argsort(frame, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(frame, minlength=count))[:-1])
    return [part for part in parts if len(part)]
