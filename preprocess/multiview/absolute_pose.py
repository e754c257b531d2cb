"""Cameras of frames that structure from motion left out, from static tracks that others place.

What a track shows is triangulated from the frames whose cameras are known; of a frame between
them, the pose is then the one under which those points project to where the tracks are seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from msdyn.geometry import Cameras, invert_transforms
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

# Of a longer clip so many frames are solved together.
MAX_KEY_FRAMES = 200
# Of the tracks in a frame, the longest in each cell of the image.
CELL_PX = 24
# A point places cameras if its rays meet to within so many px, at no less than this angle.
MAX_RESIDUAL_PX, MIN_ANGLE_DEGREES = 1.0, 1.0
# A frame is found if the pose explains at least so many points to within so many px, and most.
MIN_POINTS, MAX_ERROR_PX = 12, 2.0
ITERATIONS = 15


@dataclass(frozen=True)
class Resection:
    """Cameras of all frames.

    Attributes:
        cameras: one a frame, those that were known as given.
        found: [T] bool, those that were not known and are now.
        points: what the tracks show, seen in known and found frames.
    """

    cameras: Cameras
    found: np.ndarray
    points: SparsePoints


def key_frames(count: int, most: int) -> list[int]:
    """Return at most so many of a clip's frames, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def complete_cameras(cameras: Cameras, known: np.ndarray, tracks: Tracks) -> Resection:
    """Give every frame a camera: by static tracks, or else between its neighbours in time.

    Args:
        cameras: one a frame; poses that are not known are not looked at.
        known: [T] bool, at least one.
        tracks: of what stands still; there may be none.
    """
    rest = resect(interpolate_cameras(cameras, known), known, tracks)
    return replace(rest, cameras=interpolate_cameras(rest.cameras, known | rest.found))


def resect(cameras: Cameras, known: np.ndarray, tracks: Tracks) -> Resection:
    """Find the poses of unknown frames from static tracks; others are left as given.

    Args:
        cameras: one a frame; where not known, a guess, for example from the neighbours in time.
        known: [T] bool.
        tracks: of what stands still.
    """
    unknown = np.flatnonzero(~known)
    wanted = [longest_in_cells(tracks, frame) for frame in unknown.tolist()]
    tracks = tracks.select(np.unique(np.concatenate([np.zeros(0, int), *wanted])))
    point, frame, xy, confidence = tracks.observations()
    placing = np.flatnonzero(known[frame])
    rows, index = np.unique(point[placing], return_inverse=True)
    solved = triangulate(cameras, index, frame[placing], xy[placing], confidence[placing])
    good = solved.in_front & (solved.residual < MAX_RESIDUAL_PX)
    good &= solved.angle > MIN_ANGLE_DEGREES
    number = np.full(len(tracks), -1)  # of the point that each track shows
    number[rows[good]] = np.arange(good.sum())
    xyz = solved.xyz[good]

    cam_from_world, found = cameras.cam_from_world.copy(), np.zeros(len(known), bool)
    fits = [placing[(number[point[placing]] >= 0) & (solved.error < MAX_ERROR_PX)]]
    order = np.argsort(frame, kind="stable")
    ends = np.searchsorted(frame[order], np.arange(len(known) + 1))
    for here in unknown.tolist():
        seen = order[ends[here] : ends[here + 1]]
        seen = seen[number[point[seen]] >= 0]
        if len(seen) < MIN_POINTS:
            continue
        points, k = xyz[number[point[seen]]], cameras.intrinsics[here]
        pose, error = _pose(points, xy[seen].astype(np.float64), k, cam_from_world[here])
        near = error < MAX_ERROR_PX
        if near.sum() >= max(MIN_POINTS, len(seen) / 2):
            cam_from_world[here], found[here] = pose, True
            fits.append(seen[near])
    kept = np.concatenate(fits)
    structure = SparsePoints(xyz, number[point[kept]], frame[kept], xy[kept])
    return Resection(replace(cameras, cam_from_world=cam_from_world), found, structure)


def interpolate_cameras(cameras: Cameras, known: np.ndarray) -> Cameras:
    """Return cameras with the unknown ones between their known neighbours in time.

    Orientations go along the geodesic, centres along a line; before the first and after the last
    known camera that one is held.

    Args:
        cameras: one a frame; poses that are not known are not looked at.
        known: [T] bool, at least one.
    """
    from scipy.spatial.transform import Rotation, Slerp

    where = np.flatnonzero(known)
    if len(where) == len(known):
        return cameras
    frames = np.clip(np.arange(len(known)), where[0], where[-1])
    world_from_cam = np.tile(np.eye(4), (len(known), 1, 1))
    rotations = Rotation.from_matrix(cameras.world_from_cam[where, :3, :3])
    if len(where) == 1:
        world_from_cam[:, :3, :3] = rotations.as_matrix()
    else:
        world_from_cam[:, :3, :3] = Slerp(where, rotations)(frames).as_matrix()
    for axis in range(3):
        world_from_cam[:, axis, 3] = np.interp(frames, where, cameras.centres[where, axis])
    return replace(cameras, cam_from_world=invert_transforms(world_from_cam))


def longest_in_cells(tracks: Tracks, frame: int) -> np.ndarray:
    """Return tracks seen in a frame, ascending: the longest in each cell of `CELL_PX`."""
    rows, xy = tracks.at(frame)
    life = tracks.lifetimes[rows]
    cell = (xy // CELL_PX).astype(int)
    order = np.lexsort((-life, cell[:, 0], cell[:, 1]))
    new = np.r_[True, (np.diff(cell[order], axis=0) != 0).any(1)][: len(rows)]
    return np.sort(rows[order[new]])


def _pose(
    xyz: np.ndarray, xy: np.ndarray, k: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pose [4, 4] that projects points [n, 3] to pixels [n, 2], and the errors [n] px.

    Gauss-Newton steps on rotation and translation under a Cauchy loss as wide as the typical error.
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
        # local + turn x local + shift
        jacobian = np.concatenate([np.cross(local[:, None], of_local), of_local], 2)  # [n, 2, 6]
        weighted = weight[:, None, None] * jacobian
        hessian = np.einsum("nci,ncj->ij", weighted, jacobian)
        hessian += 1e-9 * np.trace(hessian) * np.eye(6)
        turn, shift = np.split(
            -np.linalg.solve(hessian, np.einsum("nci,nc", weighted, residual)), 2
        )
        change = Rotation.from_rotvec(turn).as_matrix()
        pose[:3, :3] = change @ pose[:3, :3]
        pose[:3, 3] = change @ pose[:3, 3] + shift
    return pose, error
