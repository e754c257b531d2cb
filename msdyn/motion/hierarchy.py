"""The L1-L3 builder: from lifted tracks to shared motion patterns on three levels.

Levels compose, outermost first: x_t = T1_t(T2_t(T3_t(x_canonical))). Each level is estimated on
tracks with the levels above undone, so it is relative to the one above.

Reference: Gaussian Sequences with Multi-Scale Dynamics, III-C.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from msdyn.errors import InputError
from msdyn.motion.alignment import (
    MIN_TRACKS,
    RigidMotion,
    align_cluster,
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
from msdyn.motion.object_alignment import anchor_object
from msdyn.motion.occlusion import carrier_through_occlusion, infer_occluded_motions, pose_variance
from msdyn.motion.patterns import (
    EXPECTED_ANGLE,
    EXPECTED_SHIFT,
    MotionHierarchy,
    PatternLevel,
    residual_distance,
)
from msdyn.motion.reregistration import ObjectSurfaces, reregister
from msdyn.scene import LiftedTracks

__all__ = ["build_hierarchy"]

# A cluster counts as occluded in frames with fewer than this fraction of its maximum of tracks.
_MIN_VISIBLE = 0.5

# Weight of the distance of a track from a cluster, in object sizes, as a multiple of the noise.
_DISTANCE_WEIGHT = 5.0


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
        k_primitive: primitives per object (fewer for objects with too few tracks).
        k_grain: grains per primitive (likewise).
        seed: of K-means.
        surfaces: surface samples of the objects, to re-register them across full occlusions.

    Returns:
        A hierarchy whose points and labels are those of the tracks visible in some frame, in order.

    Raises:
        InputError: an argument out of range.
    """
    if levels not in {1, 2, 3}:
        raise InputError(f"levels: expected 1, 2 or 3, got {levels}")
    for name, value in (("k_primitive", k_primitive), ("k_grain", k_grain)):
        if value < 1:
            raise InputError(f"{name}: expected at least 1, got {value}")
    if not 0 <= canonical < tracks.num_frames:
        raise InputError(f"canonical: expected 0 to {tracks.num_frames - 1}, got {canonical}")
    tracks = tracks.seen()
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
        carrier = carrier_through_occlusion(own.trajectories, own.weights, carriers, canonical)
        updated = own
        if carrier is not None:
            updated = _Cluster.of_object(tracks, indices[number], canonical, carrier)
        if surfaces is not None:
            updated = updated.reregistered(surfaces, int(objects[number]), canonical)
        if updated is not own:
            whole[number], parts[number] = updated, _primitives(updated, k_primitive, seed)
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
    """Return the rigidly moving parts of an object, relative to the object's motion."""
    residual = own.undone()
    labels = cluster_by_direction(residual.filled, own.points, count, seed)
    refined = residual.reassign(residual.split(labels, level=2), level=2)
    return [part.without_outliers() for part in _infer_occluded(refined, own)]


@dataclass(frozen=True)
class _Cluster:
    """Tracks with the motion of the levels above undone, and the rigid motion fitted to them.

    Attributes:
        index: into all tracks.
        points: canonical positions, scene units.
        trajectories: positions relative to the levels above.
        weights: confidence, zero where not visible and for outliers.
        motion: relative to the levels above.
        size: of the object, scene units.
        noise: standard deviation of a coordinate, scene units.
    """

    index: Int[np.ndarray, " tracks"]
    points: Float[np.ndarray, "tracks 3"]
    trajectories: Float[np.ndarray, "tracks frames 3"]
    weights: Float[np.ndarray, "tracks frames"]
    motion: RigidMotion
    size: float
    noise: float

    @classmethod
    def of_object(
        cls,
        tracks: LiftedTracks,
        index: Int[np.ndarray, " tracks"],
        canonical: int,
        carrier: RigidMotion | None = None,
    ) -> _Cluster:
        """Return all tracks of an object; `carrier` is its carrier's motion during occlusions."""
        xyz = tracks.xyz[index]
        visible = tracks.visible[index]
        # A track of zero confidence keeps a small weight: it may be the only one of its object.
        weights = np.where(visible, tracks.confidence[index].clip(1e-3), 0.0)
        relative = xyz if carrier is None else carrier.undo(xyz)
        motion, points = anchor_object(
            relative, weights, canonical, nearly_static=carrier is not None
        )
        motion = motion if carrier is None else carrier.after(motion)
        size = max(float(np.sqrt(points.var(0).sum())), 1e-6)  # zero for a single track
        return cls(index, points, xyz, weights, motion, size, trajectory_noise(xyz, visible))

    def reregistered(self, surfaces: ObjectSurfaces, instance: int, canonical: int) -> _Cluster:
        """Return the cluster of a whole object, re-registered across full occlusions."""
        motion = reregister(self.motion, self.weights, surfaces, instance, canonical, self.size)
        if motion is self.motion:
            return self
        points = canonical_positions(motion.undo(self.trajectories), self.weights)[0]
        return replace(self, motion=motion, points=points)

    def without_outliers(self) -> _Cluster:
        """Return the cluster with robust canonical positions and zero weights for outliers."""
        undone = self.motion.undo(self.trajectories)
        points = canonical_positions(undone, self.weights)[0]
        inlier = inliers(undone, points, self.weights)
        return replace(self, points=points, weights=np.where(inlier, self.weights, 0))

    def undone(self) -> _Residual:
        """Return the tracks with the motion of the cluster undone."""
        trajectories = self.motion.undo(self.trajectories)
        filled = fill_occluded(trajectories - self.points[:, None], self.weights > 0, self.points)
        return _Residual(self, trajectories, filled)


@dataclass(frozen=True)
class _Residual:
    """The tracks of a cluster with its motion undone.

    Attributes:
        parent: the cluster.
        trajectories: positions with the parent's motion undone.
        filled: displacements from the canonical positions, occluded ones filled in.
    """

    parent: _Cluster
    trajectories: Float[np.ndarray, "tracks frames 3"]
    filled: Float[np.ndarray, "tracks frames 3"]

    @property
    def points(self) -> Float[np.ndarray, "tracks 3"]:
        return self.parent.points

    def split(
        self,
        labels: Int[np.ndarray, " tracks"],
        level: int,
        points: Float[np.ndarray, "tracks 3"] | None = None,
    ) -> list[_Cluster]:
        """Return a cluster for each label, with its motion estimated.

        Args:
            labels: 0..K-1.
            level: 2 or 3, selects the prior.
            points: canonical positions; those of the parent by default.
        """
        clusters, parent = [], self.parent
        all_points = parent.points if points is None else points
        for label in range(labels.max(initial=-1) + 1):
            own = labels == label
            own_points, weights = all_points[own], parent.weights[own]
            motion = align_cluster(
                own_points,
                self.trajectories[own],
                weights,
                noise=parent.noise,
                expected_angle=EXPECTED_ANGLE[level],
                expected_shift=EXPECTED_SHIFT[level] * parent.size,
            )
            clusters.append(
                _Cluster(
                    parent.index[own],
                    own_points,
                    self.trajectories[own],
                    weights,
                    motion,
                    parent.size,
                    parent.noise,
                )
            )
        return clusters

    def reassign(self, clusters: list[_Cluster], level: int, iterations: int = 8) -> list[_Cluster]:
        """Alternate between assigning tracks to the best rigid motion and re-estimating motions.

        Directions of motion are ambiguous next to a hinge, rigid motions are not. The canonical
        position of a track is estimated under each motion separately, because for a track occluded
        in the canonical frame it depends on the motion. Among motions that explain a track equally
        well, as for short tracks, the nearest cluster is chosen. Clusters that lose nearly all
        their tracks are dissolved.
        """
        weights, noise = self.parent.weights, self.parent.noise
        for _ in range(iterations):
            labels = np.zeros(len(weights), int)
            for number, cluster in enumerate(clusters):
                labels[np.searchsorted(self.parent.index, cluster.index)] = number
            estimates = [
                canonical_positions(c.motion.undo(self.trajectories), weights) for c in clusters
            ]
            cost = np.stack([spread for _, spread in estimates], axis=1)  # [n, K]
            distance = (
                distance_to_clusters(
                    self.trajectories,
                    self.parent.weights > 0,
                    self.parent.size,
                    labels,
                    len(clusters),
                )
                / self.parent.size
            )
            cost += (_DISTANCE_WEIGHT * noise * distance) ** 2
            # Hysteresis, so that the assignment converges.
            rows = np.arange(len(cost))
            cost[rows, labels] = 0.9 * cost[rows, labels] - noise**2
            assigned = assign(cost)
            positions = np.stack([position for position, _ in estimates], axis=1)[rows, assigned]
            clusters = self.split(renumber(assigned), level, positions)
            if (assigned == labels).all():
                break
        return clusters


def _infer_occluded(clusters: list[_Cluster], parent: _Cluster) -> list[_Cluster]:
    """Infer the motion of the clusters of an object in frames in which they are occluded."""
    count = np.array([(c.weights > 0).sum(0) for c in clusters])  # [K, T]
    most = count.max(1, keepdims=True)
    visible = count >= np.maximum(np.minimum(MIN_TRACKS, most), _MIN_VISIBLE * most).clip(1)
    angle = EXPECTED_ANGLE[2]
    noise = max(parent.noise, 1e-6 * parent.size)  # positive also for noise-free tracks
    variance = [pose_variance(c.points, c.weights, noise, angle, MIN_TRACKS) for c in clusters]
    own, points = [c.motion for c in clusters], [c.points for c in clusters]
    motions = infer_occluded_motions(own, points, visible, parent.motion, np.array(variance))
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
        """Add a cluster as a pattern of a level and return its index there."""
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

    def finish(self, objects: Int[np.ndarray, " objects"]) -> MotionHierarchy:
        """Return the hierarchy of all patterns added; `objects` are the mask indices."""
        entries = zip(self.motions, self.parents, self.labels, strict=True)
        frames = self.tracks.num_frames
        levels = [PatternLevel.from_motions(*entry, frames=frames) for entry in entries]
        residuals = [
            residual_distance(levels[:depth], self.points, self.tracks, self.weights)
            for depth in range(len(levels) + 1)
        ]
        noise = float(np.mean(self.noise)) if self.noise else 0.0
        return MotionHierarchy(levels, self.points, objects, self.weights, residuals, noise)
