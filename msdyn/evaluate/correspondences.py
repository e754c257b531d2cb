"""Measuring how a fit carries points from frame to frame: 3D and 2D tracks, keypoint transfer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from msdyn.evaluate.track_metrics import (
    image_track_metrics,
    normalised_track_metrics,
    pck_transfer,
    transfer_metrics,
)
from msdyn.geometry import Cameras, Similarity, project, transform_points, unproject
from msdyn.render import is_on_surface, query_tracks, rendered_depth
from msdyn.scene import Keypoints, Scene, Tracks3D
from msdyn.sequence import GaussianSequence

__all__ = ["KEY_FRAMES", "Correspondences", "evaluate_correspondences", "find_correspondences"]

KEY_FRAMES = 10
"""As many as DyCheck has keypoints in."""


@dataclass(frozen=True)
class Correspondences:
    """The same J points in K key frames of the clip.

    Attributes:
        frames: [K] frame indices.
        xy: [K, J, 2] px.
        visible: [K, J] bool.
        xyz: [K, J, 3] in the truth's world.
        known: [K, J] bool, visible and of known place in 3D.
        source: where they are from.
    """

    frames: np.ndarray
    xy: np.ndarray
    visible: np.ndarray
    xyz: np.ndarray
    known: np.ndarray
    source: str

    @classmethod
    def from_tracks(cls, tracks: Tracks3D, cameras: Cameras, count: int) -> Correspondences:
        """Take true tracks in `count` evenly spaced frames (fewer if the clip is shorter)."""
        last = tracks.xyz.shape[1] - 1
        frames = np.unique(np.linspace(0, last, min(count, last + 1)).round().astype(int))
        xyz = tracks.xyz[:, frames].swapaxes(0, 1)  # [K, J, 3]
        visible = tracks.visible[:, frames].T
        xy, _ = _project(cameras[frames], xyz)
        return cls(frames, xy, visible, xyz, visible, "3D tracks")

    @classmethod
    def from_keypoints(cls, keypoints: Keypoints, scene: Scene) -> Correspondences:
        """Take keypoints of the clip, and their place from the clip's depth.

        A place is known where the four pixels around the point have depth.
        """
        depths = [
            _bilinear(scene.depth(int(frame)), xy)
            for frame, xy in zip(keypoints.frames, keypoints.xy, strict=True)
        ]
        depth = np.stack(depths)
        cameras = scene.cameras[keypoints.frames]
        in_camera = unproject(cameras.intrinsics, keypoints.xy, depth)
        xyz = transform_points(cameras.world_from_cam, in_camera)
        known = keypoints.visible & (depth > 0)
        return cls(
            keypoints.frames, keypoints.xy, keypoints.visible, xyz, known, "keypoints and depth"
        )


def find_correspondences(truth: Scene, keypoints: Keypoints | None) -> Correspondences | None:
    """Return the keypoints of a scene, or else its true tracks in ten frames, or None."""
    if keypoints is not None:
        return Correspondences.from_keypoints(keypoints, truth)
    tracks = next((v.tracks3d for v in truth.views.values() if v.tracks3d is not None), None)
    return (
        None if tracks is None else Correspondences.from_tracks(tracks, truth.cameras, KEY_FRAMES)
    )


def evaluate_correspondences(
    sequence: GaussianSequence,
    truth: Scene,
    points: Correspondences,
    *,
    world: Similarity | None = None,
    levels: int | None = None,
) -> dict[str, Any]:
    """Measure where a fit carries points from each key frame to every other.

    Args:
        sequence: the fit.
        truth: the scene that the points belong to.
        points: the truth.
        world: from the truth's world to that of the fit; the identity by default.
        levels: use only the first so many motion levels.

    Returns:
        `transfer` (3D, means over pairs of frames, in the truth's units), `normalised` (3D, each
        divided by its median norm), `image` (average Jaccard, average PCK, occlusion accuracy),
        `pck_t`, the number of `points` and `frames`, and their `source`.
    """
    world = world or Similarity.identity()
    frames, count = points.frames, len(points.frames)
    cameras = sequence.cameras[frames]
    xyz = np.full((count, *points.xyz.shape), np.nan)  # [Q, T, J, 3], fit's world
    for q, frame in enumerate(tqdm(frames, desc="points from frame to frame")):
        seen = np.flatnonzero(points.visible[q])
        found = query_tracks(
            sequence, np.full(len(seen), frame), points.xy[q, seen], frames=frames, levels=levels
        )
        xyz[q][:, seen] = found.swapaxes(0, 1)
    xy, depth = _project(cameras, xyz)
    visible = _estimated_visibility(sequence, frames, xy, depth, truth, world.scale, levels)
    in_truth = world.inverse().apply(xyz)
    # From the first key frame a point is seen in: one track a point.
    first = points.known.argmax(0)
    tracks = in_truth[first, :, np.arange(points.xyz.shape[1])].swapaxes(0, 1)  # [T, J, 3]
    to_first_camera = truth.cameras[0].cam_from_world
    return {
        "transfer": transfer_metrics(in_truth, points.xyz, points.known),
        "normalised": normalised_track_metrics(
            transform_points(to_first_camera, tracks),
            transform_points(to_first_camera, points.xyz),
            points.known,
        ),
        "image": image_track_metrics(xy, visible, points.xy, points.visible),
        "pck_t": pck_transfer(xy, points.xy, points.visible, (cameras.width, cameras.height)),
        "points": points.xyz.shape[1],
        "frames": count,
        "source": points.source,
    }


def _estimated_visibility(
    sequence: GaussianSequence,
    frames: np.ndarray,
    xy: np.ndarray,
    depth: np.ndarray,
    truth: Scene,
    scale: float,
    levels: int | None,
) -> np.ndarray:
    """Return [Q, T, J] whether carried points lie on the surface drawn in each frame."""
    size = np.array([sequence.cameras.width, sequence.cameras.height])
    inside = np.all((xy >= 0) & (xy <= size), axis=-1)  # false for NaN
    visible = np.zeros(inside.shape, bool)
    for t, frame in enumerate(frames):
        where = inside[:, t]
        drawn = rendered_depth(sequence, int(frame), xy[:, t][where], levels=levels)
        metric = truth.info.world_units == "metric"
        visible[:, t][where] = is_on_surface(depth[:, t][where], drawn, metric=metric, scale=scale)
    return visible


def _project(cameras: Cameras, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels [..., T, J, 2] and z-depth of points [..., T, J, 3]; NaN behind the camera."""
    in_camera = transform_points(cameras.cam_from_world, xyz)
    depth = np.where(in_camera[..., 2] > 1e-6, in_camera[..., 2], np.nan)
    in_camera = np.where(np.isnan(depth)[..., None], np.nan, in_camera)
    return project(cameras.intrinsics, in_camera), depth


def _bilinear(depth: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return depth at pixels [J, 2], 0 where one of the four around is unknown or outside."""
    padded = np.pad(depth.astype(np.float64), 1)
    corner = xy + 0.5  # the centre of the first pixel, at 0.5, is at index 1 of the padded map
    limit = np.array(depth.shape[::-1])
    low = np.floor(corner).astype(int).clip(0, limit)
    right, down = (corner - low).clip(0, 1).T
    x, y = low.T
    corners = np.stack([padded[y, x], padded[y, x + 1], padded[y + 1, x], padded[y + 1, x + 1]])
    weights = np.stack(
        [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down]
    )
    known = ((corners > 0) | (weights == 0)).all(0)
    return np.where(known, (weights * corners).sum(0), 0)
