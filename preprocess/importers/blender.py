"""`msdyn-preprocess --from blender DIR`: a clip in D-NeRF's layout of transforms_<split>.json.

Where the camera jumps from image to image, flow between images says nothing of the scene. Depth
and tracks then come from geometry: the visual hull of the silhouettes (alpha) near each time, and
points of the hull that stay on it. How the object moves is left to the fit, which trusts neither
much (`TRUST`).
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np

from msdyn.errors import InputError
from msdyn.geometry import jumps, nearest_pixels, project, transform_points
from msdyn.io import MultiCamera, RecordedCamera, read_blender
from msdyn.preprocess.config import ImportConfig
from msdyn.preprocess.imported import Unpacked
from msdyn.preprocess.multi_camera import unpack_recording
from msdyn.preprocess.multiview.soft_hull import hull_frames, meeting_point, shell_depth
from msdyn.preprocess.progress import progress
from msdyn.preprocess.recorded_images import read_foreground
from msdyn.reading import read_npy
from msdyn.scene import Scene, Tracks, frame_path, stamp_stage, write_depth, write_tracks

__all__ = ["unpack"]

_log = logging.getLogger(__name__)

QUERY_FRAMES, POINTS_PER_FRAME = 12, 150
AGREEING = 0.02
"""Difference of depth, as a share of it, up to which a point is on the hull."""
CONFIDENCE = 0.3
"""Of tracks: they say where the hull stays, not where a point of the surface goes."""
TRUST = {"tracks": 0.05, "depth": 0.2}
"""Share of the usual weight of a stage's loss in a fit."""


def unpack(config: ImportConfig, folder: Path) -> Unpacked:
    """Write what the camera of the clip recorded; the test images are held out."""
    recording = read_blender(config.video)
    camera = recording.cameras[config.input_camera or "train"] if (
        config.input_camera in (None, *recording.cameras)
    ) else recording.cameras["train"]  # fmt: skip
    jumping = jumps(camera.cameras)
    named = config.depth is not None and config.tracks is not None
    if jumping and not camera.transparent and not named:
        raise InputError(
            f"{recording.directory}: the camera jumps from image to image, so that tracks by flow "
            "mean nothing, and the images are not transparent anywhere, so that silhouettes do not "
            "give the shape either; give both (--tracks files --tracks-path FILE --depth files "
            "--depth-path DIR)"
        )
    unpacked = unpack_recording(recording, config, folder)
    if not jumping or named:
        return unpacked
    if config.depth not in (None, "files"):
        _log.warning(
            "blender: --depth %s takes the place of depth from the silhouettes, and does not agree "
            "between images taken from so far apart; leave it out",
            config.depth,
        )
    _log.warning(
        "blender: the camera jumps from image to image: depth and tracks come from the silhouettes "
        "(visual hull), not from flow; how the object moves is left to the fit, where both weigh "
        "less than if measured"
    )
    tracks = _write_geometry(recording, camera, folder)
    inferred = [name for name in TRUST if getattr(config, name) is None]

    def finish(scene: Scene) -> None:
        if unpacked.finish is not None:
            unpacked.finish(scene)
        _state_trust(Scene(scene.directory), inferred)

    return dataclasses.replace(unpacked, depth=folder / "depth", tracks=tracks, finish=finish)


def _state_trust(scene: Scene, names: list[str]) -> None:
    """Write to the records of stages how far a fit is to trust their results."""
    for name in (name for name in names if name in scene.info.stages):
        record: dict[str, Any] = {**scene.info.stages[name]}
        quality = record.pop("quality") | {"trust": TRUST[name]}
        stamp_stage(scene.directory, name, quality=quality, **record)


def _write_geometry(recording: MultiCamera, camera: RecordedCamera, folder: Path) -> Path:
    """Write depth of every frame and a file of tracks, from silhouettes; return the latter."""
    cameras, count = camera.cameras, len(camera)
    centre = meeting_point(cameras)
    queries = set(np.linspace(0, count - 1, min(QUERY_FRAMES, count)).astype(int).tolist())
    rng = np.random.default_rng(0)
    points, frames = [], []
    hulls = hull_frames(cameras, lambda frame: read_foreground(camera, frame, cameras))
    for frame, hull in enumerate(progress(hulls, "visual hull", total=count)):
        background = shell_depth(cameras, frame, centre)
        write_depth(folder, frame, np.where(hull.depth > 0, hull.depth, background))
        if frame in queries and len(hull.xyz):
            number = min(POINTS_PER_FRAME, len(hull.xyz))
            points.append(hull.xyz[rng.choice(len(hull.xyz), number, replace=False)])
            frames.append(np.full(number, frame))
    if not points:
        raise InputError(
            f"{recording.directory}: the silhouettes have no common shape; are the cameras right, "
            "and is the object opaque (alpha)?"
        )
    xyz, query = np.concatenate(points), np.concatenate(frames)
    xy, visible = np.zeros((len(xyz), count, 2)), np.zeros((len(xyz), count), bool)
    for frame in range(count):
        depth = read_npy(frame_path(folder / "depth", frame, ".npy"))
        local = transform_points(cameras.cam_from_world[frame], xyz)
        ahead = local[:, 2] > 0
        xy[ahead, frame] = project(cameras.intrinsics[frame], local[ahead])
        row, column, inside = nearest_pixels(xy[:, frame], *depth.shape)
        apart = np.abs(local[:, 2] - depth[row, column])
        visible[:, frame] = ahead & inside & (apart <= AGREEING * local[:, 2])
    visible[np.arange(len(xyz)), query] = True
    confidence = np.where(visible, CONFIDENCE, 0).astype(np.float32)
    tracks = Tracks.from_dense(
        np.where(visible[..., None], xy, 0), visible, confidence, np.full(len(xyz), -1), query
    )
    path = folder / "tracks.npz"
    write_tracks(path, tracks)
    return path
