"""Shared motion patterns on levels that compose, outermost first.

Reference: Gaussian Sequences with Multi-Scale Dynamics, III-B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from msdyn.geometry import Rigid
from msdyn.motion.alignment import RigidMotion
from msdyn.reading import row_slices
from msdyn.scene import LiftedTracks

__all__ = [
    "EXPECTED_ANGLE",
    "EXPECTED_SHIFT",
    "MAX_PATTERNS",
    "MotionHierarchy",
    "PatternLevel",
    "residual_distance",
    "transform_points_by_levels",
]

EXPECTED_ANGLE = {2: 0.5, 3: 0.2}
EXPECTED_SHIFT = {2: 0.3, 3: 0.1}
"""Prior standard deviations of the patterns of residual levels: rotation, radians, and translation,
as a share of the object's size. Without noise they have no effect; with noise they prevent
rotations that are estimated from few tracks."""

# Maximum number of patterns blended for a point on each level: objects, primitives, grains.
MAX_PATTERNS = (2, 4, 4)


@dataclass(frozen=True)
class PatternLevel:
    """The shared patterns of one level.

    Attributes:
        centres: [K, 3] pivots, canonical, scene units.
        about: [K, T] rotations and translations about the pivots, relative to the level above.
        parents: [K] index into the level above; zeros at the first level.
        labels: [N] pattern to which each track was assigned.
    """

    centres: Float[np.ndarray, "patterns 3"]
    about: Rigid[np.ndarray]
    parents: Int[np.ndarray, " patterns"]
    labels: Int[np.ndarray, " tracks"]

    @classmethod
    def from_motions(
        cls,
        motions: list[RigidMotion],
        parents: Sequence[int],
        labels: Int[np.ndarray, " tracks"],
        *,
        frames: int,
    ) -> PatternLevel:
        """Return the level of K motions over `frames` frames; K may be 0."""
        return cls(
            np.array([m.centre for m in motions]).reshape(-1, 3),
            Rigid(
                np.array([m.rotations for m in motions]).reshape(-1, frames, 3, 3),
                np.array([m.translations for m in motions]).reshape(-1, frames, 3),
            ),
            np.array(parents, int),
            labels,
        )

    def __len__(self) -> int:
        return len(self.centres)

    def motion(self, index: int) -> RigidMotion:
        """Return one pattern."""
        return RigidMotion(self.centres[index], self.about[index])


@dataclass(frozen=True)
class MotionHierarchy:
    """Motion patterns and the tracks they were estimated from.

    Attributes:
        levels: one to three levels, outermost first; without patterns if there is no moving object.
        points: [N, 3] canonical positions of the tracks.
        objects: [K1] the mask index (1..K) of each object.
        weights: [N, T] confidence of the tracks, zero where not visible and for outliers.
        residuals: RMS distance to the observations with weight, scene units: without any level, and
            after each level.
        noise: estimated standard deviation of a track coordinate, scene units.
        max_patterns: on each level, the maximum number of patterns blended for a point.
    """

    levels: list[PatternLevel]
    points: Float[np.ndarray, "tracks 3"]
    objects: Int[np.ndarray, " objects"]
    weights: Float[np.ndarray, "tracks frames"]
    residuals: list[float]
    noise: float
    max_patterns: tuple[int, ...] = MAX_PATTERNS

    def trajectories(self) -> Float[np.ndarray, "tracks frames 3"]:
        """Return the positions of the tracks under all levels."""
        return transform_points_by_levels(self.levels, self.points, self.weights.shape[1])


def transform_points_by_levels(
    levels: list[PatternLevel], points: Float[np.ndarray, "tracks 3"], frames: int
) -> Float[np.ndarray, "tracks frames 3"]:
    """Return the trajectories of points under composed levels, outermost first."""
    moved = np.repeat(points[:, None], frames, axis=1)
    for level in reversed(levels):
        for number in range(len(level)):
            own = level.labels == number
            motion = level.motion(number)
            rotated = np.einsum("tij,ntj->nti", motion.rotations, moved[own] - motion.centre)
            moved[own] = rotated + motion.centre + motion.translations
    return moved


def residual_distance(
    levels: list[PatternLevel],
    points: Float[np.ndarray, "tracks 3"],
    tracks: LiftedTracks,
    weights: Float[np.ndarray, "tracks frames"],
) -> float:
    """Return the RMS distance, scene units, of points moved by composed levels to their tracks.

    Args:
        levels: outermost first, each with a label for every track.
        points: canonical positions.
        tracks: the observations.
        weights: only observations of positive weight count; 0 is returned if there are none.
    """
    if not weights.any():
        return 0.0
    squared = []
    for rows in row_slices(tracks.xyz.shape, tracks.xyz.dtype):
        own = [replace(level, labels=level.labels[rows]) for level in levels]
        moved = transform_points_by_levels(own, points[rows], tracks.num_frames)
        error = (moved - tracks.xyz[rows])[weights[rows] > 0]
        squared.append((error**2).sum(-1))
    return float(np.sqrt(np.concatenate(squared).mean()))
