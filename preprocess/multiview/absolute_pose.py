"""Absolute pose: cameras of frames that structure from motion left out, from static tracks.

A track is triangulated from the frames whose cameras are known; the pose of another frame is the
one that projects those points to the positions of their tracks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from msdyn.geometry import Cameras, project, transform_points
from msdyn.io import load_pycolmap
from msdyn.preprocess.contracts import SparsePoints
from msdyn.preprocess.multiview.triangulation import triangulate
from msdyn.scene import Tracks

__all__ = [
    "CELL_PX",
    "MAX_KEY_FRAMES",
    "Resection",
    "complete_cameras",
    "interpolate_cameras",
    "key_frames",
    "longest_in_cells",
    "resect",
]

# Of a longer clip so many frames are solved jointly.
MAX_KEY_FRAMES = 200
# Of the tracks in a frame, the longest in each cell of the image is used.
CELL_PX = 24
# A point is used if its reprojection error is below so many px, and the angle of its rays is large
# enough.
MAX_RESIDUAL_PX, MIN_ANGLE_DEGREES = 1.0, 1.0
# A pose is accepted with at least so many points of an error below so many px, if these are half.
MIN_POINTS, MAX_ERROR_PX = 12, 2.0
LOSS_PX = 0.5
"""Scale of the Cauchy loss that refines a pose."""


@dataclass(frozen=True)
class Resection:
    """Cameras of all frames.

    Attributes:
        cameras: one per frame; known ones as given.
        found: [T] which unknown ones were estimated.
        points: triangulated tracks, with observations in known and estimated frames.
    """

    cameras: Cameras
    found: Bool[np.ndarray, " frames"]
    points: SparsePoints


def key_frames(count: int, most: int) -> list[int]:
    """Return at most so many of a clip's frames, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def complete_cameras(
    cameras: Cameras, known: Bool[np.ndarray, " frames"], tracks: Tracks
) -> Resection:
    """Return a camera for every frame: unknown ones by static tracks, or else interpolated.

    Args:
        cameras: one per frame; poses that are not known are not used.
        known: [T] at least one.
        tracks: of static points; there may be none.
    """
    found = resect(interpolate_cameras(cameras, known), known, tracks)
    return replace(found, cameras=interpolate_cameras(found.cameras, known | found.found))


def resect(cameras: Cameras, known: Bool[np.ndarray, " frames"], tracks: Tracks) -> Resection:
    """Return cameras with the poses of unknown frames estimated from static tracks.

    Args:
        cameras: one per frame; unknown poses are returned as given where none is found.
        known: [T].
        tracks: of static points.
    """
    unknown = np.flatnonzero(~known)
    wanted = [longest_in_cells(tracks, frame) for frame in unknown.tolist()]
    tracks = tracks.select(np.unique(np.concatenate([np.zeros(0, int), *wanted])))
    point, frame, xy, confidence = tracks.observations()
    given = np.flatnonzero(known[frame])  # observations in known frames
    rows, index = np.unique(point[given], return_inverse=True)
    solved = triangulate(cameras, index, frame[given], xy[given], confidence[given])
    good = solved.in_front & (solved.residual < MAX_RESIDUAL_PX)
    good &= solved.angle > MIN_ANGLE_DEGREES
    number = np.full(len(tracks), -1)  # of the point of each track
    number[rows[good]] = np.arange(good.sum())
    xyz = solved.xyz[good]

    cam_from_world, found = cameras.cam_from_world.copy(), np.zeros(len(known), bool)
    inliers = [given[(number[point[given]] >= 0) & (solved.error < MAX_ERROR_PX)]]
    order = np.argsort(frame, kind="stable")
    ends = np.searchsorted(frame[order], np.arange(len(known) + 1))
    for here in unknown.tolist():
        visible = order[ends[here] : ends[here + 1]]
        visible = visible[number[point[visible]] >= 0]
        if len(visible) < MIN_POINTS:
            continue
        points, pixels = xyz[number[point[visible]]], xy[visible].astype(np.float64)
        pose = _pose(points, pixels, cameras.intrinsics[here])
        if pose is None:
            continue
        local = transform_points(pose, points)
        error = np.linalg.norm(project(cameras.intrinsics[here], local) - pixels, axis=1)
        inlier = (error < MAX_ERROR_PX) & (local[:, 2] > 0)
        if inlier.sum() >= max(MIN_POINTS, len(visible) / 2):
            cam_from_world[here], found[here] = pose, True
            inliers.append(visible[inlier])
    kept = np.concatenate(inliers)
    structure = SparsePoints(xyz, number[point[kept]], frame[kept], xy[kept])
    return Resection(replace(cameras, cam_from_world=cam_from_world), found, structure)


def interpolate_cameras(cameras: Cameras, known: Bool[np.ndarray, " frames"]) -> Cameras:
    """Return cameras with the unknown ones interpolated between known ones in time.

    Orientations along the geodesic, centres linearly; before the first and after the last known
    camera, those are repeated.

    Args:
        cameras: one per frame; poses that are not known are not used.
        known: [T] at least one.
    """
    where = np.flatnonzero(known)
    if len(where) == len(known):
        return cameras
    positions = np.interp(np.arange(len(known)), where, np.arange(len(where)))
    between = cameras[where].interpolated(positions)
    return replace(cameras, cam_from_world=between.cam_from_world)


def longest_in_cells(tracks: Tracks, frame: int) -> Int[np.ndarray, " chosen"]:
    """Return tracks visible in a frame, ascending: the longest in each cell of `CELL_PX`."""
    rows, xy = tracks.at(frame)
    life = tracks.lifetimes[rows]
    cell = (xy // CELL_PX).astype(int)
    order = np.lexsort((-life, cell[:, 0], cell[:, 1]))
    new = np.r_[True, (np.diff(cell[order], axis=0) != 0).any(1)][: len(rows)]
    return np.sort(rows[order[new]])


def _pose(
    xyz: Float[np.ndarray, "points 3"],
    xy: Float[np.ndarray, "points 2"],
    intrinsics: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, "4 4"] | None:
    """Return `cam_from_world` that projects world points to pixels, by COLMAP; None without one.

    LO-RANSAC over minimal samples, then refinement of the inliers under a Cauchy loss.
    """
    pycolmap = load_pycolmap()
    (fx, _, cx), (_, fy, cy) = intrinsics[:2]
    # The size of the image is not used.
    camera = pycolmap.Camera(model="PINHOLE", width=1, height=1, params=[fx, fy, cx, cy])
    estimation = pycolmap.AbsolutePoseEstimationOptions()
    estimation.ransac.max_error = MAX_ERROR_PX
    estimation.ransac.random_seed = 0
    refinement = pycolmap.AbsolutePoseRefinementOptions()
    refinement.loss_function_scale = LOSS_PX
    answer = pycolmap.estimate_and_refine_absolute_pose(xy, xyz, camera, estimation, refinement)
    if answer is None:
        return None
    return np.concatenate([answer["cam_from_world"].matrix(), [[0.0, 0, 0, 1]]])
