"""One flat layer of shared bases, the motion representation of shape-of-motion: the baseline."""

from __future__ import annotations

import numpy as np

from msdyn.errors import InputError
from msdyn.motion.alignment import (
    align_cluster,
    canonical_positions,
    inliers,
    trajectory_noise,
)
from msdyn.motion.clusters import cluster_by_direction, fill_occluded
from msdyn.motion.config import MotionConfig
from msdyn.motion.models.hierarchical import MotionField
from msdyn.motion.object_alignment import anchor_object
from msdyn.motion.patterns import MotionHierarchy, PatternLevel, residual_distance
from msdyn.motion.protocol import TrackedScene
from msdyn.motion.registry import register_motion
from msdyn.scene import LiftedTracks

__all__ = ["SingleLayer", "build_single"]


@register_motion("single")
class SingleLayer(MotionField):
    """SE(3) bases on one level, all of which may be blended for every Gaussian."""

    @classmethod
    def build(cls, scene: TrackedScene, config: MotionConfig) -> MotionHierarchy:
        return build_single(scene.tracks, scene.canonical, patterns=config.k, seed=scene.seed)

    @property
    def level_names(self) -> tuple[str, ...]:
        return ("bases",)

    @staticmethod
    def _has_residual(config: MotionConfig) -> bool:
        return False


def build_single(
    tracks: LiftedTracks, canonical: int, *, patterns: int = 10, seed: int = 0
) -> MotionHierarchy:
    """Initialise one layer of SE(3) bases shared by the moving points of all objects.

    The tracks of all objects are clustered by velocity, and the rigid motion of each cluster is
    estimated by Procrustes without a prior. The canonical positions of tracks occluded in the
    canonical frame are recovered per object, as in the hierarchy, so that only the motion differs.

    Args:
        tracks: trajectories on moving objects; those never visible are ignored.
        canonical: canonical frame.
        patterns: number of bases (fewer if there are too few tracks).
        seed: of K-means.

    Returns:
        A hierarchy of one level, all patterns of which may be blended for every point.

    Raises:
        InputError: `patterns` is below 1.

    Reference: Wang et al., "Shape of Motion", 2024, 3.2.
    """
    if patterns < 1:
        raise InputError(f"k: expected at least 1, got {patterns}")
    tracks = tracks.seen()
    weights = np.where(tracks.visible, tracks.confidence.clip(1e-3), 0.0)
    points = np.zeros((len(tracks), 3))
    noise = [0.0]
    for instance in np.unique(tracks.object):
        own = np.flatnonzero(tracks.object == instance)
        points[own] = anchor_object(tracks.xyz[own], weights[own], canonical)[1]
        noise.append(trajectory_noise(tracks.xyz[own], tracks.visible[own]))
    labels = np.zeros(len(tracks), int)
    if len(tracks):
        moved = fill_occluded(tracks.xyz - points[:, None], tracks.visible, points)
        labels = cluster_by_direction(moved, points, patterns, seed)
    count = int(labels.max(initial=-1)) + 1
    motions = [
        align_cluster(points[labels == i], tracks.xyz[labels == i], weights[labels == i])
        for i in range(count)
    ]
    for number, motion in enumerate(motions):
        own = labels == number
        undone = motion.undo(tracks.xyz[own])
        points[own] = canonical_positions(undone, weights[own])[0]
        weights[own] *= inliers(undone, points[own], weights[own])
    level = PatternLevel.from_motions(motions, [0] * count, labels, frames=tracks.num_frames)
    # The object of most tracks of each basis.
    majority = [np.bincount(tracks.object[labels == i]).argmax() for i in range(count)]
    residuals = [residual_distance(levels, points, tracks, weights) for levels in ([], [level])]
    return MotionHierarchy(
        [level],
        points,
        np.array(majority, int),
        weights,
        residuals,
        float(np.mean(noise)),
        (max(count, 1),),
    )
