"""Objects that move as one rigid body: their shape, and the path of the camera relative to them.

A rigid object that moves is equivalent to a static one with another camera path: structure from
motion on the features of the object alone gives its shape and that path, up to scale. It is run on
every object of some size, and accepted only where its error is about that of the background and its
focal length is that of the background: the error of a deformable or articulated object is large,
and its focal length wrong.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from msdyn.geometry import Cameras, Similarity
from msdyn.preprocess.contracts import Masks
from msdyn.preprocess.depth.multi_frame import Body
from msdyn.preprocess.depth.support import Surroundings
from msdyn.preprocess.multiview.absolute_pose import (
    MAX_KEY_FRAMES,
    complete_cameras,
    key_frames,
)
from msdyn.preprocess.multiview.colmap_mapping import Mapping, map_cameras, polish
from msdyn.preprocess.multiview.colmap_matching import (
    extract_features,
    features_on,
    match_neighbours,
)
from msdyn.preprocess.multiview.triangulation import reprojection_error, triangulation_angles
from msdyn.scene import IGNORE, STATIC, Scene, Tracks
from msdyn.writing import scratch_folder

__all__ = ["bring_to_scale", "solve_rigid_objects"]

MAX_OBJECTS = 4  # the largest
MIN_AREA = 0.01  # share of the image, median over the frames in which the object is visible
MIN_FRAMES = 8
MIN_POINTS = 50
MIN_SHARE = 0.6  # of the frames in which it is visible
MIN_DEGREES = 3.0
# On a rendered clip the focal length of a rigid object was 1.5 % off that of the background, at 0.8
# of its error; of an articulated one 76 % at 1.7, of a bending one 300 % at 3.3.
FOCAL_AGREEMENT = 0.05
ERROR_RATIO = 1.5
# Features are not more exact than this, even where the points of the background are.
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
        tracks: N tracks; those of an object give poses in frames that features do not register.
        masks: an index mask per frame.
        background: the static scene; unless it has one focal length and a principal point in the
            middle, no object is solved.
        seed: of every random choice.
        max_key_frames: of a longer clip so many frames are solved jointly.
    """
    cameras = background.cameras
    candidates = _candidates(masks)
    if not candidates or not _shared_focal(cameras):
        return {}
    focal = float(cameras.intrinsics[0, 0, 0])
    max_error = ERROR_RATIO * max(reprojection_error(background.points, cameras), FEATURE_ERROR_PX)
    bodies, frames = {}, key_frames(len(scene), max_key_frames)
    with scratch_folder() as folder:
        moving = (~np.isin(masks[frame], (STATIC, IGNORE)) for frame in frames)
        features = extract_features(scene, moving, folder, frames=frames)
        for label, visible in candidates:
            database = features_on(scene, features, masks, label, folder)
            match_neighbours(database, seed=seed)
            mapping = map_cameras(scene, database, focal, folder, seed=seed)
            if mapping is None or mapping.error > max_error:
                continue
            mapping = polish(mapping)
            if not _reliable(mapping, focal, visible[frames]):
                continue
            mapping = polish(mapping, focal)
            relative = Cameras(
                cameras.intrinsics, mapping.cam_from_world, cameras.width, cameras.height
            )
            angles = triangulation_angles(mapping.points, relative)
            if mapping.error < max_error and np.median(angles) >= MIN_DEGREES:
                own = tracks.select(tracks.object == label)
                completed = complete_cameras(relative, mapping.registered, own)
                known = mapping.registered | completed.found
                points = mapping.points.joined(completed.points)
                bodies[label] = Body(label, completed.cameras, known, points)
    return bodies


def bring_to_scale(body: Body, surroundings: list[Surroundings | None]) -> Body | None:
    """Return a rigid object in the scale of the background: its foot is at the depth of the ground.

    Args:
        body: the object, in a scale of its own.
        surroundings: of every frame.

    Returns:
        The object, or None where no frame shows the ground below it.
    """
    points, poses = body.points, body.cameras.cam_from_world
    ratios = []
    for frame, found in enumerate(surroundings):
        if not found or not found.contact or not body.known[frame]:
            continue
        here = points.frame == frame
        row = points.xy[:, 1]
        foot = here & (row >= found.foot[0]) & (row < found.foot[1])
        chosen = points.point[foot if foot.sum() >= 3 else here]
        depth = points.xyz[chosen] @ poses[frame, 2, :3] + poses[frame, 2, 3]
        if len(depth):
            ratios.append(found.contact / float(np.median(depth)))
    if not ratios:
        return None
    scale = float(np.median(ratios))
    cameras = body.cameras.transformed(Similarity.of(scale))
    return replace(body, cameras=cameras, points=replace(points, xyz=scale * points.xyz))


def _candidates(masks: Masks) -> list[tuple[int, Bool[np.ndarray, " frames"]]]:
    """Return objects of sufficient area and duration, and in which frames [T] each is visible."""
    areas = np.stack([np.bincount(mask.ravel(), minlength=256) / mask.size for mask in masks])
    found = []
    for label in np.setdiff1d(np.flatnonzero(areas.any(0)), [STATIC, IGNORE]).tolist():
        area = areas[:, label]
        visible = area > 0
        if visible.sum() >= MIN_FRAMES and np.median(area[visible]) >= MIN_AREA:
            found.append((float(np.median(area[visible])), label, visible))
    found.sort(key=lambda entry: -entry[0])
    return [(label, visible) for _, label, visible in found[:MAX_OBJECTS]]


def _shared_focal(cameras: Cameras) -> bool:
    """Return whether all cameras have one focal length, and a principal point in the middle."""
    k = cameras.intrinsics
    focals = k[:, [0, 1], [0, 1]]
    middle = np.array([cameras.width / 2, cameras.height / 2])
    return bool(
        (np.abs(focals / focals[0, 0] - 1) < 0.01).all()
        and (np.abs(k[:, :2, 2] - middle) < 0.02 * 2 * middle.max()).all()
    )


def _reliable(mapping: Mapping, focal: float, visible: Bool[np.ndarray, " tried"]) -> bool:
    """Return whether a mapping has the right focal length, enough points and enough frames."""
    registered = int(mapping.registered.sum())
    return (
        abs(mapping.focal / focal - 1) < FOCAL_AGREEMENT
        and len(mapping.points.xyz) >= MIN_POINTS
        and registered >= max(MIN_SHARE * int(visible.sum()), MIN_FRAMES)
    )
