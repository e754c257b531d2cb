"""Triangulation of many points from their observations in many cameras, vectorised.

An observation is a pixel `xy` of a `point` in a `frame`; a clip has hundreds of thousands. Sums
over the observations of a point are `np.add.reduceat` over the list sorted by point, without loops
over points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Real, Shaped

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

# Reprojection error at which the weight of an observation is one half (Cauchy loss). The error of
# chained flow is a few tenths of a pixel, and many pixels once a track has drifted off its surface.
SOFT_PX = 1.0
ITERATIONS = 6
# Observations per block, so that memory does not grow with the clip: each takes 1 to 2 KB.
BLOCK = 20_000


@dataclass(frozen=True)
class Triangulation:
    """Points and their uncertainty.

    Attributes:
        xyz: [P, 3] world positions; the origin for a point without observations.
        residual: [P] px, root of the weighted mean squared reprojection error.
        angle: [P] degrees, the largest angle between two of a point's rays.
        sigma: [P] relative standard deviation of the distance along the middle ray, from the
            residual (at least a quarter pixel) and the geometry of the rays.
        in_front: [P] whether it is in front of every camera that observed it.
        error: [M] px, reprojection error of each observation.
    """

    xyz: Float[np.ndarray, "points 3"]
    residual: Float[np.ndarray, " points"]
    angle: Float[np.ndarray, " points"]
    sigma: Float[np.ndarray, " points"]
    in_front: Bool[np.ndarray, " points"]
    error: Float[np.ndarray, " observations"]


def triangulate(
    cameras: Cameras,
    point: Int[np.ndarray, " observations"],
    frame: Int[np.ndarray, " observations"],
    xy: Float[np.ndarray, "observations 2"],
    weight: Float[np.ndarray, " observations"] | None = None,
) -> Triangulation:
    """Triangulate points from their observations, robust to outliers.

    Starts from the point nearest to all rays, then minimises the reprojection error under a Cauchy
    loss by damped Gauss-Newton steps.

    Args:
        cameras: one per frame.
        point: [M] index 0..P-1 of the point of each observation.
        frame: [M] frame of each observation.
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
    point: Int[np.ndarray, " observations"],
    frame: Int[np.ndarray, " observations"],
    xy: Float[np.ndarray, "observations 2"],
    weight: Float[np.ndarray, " observations"],
    count: int,
) -> Triangulation:
    """Triangulate `count` points from observations that are sorted by point; see `triangulate`."""
    sums = _Sums(point, count)
    rotation = cameras.cam_from_world[frame, :3, :3]  # [M, 3, 3]
    translation = cameras.cam_from_world[frame, :3, 3]
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
        local = (rotation @ xyz[sums.point][..., None])[..., 0] + translation
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
            # The point is hardly determined where a step is not small relative to its distance.
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


def triangulation_angles(points: SparsePoints, cameras: Cameras) -> Float[np.ndarray, " points"]:
    """Return the largest angle [P] in degrees between two rays of each point."""
    order = np.argsort(points.point, kind="stable")
    sums = _Sums(points.point[order], len(points.xyz))
    ray = _world_rays(cameras, points.frame[order], points.xy[order])
    return _angles(ray, _normalised(sums(ray)), sums)


def reprojection_error(points: SparsePoints, cameras: Cameras) -> float:
    """Return the mean reprojection error in px.

    Without observations of points behind their camera; if there are no others it is infinite.
    """
    poses = cameras.cam_from_world[points.frame]
    local = (poses[:, :3, :3] @ points.xyz[points.point][..., None])[..., 0] + poses[:, :3, 3]
    ahead = local[:, 2] > 0
    if not ahead.any():
        return float("inf")
    k = cameras.intrinsics[points.frame[ahead]]
    projected = project(k, local[ahead, None])[:, 0]
    return float(np.linalg.norm(projected - points.xy[ahead], axis=1).mean())


def triangulate_tracks(
    tracks: Tracks,
    cameras: Cameras,
    *,
    max_error_px: float = 1.0,
    min_angle_degrees: float = 1.0,
    max_sigma: float = 0.1,
) -> tuple[SparsePoints, Float[np.ndarray, " points"]]:
    """Triangulate static tracks and select the well-determined points.

    Args:
        tracks: tracks of static points.
        cameras: one per frame.
        max_error_px: largest root mean square reprojection error of a point.
        min_angle_degrees: smallest angle between two rays of a point.
        max_sigma: largest relative uncertainty of a point's depth.

    Returns:
        The points with their inlier observations, and the relative uncertainty of the depth of
        each point [P].
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
    """Sums over the observations of each point, for a list sorted by point.

    Attributes:
        point: [M] of each observation.
        number: [P] observations of each point.
    """

    def __init__(self, point: Int[np.ndarray, " observations"], count: int) -> None:
        self.point = point
        self.number = np.bincount(point, minlength=count)
        self._observed = np.flatnonzero(self.number)
        self._starts = np.searchsorted(point, self._observed)

    def __call__(
        self, values: Shaped[np.ndarray, " observations *shape"]
    ) -> Real[np.ndarray, " points *shape"]:
        """Return sums [P, ...] of values [M, ...]; zero for a point without observations."""
        return self.reduce(np.add, values, 0)

    def reduce(
        self,
        function: np.ufunc,
        values: Shaped[np.ndarray, " observations *shape"],
        empty: float,
    ) -> Real[np.ndarray, " points *shape"]:
        """Return values [M, ...] reduced to each point [P, ...]; `empty` without observations."""
        kind = np.result_type(values, np.int64)
        result = np.full((len(self.number), *values.shape[1:]), empty, kind)
        if len(self._observed):
            result[self._observed] = function.reduceat(values, self._starts, dtype=kind)
        return result


def _world_rays(
    cameras: Cameras,
    frame: Int[np.ndarray, " observations"],
    xy: Float[np.ndarray, "observations 2"],
) -> Float[np.ndarray, "observations 3"]:
    """Return the unit viewing rays [M, 3] in the world of pixels [M, 2]."""
    k = cameras.intrinsics[frame]
    slope = (np.asarray(xy, np.float64) - k[:, :2, 2]) / k[:, [0, 1], [0, 1]]
    ray = np.concatenate([slope, np.ones((len(slope), 1))], axis=1)
    rotation = cameras.cam_from_world[frame, :3, :3]
    return _normalised((rotation.swapaxes(1, 2) @ ray[..., None])[..., 0])


def _angles(
    ray: Float[np.ndarray, "observations 3"], middle: Float[np.ndarray, "points 3"], sums: _Sums
) -> Float[np.ndarray, " points"]:
    """Return the largest angle [P] in degrees between two rays of each point.

    Between the ray farthest from the mean and the one farthest from that: exact for rays in a
    plane, as those from a camera path nearly are.
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


def _solve(
    matrix: Float[np.ndarray, "points 3 3"], vector: Float[np.ndarray, "points 3"]
) -> Float[np.ndarray, "points 3"]:
    """Return the solutions of symmetric 3x3 systems [P], with damping against singular ones."""
    damping = 1e-9 * np.trace(matrix, axis1=1, axis2=2) + 1e-30
    matrix = matrix + damping[:, None, None] * np.eye(3)
    return np.linalg.solve(matrix, vector[..., None])[..., 0]


def _normalised(vectors: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
    """Return unit vectors; zero vectors remain zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-300)
