"""Absolute pose: cameras of frames that structure from motion left out, from static tracks.

A track is triangulated from the frames whose cameras are known; the pose of another frame is the
one that projects those points to the positions of their tracks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from msdyn.geometry import Cameras
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
ITERATIONS = 15


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
        cameras: one per frame; where not known, an initial pose, for example interpolated.
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
        points, k = xyz[number[point[visible]]], cameras.intrinsics[here]
        pose, error = _pose(points, xy[visible].astype(np.float64), k, cam_from_world[here])
        inlier = error < MAX_ERROR_PX
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
    k: Float[np.ndarray, "3 3"],
    start: Float[np.ndarray, "4 4"],
) -> tuple[Float[np.ndarray, "4 4"], Float[np.ndarray, " points"]]:
    """Return the pose [4, 4] that projects points [n, 3] to pixels [n, 2], and the errors [n] px.

    Gauss-Newton steps on rotation and translation, under a Cauchy loss of the scale of the typical
    error.

    Args:
        xyz: [n, 3] world positions.
        xy: [n, 2] px.
        k: [3, 3] intrinsics.
        start: [4, 4] initial pose, `cam_from_world`.
    """
    from scipy.spatial.transform import Rotation

    focal, centre = k[[0, 1], [0, 1]], k[:2, 2]
    pose = start.copy()
    for step in range(ITERATIONS + 1):
        local = xyz @ pose[:3, :3].T + pose[:3, 3]
        depth = np.maximum(local[:, 2], 1e-9)
        slope = local[:, :2] / depth[:, None]
        residual = focal * slope + centre - xy
        error = np.where(local[:, 2] > 0, np.linalg.norm(residual, axis=1), np.inf)
        if step == ITERATIONS:
            break
        scale = max(0.5, 1.5 * float(np.median(error)))
        weight = 1 / (1 + (error / scale) ** 2)
        residual[local[:, 2] <= 0] = 0
        of_local = np.concatenate([np.tile(np.eye(2), (len(xyz), 1, 1)), -slope[:, :, None]], 2)
        of_local *= (focal / depth[:, None])[:, :, None]  # [n, 2, 3]
        # local + rotation x local + translation
        jacobian = np.concatenate([np.cross(local[:, None], of_local), of_local], 2)  # [n, 2, 6]
        weighted = weight[:, None, None] * jacobian
        hessian = np.einsum("nci,ncj->ij", weighted, jacobian)
        hessian += 1e-9 * np.trace(hessian) * np.eye(6)
        rotvec, translation = np.split(
            -np.linalg.solve(hessian, np.einsum("nci,nc", weighted, residual)), 2
        )
        rotation = Rotation.from_rotvec(rotvec).as_matrix()
        pose[:3, :3] = rotation @ pose[:3, :3]
        pose[:3, 3] = rotation @ pose[:3, 3] + translation
    return pose, error
