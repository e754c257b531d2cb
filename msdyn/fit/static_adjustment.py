"""Bundle adjustment on static tracks, with the depth maps as further observations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from msdyn.fit.depth_field import DepthResiduals, choose_smooth_error
from msdyn.fit.static_observations import StaticObservations
from msdyn.geometry import Cameras, project

__all__ = ["StaticAdjustment", "frame_rotations"]

# Prior standard deviations of the corrections: rotations (radians), translations (fraction of the
# median depth), logarithm of a depth map's scale, and its exponent.
_EXPECTED = np.array([0.01] * 3 + [0.01] * 3 + [0.05, 0.005])
_ITERATIONS = 12
# Alternations between the smooth errors of the depth maps and all else.
_ROUNDS = 2
# Points times frames whose equations are made at a time: some 100 MB.
_BLOCK = 150_000
# Rows or columns of the grid of smooth errors along the image's longer side.
_GRID = 24
# Lower bounds of the estimated noise: of positions (fraction of the longer side) and of log depth.
_MIN_NOISE = (1e-4, 1e-4)


class _Points(NamedTuple):
    """N points that are eliminated from the normal equations.

    Attributes:
        index: of the points.
        whitener: with which their blocks of the equations become identities.
        w: off-diagonal blocks of the equations, for whitened points.
        right: their part of the gradient, whitened.
    """

    index: Int[np.ndarray, " points"]
    whitener: Float[np.ndarray, "points 3 3"]
    w: Float[np.ndarray, "corrections whitened"]
    right: Float[np.ndarray, " whitened"]


class StaticAdjustment:
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
        self.blocks = _blocks(observations.point, max(1, _BLOCK // len(cameras)))

    def median_pixels(self) -> float:
        """Return the median reprojection error."""
        offset = self._residual()[:, :2]
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
            remaining = self._residual()[:, 2] + self.distortion
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
        weight = self._weights(self._residual())
        frames = len(self.cameras)
        size = 8 * frames
        u, g_camera = np.zeros((frames, 8, 8)), np.zeros((frames, 8))
        system, from_points = np.zeros((size, size)), np.zeros(size)
        parts: list[_Points] = []
        for rows in self.blocks:
            part = self._eliminate(rows, weight[rows], u, g_camera)
            system += -part.w @ part.w.T
            from_points += part.w @ part.right
            parts = [part]  # of several, only the last is kept
        prior = 1 / _EXPECTED**2
        g_camera += prior * self.correction
        for f in range(frames):
            system[8 * f : 8 * f + 8, 8 * f : 8 * f + 8] += u[f] + np.diag(prior)
        gradient = g_camera.reshape(-1) - from_points
        free = np.tile(self.free, frames)
        change = np.zeros(size)
        change[free] = -np.linalg.solve(system[np.ix_(free, free)], gradient[free])
        if len(self.blocks) > 1:
            rest = (self._eliminate(rows, weight[rows], u, g_camera) for rows in self.blocks)
        else:
            rest = iter(parts)
        for part in rest:
            whitened = (-part.right - part.w.T @ change).reshape(-1, 3)
            self.points[part.index] += np.einsum("nji,nj->ni", part.whitener, whitened)
        self.correction += change.reshape(-1, 8)
        return float(np.abs(change.reshape(-1, 8) / _EXPECTED).max())

    def _eliminate(
        self,
        rows: slice,
        weight: Float[np.ndarray, "observations 3"],
        u: Float[np.ndarray, "frames 8 8"],
        g_camera: Float[np.ndarray, "frames 8"],
    ) -> _Points:
        """Return the part of the normal equations of the points of some observations.

        Args:
            rows: all observations of these points.
            weight: of the residuals.
            u, g_camera: the part of the cameras and its gradient, to which theirs are added.
        """
        residual, d_camera, jp = self._residuals(rows)  # jp: [O, 3, 3]
        jc = self._camera_jacobian(rows, d_camera)  # [O, 3, 8]
        frame = self.observations.frame[rows]
        index, number = np.unique(self.observations.point[rows], return_inverse=True)
        count = len(index)
        weighted = jp * weight[..., None]
        v = np.zeros((count, 3, 3))
        np.add.at(v, number, np.einsum("oij,oik->ojk", weighted, jp))
        v += 1e-9 * np.eye(3) * (1 + np.trace(v, axis1=1, axis2=2))[:, None, None]
        g_point = np.zeros((count, 3))
        np.add.at(g_point, number, np.einsum("oij,oi->oj", weighted, residual))
        np.add.at(u, frame, np.einsum("oij,oi,oik->ojk", jc, weight, jc))
        np.add.at(g_camera, frame, np.einsum("oij,oi,oi->oj", jc, weight, residual))
        # w: off-diagonal blocks of the normal equations, with whitened points.
        whitener = np.linalg.inv(np.linalg.cholesky(v))  # whitener @ v @ whitener.T = 1
        block = np.einsum("oij,oi,oik,olk->ojl", jc, weight, jp, whitener[number])
        w = np.zeros((len(self.cameras), 8, count, 3))
        w[frame, :, number] = block
        right = np.einsum("nij,nj->ni", whitener, g_point).reshape(-1)
        return _Points(index, whitener, w.reshape(-1, 3 * count), right)

    def _residual(self) -> Float[np.ndarray, "observations 3"]:
        """Return all residuals: image position over the longer side, log depth."""
        return np.concatenate([self._residuals(rows)[0] for rows in self.blocks])

    def _residuals(
        self, rows: slice
    ) -> tuple[
        Float[np.ndarray, "observations 3"],
        Float[np.ndarray, "observations 4 3"],
        Float[np.ndarray, "observations 3 3"],
    ]:
        """Return residuals of some observations, and derivatives.

        The derivatives are those with respect to the point in camera coordinates [3, 3], with the
        rotated point [3] as a fourth row for the chain rule, and to the point in the world.
        """
        obs = self.observations.part(rows)
        k = self.cameras.intrinsics[obs.frame]
        delta = frame_rotations(self.correction[:, :3])
        pose = self.cameras.cam_from_world
        rotation = delta @ pose[:, :3, :3]
        first = np.einsum("oij,oj->oi", pose[obs.frame, :3, :3], self.points[obs.point])
        rotated = np.einsum("oij,oj->oi", delta[obs.frame], first + pose[obs.frame, :3, 3])
        xyz_cam = rotated + self.unit * self.correction[obs.frame, 3:6]
        z = np.maximum(xyz_cam[:, 2], 1e-3 * self.unit)
        focal = k[:, [0, 1], [0, 1]] / self.long_side
        projected = project(k, xyz_cam[:, None])[:, 0]
        scale, power = self.correction[obs.frame, 6], 1 + self.correction[obs.frame, 7]
        known = self.log_depth[rows]
        predicted = self.log_median + scale + power * known + self.distortion[rows]
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
        self, rows: slice, d_camera: Float[np.ndarray, "observations 4 3"]
    ) -> Float[np.ndarray, "observations 3 8"]:
        """Return the derivatives of the residuals with respect to a frame's corrections."""
        d_cam, rotated = d_camera[:, :3], d_camera[:, 3]
        known = self.observations.depth[rows] > 0
        jacobian = np.zeros((len(rotated), 3, 8))
        # d exp(w) y / dw = -[y]x, so a row a of d_cam gives -a [y]x = (y x a).
        jacobian[..., :3] = np.cross(rotated[:, None], d_cam)
        jacobian[..., 3:6] = self.unit * d_cam
        jacobian[:, 2, 6] = -known.astype(float)
        jacobian[:, 2, 7] = np.where(known, -self.log_depth[rows], 0)
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


def _blocks(point: Int[np.ndarray, " observations"], most: int) -> list[slice]:
    """Return ranges of observations, sorted by point, with at most so many points each."""
    begins = np.flatnonzero(np.diff(point, prepend=-1))[::most]
    return [slice(a, b) for a, b in zip(begins, [*begins[1:], len(point)], strict=True)]


def frame_rotations(rotvecs: Float[np.ndarray, "frames 3"]) -> Float[np.ndarray, "frames 3 3"]:
    """Return the rotations of rotation vectors, radians."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(rotvecs).as_matrix()
