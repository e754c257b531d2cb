"""Joint refinement of all levels of a hierarchy on the tracks, by Gauss-Newton.

The builder aligns one cluster in one frame at a time, given the levels above. What a frame does not
determine, such as the pose of a part that another one hides, is then that of the level above, which
follows whatever is visible. Here the poses of all levels in all frames are estimated together: the
most probable ones, given the tracks and how strongly each pattern accelerates. A hidden part goes
on as it moved, and a level above does not jump where another part of it comes into view.

The unknowns are, in turn, the poses of an object and of its primitives together, those of each
grain, and the canonical positions. Poses of successive frames are coupled by the prior only, so
that the normal equations are banded (`smooth_poses.py`).

How strong the prior is, is found by hiding: observations of each primitive in runs of frames in
which it is seen are left out, and the strength that predicts them best is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from msdyn.motion.alignment import MIN_TRACKS
from msdyn.motion.patterns import (
    EXPECTED_ANGLE,
    EXPECTED_SHIFT,
    MotionHierarchy,
    residual_distance,
)
from msdyn.motion.smooth_poses import SmoothPoses, cross_matrices, solve_over_time
from msdyn.progress import track
from msdyn.reading import row_slices
from msdyn.scene import LiftedTracks

__all__ = ["refine_levels"]

# Errors along the viewing ray count by this factor: depth is less accurate than image position.
_ALONG_RAY = 0.25
_ROUNDS = 12
# Strengths of the prior that are tried, as factors of the measured accelerations, and rounds.
_FACTORS = (1.0, 0.3, 0.1, 0.03, 0.01)
_TRIAL_ROUNDS = 5
# Hidden runs: a share of the clip, within limits, and how far apart, in lengths of a run.
_HIDDEN, _HIDDEN_FRAMES, _APART = 1 / 8, (2, 8), 2.5
# An error that halves an observation's weight, in standard deviations.
_DOUBTFUL = 3.0
# Least noise of an observation, sizes of the object: exact tracks would hold all that they do not
# determine too, by the limits of precision.
_LEAST_NOISE = 1e-4
# Median length of a standard normal vector in 3D.
_MEDIAN_LENGTH = 1.54


def refine_levels(
    hierarchy: MotionHierarchy,
    tracks: LiftedTracks,
    centres: Float[np.ndarray, "frames 3"],
    times: Float[np.ndarray, " frames"],
    seed: int = 0,
) -> MotionHierarchy:
    """Return a hierarchy whose poses and canonical positions agree best with the tracks.

    Args:
        hierarchy: of the tracks.
        tracks: all observations; those without weight in the hierarchy do not count.
        centres: of the camera in each frame, scene units.
        times: of the frames, increasing.
        seed: of the choice of hidden observations.
    """
    if len(times) < 2 * _HIDDEN_FRAMES[0] + 1:
        return hierarchy
    abouts = [level.about for level in hierarchy.levels]
    rotations = [about.rotation.copy() for about in abouts]
    translations = [about.translation.copy() for about in abouts]
    points = hierarchy.points.copy()
    for number in track(range(len(hierarchy.levels[0])), "motion of all levels", unit="object"):
        index = np.flatnonzero(hierarchy.levels[0].labels == number)
        if len(index) < MIN_TRACKS:
            continue
        patterns = _patterns_of(hierarchy, number)
        size = max(float(np.sqrt(points[index].var(0).sum())), 1e-6)
        levels, labels = [], []
        for depth, own in enumerate(patterns):
            levels.append(
                SmoothPoses(
                    hierarchy.levels[depth].centres[own],
                    rotations[depth][own],
                    translations[depth][own],
                    times,
                    EXPECTED_ANGLE.get(depth + 1, np.inf),
                    EXPECTED_SHIFT.get(depth + 1, np.inf) * size,
                )
            )
            labels.append(np.searchsorted(own, hierarchy.levels[depth].labels[index]))
        body = _Body.of(
            levels, labels, points[index], tracks.xyz[index], hierarchy.weights[index], centres
        )
        body.measure(hierarchy.noise)
        refined = _refined(body, np.random.default_rng([seed, number]))
        for depth, own in enumerate(patterns):
            rotations[depth][own] = refined.levels[depth].rotations
            translations[depth][own] = refined.levels[depth].translations
        points[index] = refined.points
    levels = [
        replace(level, about=type(level.about)(*poses))
        for level, *poses in zip(hierarchy.levels, rotations, translations, strict=True)
    ]
    residuals = [
        residual_distance(levels[:depth], points, tracks, hierarchy.weights)
        for depth in range(len(levels) + 1)
    ]
    return replace(hierarchy, levels=levels, points=points, residuals=residuals)


def _patterns_of(hierarchy: MotionHierarchy, number: int) -> list[Int[np.ndarray, " _"]]:
    """Return the indices, on each level, of the patterns of an object."""
    patterns = [np.array([number])]
    for level in hierarchy.levels[1:]:
        own = np.flatnonzero(np.isin(level.parents, patterns[-1]))
        if not len(own):
            break
        patterns.append(own)
    return patterns


def _refined(body: _Body, rng: np.random.Generator) -> _Body:
    """Return a body refined with the strength of the prior that predicts hidden tracks best."""
    hidden = body.hidden_runs(rng)
    factor = 1.0
    if hidden.any():
        errors = []
        for tried in _FACTORS:
            trial = body.with_prior(tried, np.where(hidden, 0.0, body.weights))
            for _ in range(_TRIAL_ROUNDS):
                trial.step_upper()
            errors.append(trial.errors()[1][hidden].mean())
        factor = _FACTORS[int(np.argmin(errors))]
    result = body.with_prior(factor, body.weights)
    for _ in range(_ROUNDS):
        result.step_upper()
        result.step_grains()
        result.step_points()
    return result


@dataclass
class _Body:
    """An object: its patterns, and the tracks on it; changed in place.

    Attributes:
        levels: one to three.
        labels: of each level, the pattern of each track.
        points: canonical positions, scene units.
        xyz: observed positions.
        weights: confidence, zero where not visible and for outliers.
        rays: unit vectors from the camera to the observations.
        size: of the object, scene units.
    """

    levels: list[SmoothPoses]
    labels: list[Int[np.ndarray, " tracks"]]
    points: Float[np.ndarray, "tracks 3"]
    xyz: Float[np.ndarray, "tracks frames 3"]
    weights: Float[np.ndarray, "tracks frames"]
    rays: Float[np.ndarray, "tracks frames 3"]
    size: float

    @classmethod
    def of(
        cls,
        levels: list[SmoothPoses],
        labels: list[Int[np.ndarray, " tracks"]],
        points: Float[np.ndarray, "tracks 3"],
        xyz: Float[np.ndarray, "tracks frames 3"],
        weights: Float[np.ndarray, "tracks frames"],
        centres: Float[np.ndarray, "frames 3"],
    ) -> _Body:
        """Return a body whose rays come from the camera centres."""
        size = max(float(np.sqrt(points.var(0).sum())), 1e-6)
        rays = xyz - centres
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True).clip(1e-12)
        return cls(levels, labels, points, xyz, weights, rays, size)

    def with_prior(self, factor: float, weights: Float[np.ndarray, "tracks frames"]) -> _Body:
        """Return a copy with accelerations times a factor, and other weights."""
        levels = [level.copy() for level in self.levels]
        for level in levels:
            level.acceleration *= factor
        return replace(self, levels=levels, points=self.points.copy(), weights=weights)

    def members(self, depth: int) -> Iterator[tuple[int, Int[np.ndarray, " _"]]]:
        """Yield the patterns of a level that have tracks, and these."""
        for pattern in range(len(self.levels[depth])):
            own = np.flatnonzero(self.labels[depth] == pattern)
            if len(own):
                yield pattern, own

    def below(self, depth: int) -> Float[np.ndarray, "tracks frames 3"]:
        """Return the tracks as moved by the levels below one; below -1 is the world."""
        moved = np.repeat(self.points[:, None], self.weights.shape[1], axis=1)
        for level in range(len(self.levels) - 1, depth, -1):
            for pattern, own in self.members(level):
                moved[own] = self.levels[level].apply(pattern, moved[own])
        return moved

    def errors(
        self,
    ) -> tuple[Float[np.ndarray, "tracks frames 3"], Float[np.ndarray, "tracks frames"]]:
        """Return the errors of the tracks, and their lengths with those along the ray reduced."""
        error = self.below(-1) - self.xyz
        along = (error * self.rays).sum(-1)
        squared = (error**2).sum(-1) - (1 - _ALONG_RAY**2) * along**2
        return error, np.sqrt(squared.clip(0))

    def robust_weights(
        self, distance: Float[np.ndarray, "tracks frames"]
    ) -> Float[np.ndarray, "tracks frames"]:
        """Return inverse variances of the observations, less where the error is large."""
        median = float(np.median(distance[self.weights > 0]))
        noise = max(median / _MEDIAN_LENGTH, _LEAST_NOISE * self.size)
        return self.weights / (1 + (distance / (_DOUBTFUL * noise)) ** 2) / noise**2

    def measure(self, noise: float) -> None:
        """Measure the accelerations of all patterns, given the noise of a track's coordinate."""
        seen = self.weights > 0
        for depth, level in enumerate(self.levels):
            below = self.below(depth)
            for pattern in range(len(level)):
                own = self.labels[depth] == pattern
                level.measure(pattern, below[own], seen[own], self.size, noise)

    def hidden_runs(self, rng: np.random.Generator) -> Bool[np.ndarray, "tracks frames"]:
        """Return observations to hide: those of each primitive in runs in which it is well seen."""
        frames = self.weights.shape[1]
        length = int(np.clip(frames * _HIDDEN, *_HIDDEN_FRAMES))
        hidden = np.zeros(self.weights.shape, bool)
        for _, own in self.members(min(1, len(self.levels) - 1)):
            count = (self.weights[own] > 0).sum(0)
            good = count >= max(0.5 * count.max(), 1)
            taken: list[int] = []
            for start in rng.permutation(frames - length + 1).tolist():
                apart = all(abs(start - other) >= _APART * length for other in taken)
                if apart and good[start : start + length].all():
                    taken.append(start)
                    hidden[own, start : start + length] = True
        return hidden & (self.weights > 0)

    def step_upper(self) -> None:
        """Improve the poses of the object and its primitives, by one step of Gauss-Newton."""
        error, distance = self.errors()
        weights = self.robust_weights(distance)
        top, depth = self.levels[0], len(self.levels)
        patterns = [(top, 0)]
        if depth > 1:
            patterns += [(self.levels[1], pattern) for pattern in range(len(self.levels[1]))]
        frames, size = weights.shape[1], 6 * len(patterns)
        blocks, right = np.zeros((frames, size, size)), np.zeros((frames, size))
        below = self.below(min(1, depth - 1))
        for pattern, own in self.members(min(1, depth - 1)):
            places = np.arange(6)
            if depth > 1:
                places = np.concatenate([places, 6 + 6 * pattern + places])
            for rows in self._blocks(own):
                if depth > 1:
                    inner = self.levels[1].rotated(pattern, below[rows])
                    middle = self.levels[1].apply(pattern, below[rows])
                    jacobian = _jacobian(top.rotated(0, middle), None)
                    jacobian = np.concatenate([jacobian, _jacobian(inner, top.rotations[0])], -1)
                else:
                    jacobian = _jacobian(top.rotated(0, below[rows]), None)
                self._add(blocks, right, places, jacobian, rows, error, weights)
        self._solve(patterns, blocks, right)

    def step_grains(self) -> None:
        """Improve the poses of the grains, if there are any, by one step of Gauss-Newton."""
        if len(self.levels) < 3:
            return
        error, distance = self.errors()
        weights = self.robust_weights(distance)
        frames, grains = weights.shape[1], self.levels[2]
        for grain, own in self.members(2):
            above = self.levels[0].rotations[0] @ self.levels[1].rotations[self.labels[1][own[0]]]
            blocks, right = np.zeros((frames, 6, 6)), np.zeros((frames, 6))
            for rows in self._blocks(own):
                still = np.repeat(self.points[rows, None], frames, axis=1)
                jacobian = _jacobian(grains.rotated(grain, still), above)
                self._add(blocks, right, np.arange(6), jacobian, rows, error, weights)
            self._solve([(grains, grain)], blocks, right)

    def step_points(self) -> None:
        """Set the canonical positions to the means of the observations with the motion undone."""
        weights = self.robust_weights(self.errors()[1])
        undone = self.xyz.copy()
        for depth, level in enumerate(self.levels):
            for pattern, own in self.members(depth):
                undone[own] = level.undo(pattern, undone[own])
        total = weights.sum(1)
        mean = np.einsum("nt,ntj->nj", weights, undone) / total.clip(1e-300)[:, None]
        self.points = np.where(total[:, None] > 0, mean, self.points)

    def _blocks(self, own: Int[np.ndarray, " _"]) -> Iterator[Int[np.ndarray, " _"]]:
        """Yield the tracks in blocks whose derivatives do not take much memory."""
        for rows in row_slices((len(own), self.weights.shape[1], 36), np.dtype(float)):
            yield own[rows]

    def _add(
        self,
        blocks: Float[np.ndarray, "frames unknowns unknowns"],
        right: Float[np.ndarray, "frames unknowns"],
        places: Int[np.ndarray, " own"],
        jacobian: Float[np.ndarray, "rows frames 3 own"],
        rows: Int[np.ndarray, " rows"],
        error: Float[np.ndarray, "tracks frames 3"],
        weights: Float[np.ndarray, "tracks frames"],
    ) -> None:
        """Add observations to normal equations, errors along the rays counting less."""
        root = np.sqrt(weights[rows])[..., None]
        ray, error = self.rays[rows], error[rows]
        less = (1 - _ALONG_RAY) * ray
        along = (ray[..., None, :] @ jacobian)[..., 0, :]
        jacobian = root[..., None] * (jacobian - less[..., None] * along[..., None, :])
        error = root * (error - less * (error * ray).sum(-1, keepdims=True))
        frames = error.shape[1]
        flat = jacobian.transpose(1, 0, 2, 3).reshape(frames, -1, jacobian.shape[-1])
        blocks[:, places[:, None], places] += flat.swapaxes(1, 2) @ flat
        errors = error.transpose(1, 0, 2).reshape(frames, -1, 1)
        right[:, places] -= (flat.swapaxes(1, 2) @ errors)[..., 0]

    def _solve(
        self,
        patterns: list[tuple[SmoothPoses, int]],
        blocks: Float[np.ndarray, "frames unknowns unknowns"],
        right: Float[np.ndarray, "frames unknowns"],
    ) -> None:
        """Add the prior of the patterns, solve for their changes, and apply these."""
        smooth, own = np.empty(right.shape[1]), np.empty(right.shape[1])
        for place, (level, pattern) in enumerate(patterns):
            columns = slice(6 * place, 6 * place + 6)
            smooth[columns], own[columns] = level.precision(pattern)
            right[:, columns] -= level.prior_gradient(pattern)
        change = solve_over_time(blocks, right, smooth, own, self.levels[0].times)
        for place, (level, pattern) in enumerate(patterns):
            level.step(pattern, change[:, 6 * place : 6 * place + 6])


def _jacobian(
    offsets: Float[np.ndarray, "points frames 3"],
    above: Float[np.ndarray, "frames 3 3"] | None,
) -> Float[np.ndarray, "points frames 3 6"]:
    """Return the derivatives of positions by a rotation and a translation of a level.

    Args:
        offsets: from the pivot, rotated.
        above: rotations of the levels above; None at the first.
    """
    if above is None:
        by_rotation = -cross_matrices(offsets)
        by_translation = np.broadcast_to(np.eye(3), by_rotation.shape)
    else:
        by_rotation = above @ -cross_matrices(offsets)
        by_translation = np.broadcast_to(above, by_rotation.shape)
    return np.concatenate([by_rotation, by_translation], axis=-1)
