"""Correspondence metrics of a fit: 3D and 2D tracks between key frames, keypoint transfer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from msdyn.evaluate.tracking import (
    image_track_metrics,
    normalised_track_metrics,
    pck_transfer,
    transfer_metrics,
)
from msdyn.geometry import Cameras, Similarity, project, transform_points, unproject
from msdyn.indices import evenly_spaced
from msdyn.progress import track
from msdyn.render import is_on_surface, query_tracks, rendered_depth
from msdyn.scene import Keypoints, Scene, Tracks3D
from msdyn.sequence import GaussianSequence

__all__ = ["KEY_FRAMES", "Correspondences", "evaluate_correspondences", "find_correspondences"]

KEY_FRAMES = 10
"""The number of frames with keypoints in DyCheck."""


@dataclass(frozen=True)
class Correspondences:
    """True positions of the same points in several key frames of the clip.

    Attributes:
        frames: frame indices of the key frames.
        xy: px.
        visible: whether the point is visible.
        xyz: position in the truth's world.
        known: whether the point is visible and its 3D position is known.
        source: description of their origin.
    """

    frames: Int[np.ndarray, " keys"]
    xy: Real[np.ndarray, "keys points 2"]
    visible: Bool[np.ndarray, "keys points"]
    xyz: Float[np.ndarray, "keys points 3"]
    known: Bool[np.ndarray, "keys points"]
    source: str

    @classmethod
    def from_tracks(cls, tracks: Tracks3D, cameras: Cameras, count: int) -> Correspondences:
        """Take true tracks in `count` evenly spaced frames (fewer if the clip is shorter)."""
        last = tracks.xyz.shape[1] - 1
        frames = evenly_spaced(last + 1, count)
        xyz = tracks.xyz[:, frames].swapaxes(0, 1)  # [K, J, 3]
        visible = tracks.visible[:, frames].T
        xy, _ = _project(cameras[frames], xyz)
        return cls(frames, xy, visible, xyz, visible, "3D tracks")

    @classmethod
    def from_keypoints(cls, keypoints: Keypoints, scene: Scene) -> Correspondences:
        """Take keypoints of the clip, and lift them to 3D by the clip's depth.

        A 3D position is known where the four pixels around the point have depth.
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
    """Return the keypoints of a scene, otherwise its true tracks in ten frames, or None."""
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
    """Measure the points that a fit transfers from each key frame to every other.

    Args:
        sequence: the fit.
        truth: the scene of the points.
        points: true correspondences.
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
    for q, frame in enumerate(track(frames, "points from frame to frame")):
        rows = np.flatnonzero(points.visible[q])
        tracks = query_tracks(
            sequence, np.full(len(rows), frame), points.xy[q, rows], frames=frames, levels=levels
        )
        xyz[q][:, rows] = tracks.swapaxes(0, 1)
    xy, depth = _project(cameras, xyz)
    visible = _estimated_visibility(sequence, frames, xy, depth, truth, world.scale, levels)
    in_truth = world.inverse().apply(xyz)
    # One track per point, queried in the first key frame with a known position.
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
    frames: Int[np.ndarray, " frames"],
    xy: Float[np.ndarray, "queries frames points 2"],
    depth: Float[np.ndarray, "queries frames points"],
    truth: Scene,
    scale: float,
    levels: int | None,
) -> Bool[np.ndarray, "queries frames points"]:
    """Return whether transferred points lie on the surface rendered in each frame."""
    size = np.array([sequence.cameras.width, sequence.cameras.height])
    inside = np.all((xy >= 0) & (xy <= size), axis=-1)  # false for NaN
    visible = np.zeros(inside.shape, bool)
    for t, frame in enumerate(frames):
        rows = inside[:, t]
        rendered = rendered_depth(sequence, int(frame), xy[:, t][rows], levels=levels)
        metric = truth.info.world_units == "metric"
        visible[:, t][rows] = is_on_surface(depth[:, t][rows], rendered, metric=metric, scale=scale)
    return visible


def _project(
    cameras: Cameras, xyz: Float[np.ndarray, "*batch frames points 3"]
) -> tuple[Float[np.ndarray, "*batch frames points 2"], Float[np.ndarray, "*batch frames points"]]:
    """Return pixels and z-depth of points in the camera of each frame; NaN behind the camera."""
    in_camera = transform_points(cameras.cam_from_world, xyz)
    depth = np.where(in_camera[..., 2] > 1e-6, in_camera[..., 2], np.nan)
    in_camera = np.where(np.isnan(depth)[..., None], np.nan, in_camera)
    return project(cameras.intrinsics, in_camera), depth


def _bilinear(
    depth: Real[np.ndarray, "height width"], xy: Real[np.ndarray, "points 2"]
) -> Float[np.ndarray, " points"]:
    """Return depth at pixels; 0 where one of the four neighbours is unknown or outside."""
    padded = np.pad(depth.astype(np.float64), 1)
    corner = xy + 0.5  # the first pixel, with its centre at 0.5, has index 1 in the padded map
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
