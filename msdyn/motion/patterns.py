"""Shared motion patterns on levels that compose, outermost first.

Reference: Gaussian Sequences with Multi-Scale Dynamics, III-B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msdyn.motion.alignment import RigidMotion
from msdyn.scene import LiftedTracks

__all__ = ["MAX_PATTERNS", "MotionHierarchy", "PatternLevel", "carried", "residual_distance"]

# Patterns that a point may share on each level: objects, primitives, grains.
MAX_PATTERNS = (2, 4, 4)


@dataclass(frozen=True)
class PatternLevel:
    """The shared patterns of one level.

    Attributes:
        centres: [K, 3] pivots, canonical.
        rotations: [K, T, 3, 3].
        translations: [K, T, 3] about the pivots: x -> R (x - centre) + centre + t.
        parents: [K] index into the level above; zeros at the first level.
        labels: [N] pattern that each track was assigned to.
    """

    centres: np.ndarray
    rotations: np.ndarray
    translations: np.ndarray
    parents: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(
        cls, motions: list[RigidMotion], parents: Sequence[int], labels: np.ndarray, *, frames: int
    ) -> PatternLevel:
        """Return the level made of K motions, through `frames` frames, none of them if K is 0."""
        return cls(
            np.array([m.centre for m in motions]).reshape(-1, 3),
            np.array([m.rotations for m in motions]).reshape(-1, frames, 3, 3),
            np.array([m.translations for m in motions]).reshape(-1, frames, 3),
            np.array(parents, int),
            labels,
        )

    def __len__(self) -> int:
        return len(self.centres)

    def motion(self, index: int) -> RigidMotion:
        """Return one pattern."""
        return RigidMotion(self.centres[index], self.rotations[index], self.translations[index])


@dataclass(frozen=True)
class MotionHierarchy:
    """Motion patterns and the tracks they were made from.

    Attributes:
        levels: one to three levels; no level has a pattern where there is no moving object.
        points: [N, 3] canonical positions of the tracks.
        objects: [K1] the mask index (1..K) of each object.
        weights: [N, T] their confidence, zero where they are not visible and where they are taken
            for outliers.
        residuals: root mean square distance to the tracks where they have weight, scene units,
            before any level and after each: one more than there are levels.
        noise: estimated noise of a track coordinate, scene units.
        places: on each level, the number of patterns that a point may share.
    """

    levels: list[PatternLevel]
    points: np.ndarray
    objects: np.ndarray
    weights: np.ndarray
    residuals: list[float]
    noise: float
    places: tuple[int, ...] = MAX_PATTERNS

    def trajectories(self) -> np.ndarray:
        """Return where the composed levels have the tracks, [N, T, 3]."""
        return carried(self.levels, self.points, self.weights.shape[1])


def carried(levels: list[PatternLevel], points: np.ndarray, frames: int) -> np.ndarray:
    """Return where composed levels, outermost first, have points [N, 3] over time: [N, T, 3]."""
    moved = np.repeat(points[:, None], frames, axis=1)
    for level in reversed(levels):
        for number in range(len(level)):
            own = level.labels == number
            motion = level.motion(number)
            turned = np.einsum("tij,ntj->nti", motion.rotations, moved[own] - motion.centre)
            moved[own] = turned + motion.centre + motion.translations
    return moved


def residual_distance(
    levels: list[PatternLevel], points: np.ndarray, tracks: LiftedTracks, weights: np.ndarray
) -> float:
    """Return the RMS distance, scene units, of points moved by composed levels to their tracks.

    Args:
        levels: outermost first, each with a label for every track.
        points: [N, 3] canonical positions.
        tracks: where they were seen; 0 is returned where nothing was.
        weights: [N, T] zero for sightings that do not count.
    """
    if not weights.any():
        return 0.0
    moved = carried(levels, points, tracks.num_frames)
    error = (moved - tracks.xyz)[weights > 0]
    return float(np.sqrt((error**2).sum(-1).mean()))
