"""The error of a focal length that structure from motion has found.

Two contributions are added in quadrature. The first is the noise: the covariance of bundle
adjustment with the variance of its own residuals. It is too small alone, because lenses are not
pinholes, some pixels taken for static move, and errors of features are correlated over the frames.
So the clip is also cut into consecutive parts, and the focal length that each would give by itself
is compared with that of all: the root mean square of these differences is the second contribution.
It is not divided by the number of parts, since such errors do not average out. A part counts by the
inverse of its variance: one in which the camera hardly moves tells nothing.

Parts are not adjusted, one Gauss-Newton step per part suffices: its reduced normal equations, from
which the points are eliminated, give the step of the focal length and its variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from msdyn.preprocess.contracts import SparsePoints

__all__ = ["focal_contradiction", "focal_error"]

MAX_PARTS, MIN_PART_FRAMES = 4, 5
MIN_POINTS = 20
STANDARD_ERRORS = 2.0  # stated: about 95 % of all errors are smaller
DAMPING = 1e-9  # relative; position, rotation and scale of the world are not determined


def focal_contradiction(
    focal: float,
    centre: tuple[float, float],
    cam_from_world: Float[np.ndarray, "frames 4 4"],
    points: SparsePoints,
) -> float | None:
    """Return by which share points contradict a focal length that was kept, positive: too short.

    The first step of an adjustment that would free it.

    Args:
        focal, centre, cam_from_world, points: as of `focal_error`.

    Returns:
        The share; None where it is within twice its error, or not determined.
    """
    error = focal_error(focal, centre, cam_from_world, points)
    whole = _step(focal, centre, cam_from_world, points, np.ones(len(points.frame), bool))
    if error is None or whole is None or abs(whole.size) < 2 * error:
        return None
    return whole.size


@dataclass(frozen=True)
class _Step:
    """A Gauss-Newton step of the log focal length.

    Attributes:
        size: the step.
        variance: of the log focal length, for residuals of variance 1 px^2.
        residual: px^2, variance of the residuals.
    """

    size: float
    variance: float
    residual: float


def focal_error(
    focal: float,
    centre: tuple[float, float],
    cam_from_world: Float[np.ndarray, "frames 4 4"],
    points: SparsePoints,
) -> float | None:
    """Return two standard errors of a focal length, as a share of it.

    Args:
        focal: px, shared by all frames.
        centre: principal point, px.
        cam_from_world: [T, 4, 4].
        points: static points and their observations, from which all this was solved.

    Returns:
        The error; None where the clip is too short to be cut in two, or there are too few points.
    """
    frames = np.unique(points.frame)
    count = min(MAX_PARTS, len(frames) // MIN_PART_FRAMES)
    whole = _step(focal, centre, cam_from_world, points, np.ones(len(points.frame), bool))
    if count < 2 or whole is None:
        return None
    steps = [
        _step(focal, centre, cam_from_world, points, np.isin(points.frame, part))
        for part in np.array_split(frames, count)
    ]
    found = [step for step in steps if step is not None]
    if len(found) < 2:
        return None
    weights = [1 / step.variance for step in found]
    squares = [(step.size - whole.size) ** 2 for step in found]
    between = float(np.average(squares, weights=weights))
    return STANDARD_ERRORS * float(np.sqrt(whole.variance * whole.residual + between))


def _step(
    focal: float,
    centre: tuple[float, float],
    cam_from_world: Float[np.ndarray, "frames 4 4"],
    points: SparsePoints,
    used: Bool[np.ndarray, " observations"],
) -> _Step | None:
    """Return the step of the observations used, of points that these include twice.

    None where there are too few such points.
    """
    point, frame, xy = points.point[used], points.frame[used], points.xy[used].astype(np.float64)
    twice = np.bincount(point, minlength=len(points.xyz))[point] >= 2
    point, frame, xy = point[twice], frame[twice], xy[twice]
    kept, point = np.unique(point, return_inverse=True)
    frames, camera = np.unique(frame, return_inverse=True)
    if len(kept) < MIN_POINTS:
        return None
    rotation = cam_from_world[frame, :3, :3]
    local = (rotation @ points.xyz[kept[point]][..., None])[..., 0] + cam_from_world[frame, :3, 3]
    slope = local[:, :2] / local[:, 2:]
    residual = focal * slope + centre - xy  # [M, 2]
    error = np.linalg.norm(residual, axis=1)
    # The robust loss is that of the adjustment: soft L1, of the scale of the errors.
    weight = (1 + (error / max(0.5 * float(np.median(error)), 1e-9)) ** 2) ** -0.5
    root = np.sqrt(weight)[:, None, None]
    by_local = np.zeros((len(local), 2, 3))  # d pixel / d position in the camera
    by_local[:, 0, 0] = by_local[:, 1, 1] = focal / local[:, 2]
    by_local[:, :, 2] = -focal * slope / local[:, 2:]
    by_camera = np.concatenate([by_local, -by_local @ _skew(local)], axis=2)  # [M, 2, 6]
    size, variance = _solve_focal(
        root * by_camera,
        camera,
        root * (by_local @ rotation),
        point,
        root[..., 0] * focal * slope,
        root[..., 0] * residual,
    )
    freedom = max(2 * len(point) - 3 * len(kept) - 6 * len(frames), 1)
    return _Step(size, variance, float((weight * error**2).sum() / weight.mean() / freedom))


def _solve_focal(
    by_camera: Float[np.ndarray, "observations 2 6"],
    camera: Int[np.ndarray, " observations"],
    by_point: Float[np.ndarray, "observations 2 3"],
    point: Int[np.ndarray, " observations"],
    by_focal: Float[np.ndarray, "observations 2"],
    residual: Float[np.ndarray, "observations 2"],
) -> tuple[float, float]:
    """Return the Gauss-Newton step of the log focal length, and its variance for unit residuals.

    Args:
        by_camera: weighted derivatives by the pose of the camera [M] of each observation.
        camera: its index.
        by_point: by the position of its point.
        point: its index.
        by_focal: by the log focal length.
        residual: weighted residuals.
    """
    from scipy import sparse

    rows = np.arange(len(point) + 1)
    of_poses = sparse.bsr_matrix((by_camera, camera, rows)).tocsr()
    of_focal = sparse.csr_matrix(by_focal.reshape(-1, 1))
    of_cameras = sparse.hstack([of_poses, of_focal], format="csr")
    of_points = sparse.bsr_matrix((by_point, point, rows)).tocsr()
    blocks = np.zeros((point.max() + 1, 3, 3))
    np.add.at(blocks, point, by_point.swapaxes(1, 2) @ by_point)
    damping = DAMPING * np.trace(blocks, axis1=1, axis2=2) + 1e-30
    blocks += damping[:, None, None] * np.eye(3)
    index = np.arange(len(blocks) + 1)
    inverse = sparse.bsr_matrix((np.linalg.inv(blocks), index[:-1], index)).tocsr()
    coupling = of_cameras.T @ of_points
    eliminated = coupling @ inverse
    matrix = (of_cameras.T @ of_cameras - eliminated @ coupling.T).toarray()
    flat = residual.reshape(-1)
    gradient = of_cameras.T @ flat - eliminated @ (of_points.T @ flat)
    scale = np.sqrt(np.maximum(np.diagonal(matrix), 1e-30))
    matrix = matrix / scale / scale[:, None] + DAMPING * np.eye(len(scale))
    last = np.zeros(len(scale))
    last[-1] = 1 / scale[-1]
    column = np.linalg.solve(matrix, last) / scale  # the last column of the inverse
    return -float(column @ gradient), float(column[-1])


def _skew(v: Float[np.ndarray, "count 3"]) -> Float[np.ndarray, "count 3 3"]:
    """Return the matrices [N, 3, 3] of the cross product by vectors [N, 3]."""
    matrix = np.zeros((len(v), 3, 3))
    matrix[:, 0, 1], matrix[:, 0, 2], matrix[:, 1, 2] = -v[:, 2], v[:, 1], -v[:, 0]
    return matrix - matrix.swapaxes(1, 2)
