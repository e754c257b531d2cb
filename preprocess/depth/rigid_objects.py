"""Objects that move as one rigid body: their shape, and the camera's path relative to them.

To a camera, a rigid object that moves is a static one seen from a path of its own: structure from
motion on the features of the object alone gives its shape and that path, up to one scale. It is
tried on every object of some size, and believed only where it fits about as well as the background
does and finds by itself the focal length that the background has: an object that bends or has
joints is explained badly, by a wrong one.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from msdyn.geometry import Cameras, Similarity
from msdyn.preprocess.contracts import Masks
from msdyn.preprocess.depth.multi_frame import Body
from msdyn.preprocess.depth.support import Reading
from msdyn.preprocess.multiview.absolute_pose import (
    MAX_KEY_FRAMES,
    complete_cameras,
    key_frames,
)
from msdyn.preprocess.multiview.colmap import (
    Mapping,
    extract_features,
    features_on,
    map_cameras,
    match_neighbours,
    polish,
)
from msdyn.preprocess.multiview.track_labels import assign_objects
from msdyn.preprocess.multiview.triangulation import reprojection_error, triangulation_angles
from msdyn.scene import IGNORE, STATIC, Scene, Tracks

__all__ = ["bring_to_scale", "solve_rigid_objects"]

MAX_OBJECTS = 4  # the largest
MIN_AREA = 0.01  # share of the image, in the median frame that shows the object
MIN_FRAMES = 8
MIN_POINTS = 50
MIN_SHARE = 0.6  # of the frames that show it
MIN_DEGREES = 3.0
# On a rendered clip a rigid object was 1.5 % off the background's focal length at 0.8 of its error;
# one with joints 76 % at 1.7, one that bends 300 % at 3.3.
FOCAL_AGREEMENT = 0.05
ERROR_RATIO = 1.5
# Features are no more exact than this, however exact the background's points (tracks, or a file's).
FEATURE_ERROR_PX = 0.25


def solve_rigid_objects(
    scene: Scene,
    tracks: Tracks,
    masks: Masks,
    background: Body,
    *,
    seed: int = 0,
    max_key_frames: int = MAX_KEY_FRAMES,
) -> dict[int, Body]:
    """Return the rigid objects by label, each in a scale of its own.

    Args:
        scene: the frames.
        tracks: N tracks; those on an object find the frames that features do not.
        masks: a mask a frame.
        background: the static scene; without one focal length and a principal point in the middle
            nothing is tried.
        seed: of every random choice.
        max_key_frames: of a longer clip so many frames are solved together.
    """
    cameras = background.cameras
    wanted = _worth_trying(masks)
    if not wanted or not _plain(cameras):
        return {}
    focal = float(cameras.intrinsics[0, 0, 0])
    max_error = ERROR_RATIO * max(reprojection_error(background.points, cameras), FEATURE_ERROR_PX)
    bodies, frames = {}, key_frames(len(scene), max_key_frames)
    of_object = assign_objects(tracks, masks)
    with tempfile.TemporaryDirectory(prefix="msdyn-objects-") as name:
        folder = Path(name)
        moving = (~np.isin(masks[frame], (STATIC, IGNORE)) for frame in frames)
        features = extract_features(scene, moving, folder, frames=frames)
        for label, shown in wanted:
            database = features_on(scene, features, masks, label, folder)
            match_neighbours(database, seed=seed)
            mapping = map_cameras(scene, database, focal, folder, seed=seed)
            if mapping is None or mapping.error > max_error:
                continue
            mapping = polish(mapping)
            if not _believable(mapping, focal, shown[frames]):
                continue
            mapping = polish(mapping, focal)
            relative = Cameras(
                cameras.intrinsics, mapping.cam_from_world, cameras.width, cameras.height
            )
            angles = triangulation_angles(mapping.points, relative)
            if mapping.error < max_error and np.median(angles) >= MIN_DEGREES:
                own = tracks.select(of_object == label)
                rest = complete_cameras(relative, mapping.registered, own)
                known = mapping.registered | rest.found
                bodies[label] = Body(label, rest.cameras, known, mapping.points.joined(rest.points))
    return bodies


def bring_to_scale(body: Body, readings: list[Reading | None]) -> Body | None:
    """Return a rigid object in the scale of the background: its foot is at what it touches.

    Args:
        body: the object, in a scale of its own.
        readings: of every frame.

    Returns:
        The object, or None where no frame shows what it touches.
    """
    points, poses = body.points, body.cameras.cam_from_world
    ratios = []
    for frame, reading in enumerate(readings):
        if not reading or not reading.contact or not body.known[frame]:
            continue
        here = points.frame == frame
        row = points.xy[:, 1]
        foot = here & (row >= reading.foot[0]) & (row < reading.foot[1])
        chosen = points.point[foot if foot.sum() >= 3 else here]
        depth = points.xyz[chosen] @ poses[frame, 2, :3] + poses[frame, 2, 3]
        if len(depth):
            ratios.append(reading.contact / float(np.median(depth)))
    if not ratios:
        return None
    scale = float(np.median(ratios))
    cameras = body.cameras.transformed(Similarity.of(scale))
    return replace(body, cameras=cameras, points=replace(points, xyz=scale * points.xyz))


def _worth_trying(masks: Masks) -> list[tuple[int, np.ndarray]]:
    """Return the objects that are large and long enough and the frames [T] that show each."""
    areas = np.stack([np.bincount(mask.ravel(), minlength=256) / mask.size for mask in masks])
    found = []
    for label in np.setdiff1d(np.flatnonzero(areas.any(0)), [STATIC, IGNORE]).tolist():
        area = areas[:, label]
        shown = area > 0
        if shown.sum() >= MIN_FRAMES and np.median(area[shown]) >= MIN_AREA:
            found.append((float(np.median(area[shown])), label, shown))
    found.sort(key=lambda entry: -entry[0])
    return [(label, shown) for _, label, shown in found[:MAX_OBJECTS]]


def _plain(cameras: Cameras) -> bool:
    """Say whether all cameras share one focal length and have their centre in the middle."""
    k = cameras.intrinsics
    focals = k[:, [0, 1], [0, 1]]
    middle = np.array([cameras.width / 2, cameras.height / 2])
    return bool(
        (np.abs(focals / focals[0, 0] - 1) < 0.01).all()
        and (np.abs(k[:, :2, 2] - middle) < 0.02 * cameras.width).all()
    )


def _believable(mapping: Mapping, focal: float, shown: np.ndarray) -> bool:
    registered = int(mapping.registered.sum())
    return (
        abs(mapping.focal / focal - 1) < FOCAL_AGREEMENT
        and len(mapping.points.xyz) >= MIN_POINTS
        and registered >= max(MIN_SHARE * int(shown.sum()), MIN_FRAMES)
    )
