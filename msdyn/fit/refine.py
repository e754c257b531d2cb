"""Refining cameras and depth on what stands still, before the fit.

Estimated or recorded poses wobble by a pixel, and the scale of depth drifts from frame to frame;
the background then blurs, and motion is lifted into a world that swims. Static tracks say both:
a point that stands still must project onto its track in every frame, at the depth measured there.
This is bundle adjustment with the depth maps as further observations: Gauss-Newton over the poses,
two numbers for the depth of each frame, and the points, which are eliminated (Schur complement).
Weak priors at the poses given keep the world where it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdyn.geometry import Cameras, nearest_pixels, project, transform_points, unproject
from msdyn.scene import Tracks

__all__ = ["Refinement", "adjust_depth", "refine_on_static_tracks"]

# Standard deviations that the priors allow: of rotations (radians), centres (share of the median
# depth), the logarithm of a depth map's scale, and its exponent.
_EXPECTED = np.array([0.01] * 3 + [0.01] * 3 + [0.05, 0.005])
_POSE, _DEPTH = slice(0, 6), slice(6, 8)
_MAX_TRACKS = 1500
_ROUNDS = 12
# A frame with fewer tracks takes its correction from its neighbours.
_MIN_TRACKS = 8
# The least noise believed: pixels as a share of the longer side, and of the logarithm of depth.
_LEAST_NOISE = (1e-4, 1e-4)


@dataclass(frozen=True)
class Refinement:
    """Corrections of each frame's pose and depth.

    Attributes:
        cameras: refined, in the world of those given.
        log_scale, exponent: [T] of each frame: depth becomes
            exp(middle + log_scale) * (depth / exp(middle)) ** (1 + exponent).
        middle: logarithm of the median depth.
        tracks: static tracks used; 0 where there were too few and nothing was changed.
        before, after: median distance in pixels between tracks and projected points.
    """

    cameras: Cameras
    log_scale: np.ndarray
    exponent: np.ndarray
    middle: float
    tracks: int = 0
    before: float = 0.0
    after: float = 0.0

    def summary(self, given: Cameras) -> dict[str, float]:
        """Return how large the corrections are, for a report; `given` are the cameras before."""
        relative = self.cameras.cam_from_world[:, :3, :3] @ given.world_from_cam[:, :3, :3]
        cosine = ((np.trace(relative, axis1=1, axis2=2) - 1) / 2).clip(-1, 1)
        moved = np.linalg.norm(self.cameras.centres - given.centres, axis=1)
        return {
            "tracks": self.tracks,
            "pixels_before": self.before,
            "pixels_after": self.after,
            "degrees": float(np.degrees(np.arccos(cosine)).mean()),
            "shift": float(moved.mean()),
            "shift_share_of_depth": float(moved.mean() / np.exp(self.middle)),
            "depth_scale_min": float(np.exp(self.log_scale.min())),
            "depth_scale_max": float(np.exp(self.log_scale.max())),
        }


def adjust_depth(depth: np.ndarray, refinement: Refinement, frame: int) -> np.ndarray:
    """Return a depth map [H, W] of a frame with its correction; unknown pixels (0) stay so."""
    if not (refinement.log_scale[frame] or refinement.exponent[frame]):
        return depth
    known = depth > 0
    power = 1 + refinement.exponent[frame]
    relative = np.log(np.where(known, depth, 1.0)) - refinement.middle
    adjusted = np.exp(refinement.middle + refinement.log_scale[frame] + power * relative)
    return np.where(known, adjusted, 0.0).astype(depth.dtype)


def refine_on_static_tracks(
    tracks: Tracks,
    depths: np.ndarray,
    masks: np.ndarray,
    cameras: Cameras,
    frames: np.ndarray,
    *,
    poses: bool = True,
    depth: bool = True,
    seed: int = 0,
) -> Refinement:
    """Refine poses and depth scales on the static tracks of a scene.

    Args:
        tracks: of a whole clip; only static ones (object 0) where the mask is 0 are used.
        depths: [T, H, W] z-depth, 0 unknown.
        masks: [T, H, W] object index.
        cameras: one a frame.
        frames: [F] frames whose tracks may be used; others take their neighbours' corrections.
        poses: refine the poses.
        depth: refine the depth of each frame.
        seed: of the choice of tracks.

    Returns:
        The corrections; none where fewer than a handful of tracks cross frames.
    """
    problem = _observe(tracks, depths, masks, cameras, frames, seed)
    known = depths[depths > 0]
    middle = float(np.log(np.median(known))) if known.size else 0.0
    count = len(cameras)
    none = Refinement(cameras, np.zeros(count), np.zeros(count), middle)
    if problem is None or not (poses or depth):
        return none
    solver = _Solver(problem, cameras, middle, free=_free(poses, depth))
    before = solver.median_pixels()
    for _ in range(_ROUNDS):
        if solver.step() < 1e-3:
            break
    seen = np.bincount(problem.frame, minlength=count)
    correction = _spread(solver.correction, seen >= _MIN_TRACKS)
    return Refinement(
        _corrected(cameras, correction, solver.unit),
        correction[:, 6],
        correction[:, 7],
        middle,
        len(problem.points),
        before,
        solver.median_pixels(),
    )


@dataclass(frozen=True)
class _Observations:
    """O sightings of N points: where, how deep, and how sure."""

    point: np.ndarray  # [O]
    frame: np.ndarray  # [O]
    xy: np.ndarray  # [O, 2] px
    depth: np.ndarray  # [O], 0 unknown
    weight: np.ndarray  # [O]
    points: np.ndarray  # [N, 3] where they seem to be


def _observe(
    tracks: Tracks,
    depths: np.ndarray,
    masks: np.ndarray,
    cameras: Cameras,
    frames: np.ndarray,
    seed: int,
) -> _Observations | None:
    """Return the sightings of the static tracks that are seen longest, None where too few are."""
    height, width = depths.shape[1:]
    use = np.zeros(len(cameras), bool)
    use[frames] = True
    number, frame, xy, weight = tracks.observations()
    life = np.bincount(number[use[frame]], minlength=len(tracks)) * (tracks.object == 0)
    rng = np.random.default_rng(seed)
    # The longest first, chance deciding among equals.
    order = np.lexsort((rng.random(len(tracks)), -life))
    chosen = np.sort(order[: 3 * _MAX_TRACKS])
    rank = np.full(len(tracks), -1)
    rank[chosen] = np.where(life[chosen] > 0, np.arange(len(chosen)), -1)
    keep = use[frame] & (rank[number] >= 0)
    number, frame, xy = rank[number[keep]], frame[keep], xy[keep].astype(np.float64)
    y, x, inside = nearest_pixels(xy, height, width)
    inside &= masks[frame, y, x] == 0
    depth = depths[frame, y, x].astype(np.float64)
    weight = weight[keep].astype(np.float64).clip(1e-3)
    # A point needs a first guess, from depth somewhere, and two sightings to say anything.
    sightings = np.bincount(number, inside, minlength=len(chosen))
    deep = np.bincount(number, inside & (depth > 0), minlength=len(chosen))
    good = np.flatnonzero((sightings >= 2) & (deep >= 1))
    good = good[np.argsort(-sightings[good], kind="stable")][:_MAX_TRACKS]
    place = np.full(len(chosen), -1)
    place[good] = np.arange(len(good))
    keep = inside & (place[number] >= 0)
    point, frame, xy, depth = place[number[keep]], frame[keep], xy[keep], depth[keep]
    if len(good) < _MIN_TRACKS:
        return None
    world = unproject(cameras.intrinsics[frame], xy[:, None], depth[:, None])
    world = transform_points(cameras.world_from_cam[frame], world)[:, 0]
    points = np.zeros((len(good), 3))
    for axis in range(3):
        points[:, axis] = _median_by(world[depth > 0, axis], point[depth > 0], len(good))
    return _Observations(point, frame, xy, depth, weight[keep], points)


def _median_by(values: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """Return the (lower) median of the values of each group; every group has one."""
    order = np.lexsort((values, group))
    size = np.bincount(group, minlength=count)
    return values[order][np.cumsum(size) - size + (size - 1) // 2]


def _free(poses: bool, depth: bool) -> np.ndarray:
    free = np.zeros(8, bool)
    free[_POSE], free[_DEPTH] = poses, depth
    return free


class _Solver:
    """Robust Gauss-Newton over corrections [T, 8] (rotation, shift, scale, exponent) and points."""

    def __init__(
        self, seen: _Observations, cameras: Cameras, middle: float, free: np.ndarray
    ) -> None:
        self.seen = seen
        self.cameras = cameras
        self.middle = middle
        self.free = free
        self.unit = np.exp(middle)  # shifts are counted in median depths
        self.longer = max(cameras.width, cameras.height)
        self.points = seen.points.copy()
        self.correction = np.zeros((len(cameras), 8))
        self.log_depth = np.log(np.where(seen.depth > 0, seen.depth, 1.0)) - middle

    def median_pixels(self) -> float:
        offset = self._residuals()[0][:, :2]
        return float(np.median(np.linalg.norm(offset, axis=1)) * self.longer)

    def step(self) -> float:
        """Take one step and return how far the corrections moved, in prior deviations."""
        residual, camera, point = self._residuals()
        weight = self._weights(residual)
        jc = self._by_camera(camera)  # [O, 3, 8]
        jp = point  # [O, 3, 3]
        count, size = len(self.points), 8 * len(self.cameras)
        frame, number = self.seen.frame, self.seen.point
        weighted = jp * weight[..., None]
        v = np.zeros((count, 3, 3))
        np.add.at(v, number, np.einsum("oij,oik->ojk", weighted, jp))
        v += 1e-9 * np.eye(3) * (1 + np.trace(v, axis1=1, axis2=2))[:, None, None]
        g_point = np.zeros((count, 3))
        np.add.at(g_point, number, np.einsum("oij,oi->oj", weighted, residual))
        u = np.zeros((len(self.cameras), 8, 8))
        np.add.at(u, frame, np.einsum("oij,oi,oik->ojk", jc, weight, jc))
        g_camera = np.zeros((len(self.cameras), 8))
        np.add.at(g_camera, frame, np.einsum("oij,oi,oi->oj", jc, weight, residual))
        prior = 1 / _EXPECTED**2
        g_camera += prior * self.correction
        # w: how each camera and each point depend on one another, with the points whitened.
        half = np.linalg.inv(np.linalg.cholesky(v))  # half @ v @ half.T = 1
        block = np.einsum("oij,oi,oik,olk->ojl", jc, weight, jp, half[number])
        w = np.zeros((len(self.cameras), 8, count, 3))
        w[frame, :, number] = block
        w = w.reshape(size, 3 * count)
        right = np.einsum("nij,nj->ni", half, g_point).reshape(-1)
        system = -w @ w.T
        for f in range(len(self.cameras)):
            system[8 * f : 8 * f + 8, 8 * f : 8 * f + 8] += u[f] + np.diag(prior)
        gradient = g_camera.reshape(-1) - w @ right
        free = np.tile(self.free, len(self.cameras))
        change = np.zeros(size)
        change[free] = -np.linalg.solve(system[np.ix_(free, free)], gradient[free])
        whitened = -right - w.T @ change
        self.points += np.einsum("nji,nj->ni", half, whitened.reshape(count, 3))
        self.correction += change.reshape(-1, 8)
        return float(np.abs(change.reshape(-1, 8) / _EXPECTED).max())

    def _residuals(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return residuals [O, 3] (image over its longer side, log depth) and derivatives.

        The derivatives are those with respect to the point in the camera's frame [O, 3, 3], with
        the rotated point [O, 3] as a fourth row for the chain rule, and to the point in the world.
        """
        seen, k = self.seen, self.cameras.intrinsics[self.seen.frame]
        turn = _rotations(self.correction[:, :3])
        pose = self.cameras.cam_from_world
        rotation = turn @ pose[:, :3, :3]
        first = np.einsum("oij,oj->oi", pose[seen.frame, :3, :3], self.points[seen.point])
        turned = np.einsum("oij,oj->oi", turn[seen.frame], first + pose[seen.frame, :3, 3])
        here = turned + self.unit * self.correction[seen.frame, 3:6]
        z = np.maximum(here[:, 2], 1e-3 * self.unit)
        focal = k[:, [0, 1], [0, 1]] / self.longer
        projected = project(k, here[:, None])[:, 0]
        scale, power = self.correction[seen.frame, 6], 1 + self.correction[seen.frame, 7]
        deep = np.log(z) - self.middle - scale - power * self.log_depth
        residual = np.concatenate(
            [(projected - seen.xy) / self.longer, np.where(seen.depth > 0, deep, 0)[:, None]], 1
        )
        d_here = np.zeros((len(z), 3, 3))
        d_here[:, 0, 0], d_here[:, 1, 1] = focal[:, 0] / z, focal[:, 1] / z
        d_here[:, :2, 2] = -focal * here[:, :2] / z[:, None] ** 2
        d_here[:, 2, 2] = (seen.depth > 0) / z
        d_camera = np.concatenate([d_here, turned[:, None]], axis=1)  # [O, 4, 3]
        return residual, d_camera, d_here @ rotation[seen.frame]

    def _by_camera(self, camera: np.ndarray) -> np.ndarray:
        """Return the derivatives [O, 3, 8] with respect to a frame's corrections."""
        d_here, turned = camera[:, :3], camera[:, 3]
        known = self.seen.depth > 0
        jacobian = np.zeros((len(turned), 3, 8))
        # d exp(w) y / dw = -[y]x, so a row a of d_here gives -a [y]x = (y x a).
        jacobian[..., :3] = np.cross(turned[:, None], d_here)
        jacobian[..., 3:6] = self.unit * d_here
        jacobian[:, 2, 6] = -known.astype(float)
        jacobian[:, 2, 7] = np.where(known, -self.log_depth, 0)
        return jacobian

    def _weights(self, residual: np.ndarray) -> np.ndarray:
        """Return [O, 3]: confidence over variance, falling off for outliers as Cauchy's does."""
        seen = self.seen
        known = seen.depth > 0
        apart = np.linalg.norm(residual[:, :2], axis=1)
        deep = np.abs(residual[:, 2])
        # Medians of the length of a 2D normal (1.177) and of the absolute value of one (0.674).
        noise = max(float(np.median(apart)) / 1.177, _LEAST_NOISE[0])
        depth_noise = max(float(np.median(deep[known])) / 0.674, _LEAST_NOISE[1])
        image = seen.weight / noise**2 / (1 + (apart / (2 * noise)) ** 2)
        depth = seen.weight / depth_noise**2 / (1 + (deep / (2 * depth_noise)) ** 2)
        return np.stack([image, image, np.where(known, depth, 0)], axis=1)


def _rotations(rotvecs: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(rotvecs).as_matrix()


def _spread(correction: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill the corrections of frames that are not known from their neighbours in time."""
    if known.all() or not known.any():
        return correction if known.any() else np.zeros_like(correction)
    frames = np.arange(len(correction))
    index = frames[known]
    return np.stack([np.interp(frames, index, column[known]) for column in correction.T], axis=1)


def _corrected(cameras: Cameras, correction: np.ndarray, unit: float) -> Cameras:
    pose = cameras.cam_from_world.copy()
    turn = _rotations(correction[:, :3])
    pose[:, :3, :3] = turn @ pose[:, :3, :3]
    pose[:, :3, 3] = (turn @ pose[:, :3, 3, None])[..., 0] + unit * correction[:, 3:6]
    return Cameras(cameras.intrinsics, pose, cameras.width, cameras.height)
