"""Refinement of cameras and depth on static tracks, before the fit.

Estimated or recorded poses have errors of about a pixel, and the scale of depth drifts between
frames. Both blur the background and corrupt the lifted motion. Static tracks constrain them: a
static point must project to its track in every frame, at the depth measured there. This is bundle
adjustment with the depth maps as further observations: Gauss-Newton over the poses, two depth
parameters per frame, and the points, which are eliminated (Schur complement). Weak priors on the
corrections fix the gauge. What remains between the depth maps and the points is corrected by a
smooth function of the image position (`depth_field.py`), in alternation with the adjustment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from msdyn.fit.depth_field import DepthResiduals, choose_smooth_error
from msdyn.fit.static_observations import MIN_TRACKS, StaticObservations, observe_static_tracks
from msdyn.geometry import Cameras, project
from msdyn.scene import Tracks

__all__ = ["Refinement", "adjust_depth", "refine_on_static_tracks"]

# Prior standard deviations of the corrections: rotations (radians), translations (fraction of the
# median depth), logarithm of a depth map's scale, and its exponent.
_EXPECTED = np.array([0.01] * 3 + [0.01] * 3 + [0.05, 0.005])
_POSE, _DEPTH = slice(0, 6), slice(6, 8)
_ITERATIONS = 12
# Alternations between the smooth errors of the depth maps and all else.
_ROUNDS = 2
# Rows or columns of the grid of smooth errors along the image's longer side.
_GRID = 24
# Lower bounds of the estimated noise: of positions (fraction of the longer side) and of log depth.
_MIN_NOISE = (1e-4, 1e-4)


@dataclass(frozen=True)
class Refinement:
    """Corrections of each frame's pose and depth.

    Attributes:
        cameras: refined, in the world of the input cameras.
        log_scale, exponent: [T] per frame; the corrected depth is
            exp(log_median + log_scale + distortion) * (depth / exp(log_median)) ** (1 + exponent).
        log_median: logarithm of the median depth.
        distortion: [T, rows, columns] on a grid of cells over the image; None if there is none.
        tracks: number of static tracks used; 0 if there were too few and nothing was changed.
        pixels_before, pixels_after: median reprojection error.
    """

    cameras: Cameras
    log_scale: Float[np.ndarray, " frames"]
    exponent: Float[np.ndarray, " frames"]
    log_median: float
    distortion: Float[np.ndarray, "frames rows columns"] | None = None
    tracks: int = 0
    pixels_before: float = 0.0
    pixels_after: float = 0.0

    def summary(self, input_cameras: Cameras) -> dict[str, float]:
        """Return the magnitude of the corrections, relative to the input cameras."""
        relative = self.cameras.cam_from_world[:, :3, :3] @ input_cameras.world_from_cam[:, :3, :3]
        cosine = ((np.trace(relative, axis1=1, axis2=2) - 1) / 2).clip(-1, 1)
        moved = np.linalg.norm(self.cameras.centres - input_cameras.centres, axis=1)
        return {
            "tracks": self.tracks,
            "pixels_before": self.pixels_before,
            "pixels_after": self.pixels_after,
            "degrees": float(np.degrees(np.arccos(cosine)).mean()),
            "shift": float(moved.mean()),
            "shift_share_of_depth": float(moved.mean() / np.exp(self.log_median)),
            "depth_scale_min": float(np.exp(self.log_scale.min())),
            "depth_scale_max": float(np.exp(self.log_scale.max())),
            "depth_distortion": 0.0 if self.distortion is None else float(self.distortion.std()),
        }


def adjust_depth(
    depth: Float[np.ndarray, "height width"], refinement: Refinement, frame: int
) -> Float[np.ndarray, "height width"]:
    """Return the corrected depth map of a frame; unknown pixels (0) stay unknown."""
    log_scale, exponent = refinement.log_scale[frame], refinement.exponent[frame]
    if not (log_scale or exponent or refinement.distortion is not None):
        return depth
    known = depth > 0
    relative = np.log(np.where(known, depth, 1.0)) - refinement.log_median
    log_depth = refinement.log_median + log_scale + (1 + exponent) * relative
    if refinement.distortion is not None:
        log_depth += _resized(refinement.distortion[frame], depth.shape)
    return np.where(known, np.exp(log_depth), 0.0).astype(depth.dtype)


def _resized(
    cells: Float[np.ndarray, "rows columns"], shape: tuple[int, ...]
) -> Float[np.ndarray, "height width"]:
    """Interpolate values at the centres of cells to all pixels."""
    import torch

    values = torch.from_numpy(cells)[None, None]
    return torch.nn.functional.interpolate(values, shape, mode="bicubic")[0, 0].numpy()


def refine_on_static_tracks(
    tracks: Tracks,
    depths: Float[np.ndarray, "clip height width"],
    masks: UInt8[np.ndarray, "clip height width"],
    cameras: Cameras,
    frames: Int[np.ndarray, " frames"],
    *,
    poses: bool = True,
    depth: bool = True,
    seed: int = 0,
) -> Refinement:
    """Refine poses and depth scales on the static tracks of a scene.

    Args:
        tracks: of the whole clip; only observations of static tracks (object 0) on static pixels
            (mask 0) are used.
        depths: [T, H, W] z-depth, 0 unknown.
        masks: [T, H, W] object index.
        cameras: one per frame.
        frames: frames whose tracks are used; the corrections of others are interpolated.
        poses: whether to refine the poses.
        depth: whether to refine the depth of each frame.
        seed: of the selection of tracks.

    Returns:
        The corrections; unchanged if there are fewer than `MIN_TRACKS` usable tracks.
    """
    observations = observe_static_tracks(tracks, depths, masks, cameras, frames, seed)
    known = depths[depths > 0]
    log_median = float(np.log(np.median(known))) if known.size else 0.0
    count = len(cameras)
    unchanged = Refinement(cameras, np.zeros(count), np.zeros(count), log_median)
    if observations is None or not (poses or depth):
        return unchanged
    solver = _Solver(observations, cameras, log_median, free=_free(poses, depth))
    before = solver.median_pixels()
    solver.solve()
    distortion = solver.solve_distortion() if depth else None
    visible = np.bincount(observations.frame, minlength=count)
    correction = _interpolate_missing(solver.correction, visible >= MIN_TRACKS)
    return Refinement(
        _corrected(cameras, correction, solver.unit),
        correction[:, 6],
        correction[:, 7],
        log_median,
        distortion,
        len(observations.points),
        before,
        solver.median_pixels(),
    )


def _free(poses: bool, depth: bool) -> Bool[np.ndarray, " 8"]:
    """Return which of a frame's corrections are free parameters."""
    free = np.zeros(8, bool)
    free[_POSE], free[_DEPTH] = poses, depth
    return free


class _Solver:
    """Robust Gauss-Newton over corrections [T, 8] and points [N, 3].

    The corrections of a frame are rotation vector, translation, log scale and exponent.
    """

    def __init__(
        self,
        observations: StaticObservations,
        cameras: Cameras,
        log_median: float,
        free: Bool[np.ndarray, " 8"],
    ) -> None:
        self.observations = observations
        self.cameras = cameras
        self.log_median = log_median
        self.free = free
        self.unit = np.exp(log_median)  # translations are in units of the median depth
        self.long_side = max(cameras.width, cameras.height)
        self.points = observations.points.copy()
        self.correction = np.zeros((len(cameras), 8))
        depth = observations.depth
        self.log_depth = np.log(np.where(depth > 0, depth, 1.0)) - log_median
        self.distortion = np.zeros(len(depth))

    def median_pixels(self) -> float:
        """Return the median reprojection error."""
        offset = self._residuals()[0][:, :2]
        return float(np.median(np.linalg.norm(offset, axis=1)) * self.long_side)

    def solve(self) -> None:
        """Take steps until they are small."""
        for _ in range(_ITERATIONS):
            if self.step() < 1e-3:
                return

    def solve_distortion(self) -> Float[np.ndarray, "frames rows columns"] | None:
        """Alternate between the smooth errors of depth and all else; None if there are none.

        Returns:
            The logarithms of the corrections at the centres of the cells of a grid.
        """
        obs = self.observations
        xy = obs.xy / self.long_side
        known = np.flatnonzero(obs.depth > 0)
        model, cells = None, None
        for _ in range(_ROUNDS):
            remaining = self._residuals()[0][:, 2] + self.distortion
            every = DepthResiduals(obs.frame, obs.point, xy, remaining).select(known)
            model = model or choose_smooth_error(every)
            if not model.amplitude:
                return None
            grid = self._grid()
            cells = np.zeros((len(self.cameras), *grid.shape[:2]))
            for frame, given in every.by_frame():
                cells[frame] = model.predict(given, grid.reshape(-1, 2)).reshape(grid.shape[:2])
                own = obs.frame == frame
                self.distortion[own] = model.predict(given, xy[own])
            self.solve()
        return cells

    def _grid(self) -> Float[np.ndarray, "rows columns 2"]:
        """Return the centres of cells over the image, as fractions of its longer side."""
        size = np.array([self.cameras.width, self.cameras.height]) / self.long_side
        columns, rows = np.maximum(1, (_GRID * size).round().astype(int))
        x, y = (np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows
        return np.stack(np.meshgrid(x * size[0], y * size[1]), axis=-1)

    def step(self) -> float:
        """Take one step and return the largest change, in prior standard deviations."""
        residual, d_camera, jp = self._residuals()  # jp: [O, 3, 3]
        weight = self._weights(residual)
        jc = self._camera_jacobian(d_camera)  # [O, 3, 8]
        count, size = len(self.points), 8 * len(self.cameras)
        frame, number = self.observations.frame, self.observations.point
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
        # w: off-diagonal blocks of the normal equations, with whitened points.
        whitener = np.linalg.inv(np.linalg.cholesky(v))  # whitener @ v @ whitener.T = 1
        block = np.einsum("oij,oi,oik,olk->ojl", jc, weight, jp, whitener[number])
        w = np.zeros((len(self.cameras), 8, count, 3))
        w[frame, :, number] = block
        w = w.reshape(size, 3 * count)
        right = np.einsum("nij,nj->ni", whitener, g_point).reshape(-1)
        system = -w @ w.T
        for f in range(len(self.cameras)):
            system[8 * f : 8 * f + 8, 8 * f : 8 * f + 8] += u[f] + np.diag(prior)
        gradient = g_camera.reshape(-1) - w @ right
        free = np.tile(self.free, len(self.cameras))
        change = np.zeros(size)
        change[free] = -np.linalg.solve(system[np.ix_(free, free)], gradient[free])
        whitened = -right - w.T @ change
        self.points += np.einsum("nji,nj->ni", whitener, whitened.reshape(count, 3))
        self.correction += change.reshape(-1, 8)
        return float(np.abs(change.reshape(-1, 8) / _EXPECTED).max())

    def _residuals(
        self,
    ) -> tuple[
        Float[np.ndarray, "observations 3"],
        Float[np.ndarray, "observations 4 3"],
        Float[np.ndarray, "observations 3 3"],
    ]:
        """Return residuals (image position over the longer side, log depth) and derivatives.

        The derivatives are those with respect to the point in camera coordinates [3, 3], with the
        rotated point [3] as a fourth row for the chain rule, and to the point in the world.
        """
        obs = self.observations
        k = self.cameras.intrinsics[obs.frame]
        delta = _rotations(self.correction[:, :3])
        pose = self.cameras.cam_from_world
        rotation = delta @ pose[:, :3, :3]
        first = np.einsum("oij,oj->oi", pose[obs.frame, :3, :3], self.points[obs.point])
        rotated = np.einsum("oij,oj->oi", delta[obs.frame], first + pose[obs.frame, :3, 3])
        xyz_cam = rotated + self.unit * self.correction[obs.frame, 3:6]
        z = np.maximum(xyz_cam[:, 2], 1e-3 * self.unit)
        focal = k[:, [0, 1], [0, 1]] / self.long_side
        projected = project(k, xyz_cam[:, None])[:, 0]
        scale, power = self.correction[obs.frame, 6], 1 + self.correction[obs.frame, 7]
        predicted = self.log_median + scale + power * self.log_depth + self.distortion
        depth_residual = np.log(z) - predicted
        residual = np.concatenate(
            [
                (projected - obs.xy) / self.long_side,
                np.where(obs.depth > 0, depth_residual, 0)[:, None],
            ],
            1,
        )
        d_cam = np.zeros((len(z), 3, 3))
        d_cam[:, 0, 0], d_cam[:, 1, 1] = focal[:, 0] / z, focal[:, 1] / z
        d_cam[:, :2, 2] = -focal * xyz_cam[:, :2] / z[:, None] ** 2
        d_cam[:, 2, 2] = (obs.depth > 0) / z
        d_camera = np.concatenate([d_cam, rotated[:, None]], axis=1)  # [O, 4, 3]
        return residual, d_camera, d_cam @ rotation[obs.frame]

    def _camera_jacobian(
        self, d_camera: Float[np.ndarray, "observations 4 3"]
    ) -> Float[np.ndarray, "observations 3 8"]:
        """Return the derivatives of the residuals with respect to a frame's corrections."""
        d_cam, rotated = d_camera[:, :3], d_camera[:, 3]
        known = self.observations.depth > 0
        jacobian = np.zeros((len(rotated), 3, 8))
        # d exp(w) y / dw = -[y]x, so a row a of d_cam gives -a [y]x = (y x a).
        jacobian[..., :3] = np.cross(rotated[:, None], d_cam)
        jacobian[..., 3:6] = self.unit * d_cam
        jacobian[:, 2, 6] = -known.astype(float)
        jacobian[:, 2, 7] = np.where(known, -self.log_depth, 0)
        return jacobian

    def _weights(
        self, residual: Float[np.ndarray, "observations 3"]
    ) -> Float[np.ndarray, "observations 3"]:
        """Return robust weights: confidence over variance, times Cauchy's weight function."""
        obs = self.observations
        known = obs.depth > 0
        distance = np.linalg.norm(residual[:, :2], axis=1)
        depth_error = np.abs(residual[:, 2])
        # Medians of the norm of a standard normal vector: 1.177 in 2D, 0.674 in 1D.
        noise = max(float(np.median(distance)) / 1.177, _MIN_NOISE[0])
        depth_noise = max(float(np.median(depth_error[known])) / 0.674, _MIN_NOISE[1])
        image = obs.weight / noise**2 / (1 + (distance / (2 * noise)) ** 2)
        depth = obs.weight / depth_noise**2 / (1 + (depth_error / (2 * depth_noise)) ** 2)
        return np.stack([image, image, np.where(known, depth, 0)], axis=1)


def _rotations(rotvecs: Float[np.ndarray, "frames 3"]) -> Float[np.ndarray, "frames 3 3"]:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(rotvecs).as_matrix()


def _interpolate_missing(
    correction: Float[np.ndarray, "frames 8"], known: Bool[np.ndarray, " frames"]
) -> Float[np.ndarray, "frames 8"]:
    """Interpolate the corrections of unknown frames over time."""
    if known.all() or not known.any():
        return correction if known.any() else np.zeros_like(correction)
    frames = np.arange(len(correction))
    index = frames[known]
    return np.stack([np.interp(frames, index, column[known]) for column in correction.T], axis=1)


def _corrected(cameras: Cameras, correction: Float[np.ndarray, "frames 8"], unit: float) -> Cameras:
    """Apply corrections of the poses, with translations in multiples of `unit`."""
    pose = cameras.cam_from_world.copy()
    delta = _rotations(correction[:, :3])
    pose[:, :3, :3] = delta @ pose[:, :3, :3]
    pose[:, :3, 3] = (delta @ pose[:, :3, 3, None])[..., 0] + unit * correction[:, 3:6]
    return Cameras(cameras.intrinsics, pose, cameras.width, cameras.height)
