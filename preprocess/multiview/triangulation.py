"""Triangulation: where points lie, from what many cameras saw of them, all points at once.

An observation is a pixel `xy` of a `point` in a `frame`; a clip has hundreds of thousands. Sums
over the observations of a point are `np.add.reduceat` over the list sorted by point, so nothing
here loops over points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdyn.geometry import Cameras, project
from msdyn.preprocess.contracts import SparsePoints
from msdyn.scene import Tracks

__all__ = [
    "BLOCK",
    "Triangulation",
    "reprojection_error",
    "triangulate",
    "triangulate_tracks",
    "triangulation_angles",
]

# Observations that a point explains worse than this lose half of their weight (Cauchy). Chained
# flow is off by a few tenths of a pixel while it holds, and by many pixels once it has slipped.
SOFT_PX = 1.0
ITERATIONS = 6
# Observations solved at a time, so that memory does not grow with the clip: each takes 1 to 2 KB.
BLOCK = 20_000


@dataclass(frozen=True)
class Triangulation:
    """Points, and how well they are known.

    Attributes:
        xyz: [P, 3] world positions; the origin for a point without observations.
        residual: [P] px, root of the weighted mean squared reprojection error.
        angle: [P] degrees, the largest angle between two of a point's rays.
        sigma: [P] standard deviation of the distance along the middle ray, as a share of it, from
            the residual (at least a quarter pixel) and the geometry of the rays.
        in_front: [P] bool, in front of every camera that saw it.
        error: [M] px, reprojection error of each observation.
    """

    xyz: np.ndarray
    residual: np.ndarray
    angle: np.ndarray
    sigma: np.ndarray
    in_front: np.ndarray
    error: np.ndarray


def triangulate(
    cameras: Cameras,
    point: np.ndarray,
    frame: np.ndarray,
    xy: np.ndarray,
    weight: np.ndarray | None = None,
) -> Triangulation:
    """Triangulate points from their observations, robust to some that are wrong.

    Starts from the point nearest to all rays, then minimises the reprojection error under a Cauchy
    loss by damped Gauss-Newton steps.

    Args:
        cameras: one a frame.
        point: [M] int, which point each observation is of, 0..P-1.
        frame: [M] int, frame of each observation.
        xy: [M, 2] px.
        weight: [M] confidence of each observation, 1 by default.
    """
    count = int(point.max(initial=-1)) + 1
    weight = np.ones(len(point)) if weight is None else np.asarray(weight, np.float64)
    order = np.argsort(point, kind="stable")
    ends = np.cumsum(np.bincount(point, minlength=count))
    parts, error, first, start = [], np.empty(len(point)), 0, 0
    while first < count or not parts:  # a block of whole points at a time
        last = max(int(np.searchsorted(ends, start + BLOCK, "right")), min(first + 1, count))
        end = int(ends[last - 1]) if last else 0
        rows = order[start:end]
        block = _triangulate(
            cameras, point[rows] - first, frame[rows], xy[rows], weight[rows], last - first
        )
        error[rows] = block.error
        parts.append(block)
        first, start = last, end
    fields = ("xyz", "residual", "angle", "sigma", "in_front")
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in fields}
    return Triangulation(**whole, error=error)


def _triangulate(
    cameras: Cameras,
    point: np.ndarray,
    frame: np.ndarray,
    xy: np.ndarray,
    weight: np.ndarray,
    count: int,
) -> Triangulation:
    """Triangulate `count` points from observations that are sorted by point; see `triangulate`."""
    sums = _Sums(point, count)
    rotation = cameras.cam_from_world[frame, :3, :3]  # [M, 3, 3]
    shift = cameras.cam_from_world[frame, :3, 3]
    k = cameras.intrinsics[frame]
    focal = k[:, [0, 1], [0, 1]]
    offset = np.asarray(xy, np.float64) - k[:, :2, 2]  # from the principal point
    centre = cameras.centres[frame]
    ray = _world_rays(cameras, frame, xy)

    across = np.eye(3) - ray[:, :, None] * ray[:, None, :]
    matrix = sums(weight[:, None, None] * across)
    vector = sums(weight[:, None] * (across @ centre[..., None])[..., 0])
    xyz = _solve(matrix, vector)

    for step in range(ITERATIONS + 1):
        local = (rotation @ xyz[sums.point][..., None])[..., 0] + shift
        depth = np.where(np.abs(local[:, 2]) < 1e-9, 1e-9, local[:, 2])
        slope = local[:, :2] / depth[:, None]
        residual = focal * slope - offset
        error = np.linalg.norm(residual, axis=1)
        robust = weight / (1 + (error / SOFT_PX) ** 2)
        jacobian = rotation[:, :2] - slope[:, :, None] * rotation[:, 2:]
        jacobian *= (focal / depth[:, None])[:, :, None]  # [M, 2, 3]
        weighted = robust[:, None, None] * jacobian
        hessian = sums(weighted.swapaxes(1, 2) @ jacobian)
        if step < ITERATIONS:
            gradient = sums((weighted * residual[:, :, None]).sum(1))
            move = _solve(hessian, gradient)
            # A step across a good part of the distance means that the point is hardly determined.
            reach = 0.5 * np.abs(sums(depth)) / np.maximum(sums.number, 1)
            size = np.linalg.norm(move, axis=1)
            xyz = xyz - move * np.minimum(1, reach / np.maximum(size, 1e-300))[:, None]

    mean_square = sums(robust * error**2) / np.maximum(sums(robust), 1e-300)
    residual_px = np.sqrt(mean_square)
    middle = _normalised(sums(ray))
    distance = sums(np.linalg.norm(xyz[sums.point] - centre, axis=1)) / np.maximum(sums.number, 1)
    covariance = np.maximum(residual_px, 0.25)[:, None] ** 2 * _solve(hessian, middle)
    sigma = np.sqrt(np.maximum((middle * covariance).sum(1), 0)) / np.maximum(distance, 1e-300)
    in_front = sums(local[:, 2] <= 1e-9) == 0
    return Triangulation(xyz, residual_px, _angles(ray, middle, sums), sigma, in_front, error)


def triangulation_angles(points: SparsePoints, cameras: Cameras) -> np.ndarray:
    """Return the largest angle [P] in degrees between two rays of each point."""
    order = np.argsort(points.point, kind="stable")
    sums = _Sums(points.point[order], len(points.xyz))
    ray = _world_rays(cameras, points.frame[order], points.xy[order])
    return _angles(ray, _normalised(sums(ray)), sums)


def reprojection_error(points: SparsePoints, cameras: Cameras) -> float:
    """Return the mean distance (px) between where points are seen and where they project to.

    Observations of a point behind its camera do not count; without any the error is infinite.
    """
    poses = cameras.cam_from_world[points.frame]
    local = (poses[:, :3, :3] @ points.xyz[points.point][..., None])[..., 0] + poses[:, :3, 3]
    ahead = local[:, 2] > 0
    if not ahead.any():
        return float("inf")
    k = cameras.intrinsics[points.frame[ahead]]
    seen = project(k, local[ahead, None])[:, 0]
    return float(np.linalg.norm(seen - points.xy[ahead], axis=1).mean())


def triangulate_tracks(
    tracks: Tracks,
    cameras: Cameras,
    *,
    max_error_px: float = 1.0,
    min_angle_degrees: float = 1.0,
    max_sigma: float = 0.1,
) -> tuple[SparsePoints, np.ndarray]:
    """Triangulate static tracks and keep the well-determined points.

    Args:
        tracks: tracks of static points.
        cameras: one a frame.
        max_error_px: largest root mean square reprojection error of a point.
        min_angle_degrees: smallest angle between two rays of a point.
        max_sigma: largest relative uncertainty of a point's depth.

    Returns:
        The points with their observations (those that fit), and the relative uncertainty of each
        point's depth [P].
    """
    point, frame, xy, confidence = tracks.observations()
    solved = triangulate(cameras, point, frame, xy, confidence)
    good = solved.in_front & (solved.residual < max_error_px)
    good &= (solved.angle > min_angle_degrees) & (solved.sigma < max_sigma)
    new_index = np.cumsum(good) - 1
    kept = good[point] & (solved.error < 2 * max_error_px)
    points = SparsePoints(solved.xyz[good], new_index[point[kept]], frame[kept], xy[kept])
    return points, solved.sigma[good]


class _Sums:
    """Sums over the observations of each point, for a list sorted by point."""

    def __init__(self, point: np.ndarray, count: int) -> None:
        self.point = point
        self.number = np.bincount(point, minlength=count)
        self._seen = np.flatnonzero(self.number)
        self._starts = np.searchsorted(point, self._seen)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return [P, ...] of values [M, ...]; zero for a point without observations."""
        return self.reduce(np.add, values, 0)

    def reduce(self, function: np.ufunc, values: np.ndarray, empty: float) -> np.ndarray:
        kind = np.result_type(values, np.int64)
        result = np.full((len(self.number), *values.shape[1:]), empty, kind)
        if len(self._seen):
            result[self._seen] = function.reduceat(values, self._starts, dtype=kind)
        return result


def _world_rays(cameras: Cameras, frame: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return the unit viewing rays [M, 3] of pixels in the world."""
    k = cameras.intrinsics[frame]
    slope = (np.asarray(xy, np.float64) - k[:, :2, 2]) / k[:, [0, 1], [0, 1]]
    ray = np.concatenate([slope, np.ones((len(slope), 1))], axis=1)
    rotation = cameras.cam_from_world[frame, :3, :3]
    return _normalised((rotation.swapaxes(1, 2) @ ray[..., None])[..., 0])


def _angles(ray: np.ndarray, middle: np.ndarray, sums: _Sums) -> np.ndarray:
    """Return the largest angle [P] in degrees between two rays of each point.

    From the ray farthest from the mean to the one farthest from that: exact for rays in a plane,
    which those of a camera path nearly are.
    """
    extreme = middle
    cosine = np.ones(len(middle))
    for _ in range(2):
        to_extreme = (ray * extreme[sums.point]).sum(1)
        cosine = sums.reduce(np.minimum, to_extreme, 1.0)
        is_farthest = to_extreme == cosine[sums.point]
        extreme = extreme.copy()
        extreme[sums.point[is_farthest]] = ray[is_farthest]
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def _solve(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Solve symmetric 3x3 systems [P], damped just enough that none is singular."""
    damping = 1e-9 * np.trace(matrix, axis1=1, axis2=2) + 1e-30
    matrix = matrix + damping[:, None, None] * np.eye(3)
    return np.linalg.solve(matrix, vector[..., None])[..., 0]


def _normalised(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-300)
