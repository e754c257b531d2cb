"""The L1-L3 builder: from lifted tracks to shared motion patterns on three levels.

Levels compose, outermost first: x_t = T1_t(T2_t(T3_t(x_canonical))). Each is estimated on tracks
with the levels above undone, so each is relative to the one before.

Reference: Gaussian Sequences with Multi-Scale Dynamics, III-C.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from msdyn.errors import InputError
from msdyn.motion.alignment import (
    MIN_TRACKS,
    RigidMotion,
    align_cluster,
    anchor_object,
    canonical_positions,
    inliers,
    trajectory_noise,
)
from msdyn.motion.clusters import (
    assign,
    cluster_by_direction,
    cluster_by_residual,
    distance_to_clusters,
    fill_occluded,
    renumber,
)
from msdyn.motion.companions import follow_companions, guide_through_occlusion, pose_variance
from msdyn.motion.patterns import MotionHierarchy, PatternLevel, residual_distance
from msdyn.motion.rejoin import ObjectSurfaces, rejoin
from msdyn.scene import LiftedTracks

__all__ = ["build_hierarchy"]

# Prior standard deviations of residual patterns: rotation (radians) and translation (as a share of
# the object's size). Loose enough that noise-free tracks are followed exactly, tight enough that
# five noisy tracks do not rotate a cluster.
_EXPECTED_ANGLE = {2: 0.5, 3: 0.2}
_EXPECTED_SHIFT = {2: 0.3, 3: 0.1}

# A cluster counts as occluded in frames with less than this share of its largest number of tracks.
_SEEN = 0.5

# The distance from a cluster, in object sizes, is weighted by this many times the noise.
_NEARNESS = 5.0


def build_hierarchy(
    tracks: LiftedTracks,
    canonical: int,
    *,
    levels: int = 3,
    k_primitive: int = 5,
    k_grain: int = 10,
    seed: int = 0,
    surfaces: ObjectSurfaces | None = None,
) -> MotionHierarchy:
    """Initialise shared SE(3) patterns from 3D tracks.

    Args:
        tracks: trajectories on moving objects; those never visible are ignored.
        canonical: canonical frame.
        levels: 1 (objects), 2 (and primitives) or 3 (and grains).
        k_primitive: primitives per object (fewer where it has too few tracks).
        k_grain: grains per primitive (likewise).
        seed: of K-means.
        surfaces: surface samples of the objects, to re-register them across full occlusions.

    Returns:
        A hierarchy whose `points` and labels go with the tracks that were ever visible, in order.

    Raises:
        InputError: a number out of range.
    """
    if levels not in {1, 2, 3}:
        raise InputError(f"levels: expected 1, 2 or 3, got {levels}")
    for name, value in (("k_primitive", k_primitive), ("k_grain", k_grain)):
        if value < 1:
            raise InputError(f"{name}: expected at least 1, got {value}")
    if not 0 <= canonical < tracks.num_frames:
        raise InputError(f"canonical: expected 0 to {tracks.num_frames - 1}, got {canonical}")
    tracks = tracks.select(np.flatnonzero(tracks.visible.any(1)))
    objects = np.unique(tracks.object)
    indices = [np.flatnonzero(tracks.object == instance) for instance in objects]
    whole = [_Cluster.of_object(tracks, index, canonical) for index in indices]
    parts = [_primitives(own, k_primitive, seed) for own in whole]
    for number, own in enumerate(whole):
        carriers = [
            whole[other].motion.after(part.motion)
            for other in range(len(whole))
            if other != number
            for part in parts[other]
        ]
        guide = guide_through_occlusion(own.trajectories, own.weights, carriers, canonical)
        found = own
        if guide is not None:
            found = _Cluster.of_object(tracks, indices[number], canonical, guide)
        if surfaces is not None:
            found = found.rejoined(surfaces, int(objects[number]), canonical)
        if found is not own:
            whole[number], parts[number] = found, _primitives(found, k_primitive, seed)
    builder = _Builder(tracks, levels)
    for number, own in enumerate(whole):
        builder.add(0, own.without_outliers(), parent=0)
        for primitive in parts[number] if levels > 1 else []:
            parent = builder.add(1, primitive, parent=number)
            if levels == 2:
                continue
            finer = primitive.undone()
            grains = cluster_by_residual(finer.filled, finer.points, k_grain, seed)
            for grain in finer.split(grains, level=3):
                builder.add(2, grain, parent=parent)
    return builder.finish(objects)


def _primitives(own: _Cluster, count: int, seed: int) -> list[_Cluster]:
    """Return the rigidly moving parts of an object, relative to the whole."""
    residual = own.undone()
    labels = cluster_by_direction(residual.filled, own.points, count, seed)
    settled = residual.settle(residual.split(labels, level=2), level=2)
    return [part.without_outliers() for part in _complete(settled, own)]


@dataclass(frozen=True)
class _Cluster:
    """A group of tracks with the levels above undone, and its rigid motion there."""

    index: np.ndarray  # [n] into all tracks
    points: np.ndarray  # [n, 3]
    trajectories: np.ndarray  # [n, T, 3]
    weights: np.ndarray  # [n, T]
    motion: RigidMotion
    size: float  # of the object, scene units
    noise: float

    @classmethod
    def of_object(
        cls,
        tracks: LiftedTracks,
        index: np.ndarray,
        canonical: int,
        guide: RigidMotion | None = None,
    ) -> _Cluster:
        """Return all tracks of an object; `guide` is its carrier's motion through occlusions."""
        xyz = tracks.xyz[index]
        visible = tracks.visible[index]
        # A track of zero confidence keeps a small weight: it may be the only one of its object.
        weights = np.where(visible, tracks.confidence[index].clip(1e-3), 0.0)
        steady = xyz if guide is None else guide.undo(xyz)
        motion, points = anchor_object(steady, weights, canonical, steady=guide is not None)
        motion = motion if guide is None else guide.after(motion)
        size = max(float(np.sqrt(points.var(0).sum())), 1e-6)  # a single track has none
        return cls(index, points, xyz, weights, motion, size, trajectory_noise(xyz, visible))

    def rejoined(self, surfaces: ObjectSurfaces, instance: int, canonical: int) -> _Cluster:
        """Return the cluster of a whole object, re-registered across full occlusions."""
        motion = rejoin(self.motion, self.weights, surfaces, instance, canonical, self.size)
        if motion is self.motion:
            return self
        points = canonical_positions(motion.undo(self.trajectories), self.weights)[0]
        return replace(self, motion=motion, points=points)

    def without_outliers(self) -> _Cluster:
        """Return the cluster with robust canonical positions, and without weight on outliers."""
        undone = self.motion.undo(self.trajectories)
        points = canonical_positions(undone, self.weights)[0]
        good = inliers(undone, points, self.weights)
        return replace(self, points=points, weights=np.where(good, self.weights, 0))

    def undone(self) -> _Residual:
        trajectories = self.motion.undo(self.trajectories)
        filled = fill_occluded(trajectories - self.points[:, None], self.weights > 0, self.points)
        return _Residual(self, trajectories, filled)


@dataclass(frozen=True)
class _Residual:
    """The tracks of a cluster with its motion undone."""

    parent: _Cluster
    trajectories: np.ndarray  # [n, T, 3]
    filled: np.ndarray  # [n, T, 3] displacement from the canonical position, occlusions filled

    @property
    def points(self) -> np.ndarray:
        return self.parent.points

    def split(
        self, labels: np.ndarray, level: int, points: np.ndarray | None = None
    ) -> list[_Cluster]:
        """Return a cluster for each label, its motion estimated, from canonical positions."""
        clusters, parent = [], self.parent
        everywhere = parent.points if points is None else points
        for label in range(labels.max(initial=-1) + 1):
            own = labels == label
            points, weights = everywhere[own], parent.weights[own]
            motion = align_cluster(
                points,
                self.trajectories[own],
                weights,
                noise=parent.noise,
                expected_angle=_EXPECTED_ANGLE[level],
                expected_shift=_EXPECTED_SHIFT[level] * parent.size,
            )
            clusters.append(
                _Cluster(
                    parent.index[own],
                    points,
                    self.trajectories[own],
                    weights,
                    motion,
                    parent.size,
                    parent.noise,
                )
            )
        return clusters

    def settle(self, clusters: list[_Cluster], level: int, rounds: int = 8) -> list[_Cluster]:
        """Reassign tracks to the cluster whose rigid motion explains them best, as K-means does.

        Movement directions are ambiguous next to a hinge; rigid motions are not. Each motion gives
        its own estimate of a track's canonical position, which for a track occluded in the
        canonical frame differs much between the two sides. Among motions that explain a track
        equally, as for short tracks, the nearest cluster is chosen. Clusters that lose nearly all
        their tracks are dissolved.
        """
        weights, noise = self.parent.weights, self.parent.noise
        for _ in range(rounds):
            labels = np.zeros(len(weights), int)
            for number, cluster in enumerate(clusters):
                labels[np.searchsorted(self.parent.index, cluster.index)] = number
            estimates = [
                canonical_positions(c.motion.undo(self.trajectories), weights) for c in clusters
            ]
            cost = np.stack([spread for _, spread in estimates], axis=1)  # [n, K]
            near = (
                distance_to_clusters(
                    self.trajectories,
                    self.parent.weights > 0,
                    self.parent.size,
                    labels,
                    len(clusters),
                )
                / self.parent.size
            )
            cost += (_NEARNESS * noise * near) ** 2
            # Hysteresis: another cluster must be clearly better.
            rows = np.arange(len(cost))
            cost[rows, labels] = 0.9 * cost[rows, labels] - noise**2
            changed = assign(cost)
            positions = np.stack([place for place, _ in estimates], axis=1)[rows, changed]
            clusters = self.split(renumber(changed), level, positions)
            if (changed == labels).all():
                break
        return clusters


def _complete(clusters: list[_Cluster], parent: _Cluster) -> list[_Cluster]:
    """Infer the motion of the clusters of an object where they are occluded."""
    count = np.array([(c.weights > 0).sum(0) for c in clusters])  # [K, T]
    most = count.max(1, keepdims=True)
    seen = count >= np.maximum(np.minimum(MIN_TRACKS, most), _SEEN * most).clip(1)
    angle = _EXPECTED_ANGLE[2]
    noise = max(parent.noise, 1e-6 * parent.size)  # not zero, for noise-free tracks
    variance = [pose_variance(c.points, c.weights, noise, angle, MIN_TRACKS) for c in clusters]
    own, points = [c.motion for c in clusters], [c.points for c in clusters]
    motions = follow_companions(own, points, seen, parent.motion, np.array(variance))
    return [replace(c, motion=motion) for c, motion in zip(clusters, motions, strict=True)]


class _Builder:
    """Collects patterns level by level."""

    def __init__(self, tracks: LiftedTracks, levels: int) -> None:
        self.tracks = tracks
        self.motions: list[list[RigidMotion]] = [[] for _ in range(levels)]
        self.parents: list[list[int]] = [[] for _ in range(levels)]
        self.labels = np.zeros((levels, len(tracks)), int)
        self.points = np.zeros((len(tracks), 3))
        self.weights = np.zeros(tracks.visible.shape)
        self.noise: list[float] = []

    def add(self, level: int, cluster: _Cluster, parent: int) -> int:
        self.motions[level].append(cluster.motion)
        self.parents[level].append(parent)
        number = len(self.motions[level]) - 1
        self.labels[level, cluster.index] = number
        undone = cluster.motion.undo(cluster.trajectories)
        self.points[cluster.index] = canonical_positions(undone, cluster.weights)[0]
        self.weights[cluster.index] = cluster.weights
        if level == 0:
            self.noise.append(cluster.noise)
        return number

    def finish(self, objects: np.ndarray) -> MotionHierarchy:
        entries = zip(self.motions, self.parents, self.labels, strict=True)
        levels = [PatternLevel.of(*entry, frames=self.tracks.num_frames) for entry in entries]
        residuals = [
            residual_distance(levels[:depth], self.points, self.tracks, self.weights)
            for depth in range(len(levels) + 1)
        ]
        noise = float(np.mean(self.noise)) if self.noise else 0.0
        return MotionHierarchy(levels, self.points, objects, self.weights, residuals, noise)
