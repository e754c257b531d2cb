"""Clustering of trajectories: by movement direction (L2) and by residual motion (L3)."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import KDTree
from threadpoolctl import ThreadpoolController

from msdyn.motion.alignment import MIN_TRACKS

__all__ = [
    "assign",
    "cluster_by_direction",
    "cluster_by_residual",
    "distance_to_clusters",
    "fill_occluded",
]


def fill_occluded(
    displacements: Float[np.ndarray, "tracks frames 3"],
    visible: Bool[np.ndarray, "tracks frames"],
    points: Float[np.ndarray, "tracks 3"],
) -> Float[np.ndarray, "tracks frames 3"]:
    """Fill occluded frames of displacement trajectories from visible neighbours.

    An occluded displacement is the inverse-distance-weighted mean of those of the four nearest
    points visible in that frame. Frames without a visible point are interpolated over time,
    constant beyond the ends.

    Args:
        displacements: of each point from its canonical position, scene units.
        visible: where they are observed; there they are returned unchanged.
        points: canonical positions.
    """
    filled = np.where(visible[..., None], displacements, 0.0)
    known = np.flatnonzero(visible.any(0))
    for frame in known:
        observed = np.flatnonzero(visible[:, frame])
        occluded = np.flatnonzero(~visible[:, frame])
        if not len(occluded):
            continue
        distance, index = KDTree(points[observed]).query(points[occluded], k=min(4, len(observed)))
        distance, index = distance.reshape(len(occluded), -1), index.reshape(len(occluded), -1)
        weight = 1 / np.maximum(distance, 1e-12)
        weight /= weight.sum(1, keepdims=True)
        filled[occluded, frame] = (weight[..., None] * filled[observed[index], frame]).sum(1)
    if 0 < len(known) < filled.shape[1]:
        for frame in np.flatnonzero(~visible.any(0)):
            after = known[known > frame][:1]
            before = known[known < frame][-1:]
            ends = np.concatenate([before, after])
            fraction = (frame - before[0]) / (after[0] - before[0]) if len(ends) == 2 else 0.0
            filled[:, frame] = (1 - fraction) * filled[:, ends[0]] + fraction * filled[:, ends[-1]]
    return filled


def cluster_by_direction(
    displacements: Float[np.ndarray, "tracks frames 3"],
    points: Float[np.ndarray, "tracks 3"],
    clusters: int,
    seed: int,
) -> Int[np.ndarray, " tracks"]:
    """Cluster trajectories by movement direction over time.

    The feature of a track is its direction of motion at every frame, v / (|v| + typical speed),
    which suppresses the noise of static tracks, and its position with a small weight, which keeps
    clusters compact.

    Args:
        displacements: filled displacement trajectories, motion of the level above undone.
        points: canonical positions.
        clusters: maximum number of clusters.
        seed: of K-means.

    Returns:
        Labels 0..K-1 with K <= `clusters`; every cluster has at least `MIN_TRACKS` tracks unless
        there is only one.

    Reference: Gaussian Sequences with Multi-Scale Dynamics, III-C.3.
    """
    smooth = gaussian_filter1d(displacements, sigma=1.5, axis=1, mode="nearest")
    lag = max(1, min(4, displacements.shape[1] // 8))
    velocity = smooth[:, lag:] - smooth[:, :-lag]  # [N, T - lag, 3]
    del smooth  # these arrays are the largest of the hierarchy
    speed = np.linalg.norm(velocity, axis=-1, keepdims=True)
    typical = np.sqrt((speed**2).mean()) + 1e-12
    velocity /= speed + typical  # the direction
    feature = velocity.reshape(len(points), -1)
    return _kmeans(_with_position(feature, points, 0.3), clusters, seed)


def cluster_by_residual(
    displacements: Float[np.ndarray, "tracks frames 3"],
    points: Float[np.ndarray, "tracks 3"],
    clusters: int,
    seed: int,
) -> Int[np.ndarray, " tracks"]:
    """Cluster points by position and residual displacement, with equal weight.

    Args, Returns: as for `cluster_by_direction`.

    Reference: Gaussian Sequences with Multi-Scale Dynamics, III-C.4.
    """
    smooth = gaussian_filter1d(displacements, sigma=1.5, axis=1, mode="nearest")
    return _kmeans(_with_position(smooth.reshape(len(points), -1), points, 1.0), clusters, seed)


def _with_position(
    feature: Float[np.ndarray, "tracks channels"],
    points: Float[np.ndarray, "tracks 3"],
    weight: float,
) -> Float[np.ndarray, "tracks all_channels"]:
    """Append positions to features so that their variance is `weight` times the features'."""
    centred = points - points.mean(0)
    ratio = np.sqrt(feature.var(0).sum() / max(centred.var(0).sum(), 1e-24))
    if ratio == 0:  # no motion at all
        return centred
    return np.concatenate([feature, np.sqrt(weight) * ratio * centred], axis=1)


def _kmeans(
    feature: Float[np.ndarray, "tracks channels"], clusters: int, seed: int
) -> Int[np.ndarray, " tracks"]:
    """K-means in which clusters of fewer than `MIN_TRACKS` members are dissolved."""
    from sklearn.cluster import KMeans

    clusters = _distinct_rows(feature, min(clusters, len(feature) // MIN_TRACKS))
    if clusters <= 1:
        return np.zeros(len(feature), int)
    with _libraries().limit(limits=1):  # its result then depends on the seed alone
        fitted = KMeans(clusters, n_init=4, random_state=seed).fit(feature)  # pyright: ignore[reportArgumentType]
    return renumber(assign(fitted.transform(feature)))


def _distinct_rows(feature: Float[np.ndarray, "tracks channels"], most: int) -> int:
    """Return the number of different rows, counted up to `most`."""
    found: set[bytes] = set()
    for row in feature:
        if len(found) >= most:
            break
        found.add((row + 0.0).tobytes())  # -0.0 + 0.0 is 0.0
    return min(len(found), most)


@functools.cache
def _libraries() -> ThreadpoolController:
    """Return the libraries with threads of their own; to find them takes 10 ms."""
    return ThreadpoolController()


def assign(cost: Float[np.ndarray, "tracks clusters"]) -> Int[np.ndarray, " tracks"]:
    """Assign each track to the cluster of minimum cost; clusters that are too small are dissolved.

    Returns:
        Labels 0..K-1; every non-empty cluster has at least `MIN_TRACKS` tracks or is the only one.
    """
    alive = np.ones(cost.shape[1], bool)
    while True:
        labels = np.where(alive, cost, np.inf).argmin(1)
        sizes = np.bincount(labels, minlength=len(alive))
        small = alive & (sizes < MIN_TRACKS)
        if alive.sum() == 1 or not small.any():
            return labels
        alive[np.flatnonzero(small)[sizes[small].argmin()]] = False


def renumber(labels: Int[np.ndarray, " tracks"]) -> Int[np.ndarray, " tracks"]:
    """Return labels without gaps, 0..K'-1, in the same order."""
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def distance_to_clusters(
    trajectories: Float[np.ndarray, "tracks frames 3"],
    visible: Bool[np.ndarray, "tracks frames"],
    size: float,
    labels: Int[np.ndarray, " tracks"],
    count: int,
) -> Float[np.ndarray, "tracks clusters"]:
    """Return the distance of each track to each cluster, averaged over the frames it is visible in.

    It is the distance to the fourth nearest track of the cluster.

    Args:
        trajectories: scene units.
        visible: every track is visible in some frame.
        size: upper bound of the distance, scene units.
        labels: cluster of each track, 0..K-1.
        count: K.
    """
    total = np.zeros((len(labels), count))
    for frame in np.flatnonzero(visible.any(0)):
        observed = np.flatnonzero(visible[:, frame])
        for label in range(count):
            members = observed[labels[observed] == label]
            distance = np.full(len(observed), size)
            if len(members):
                tree = KDTree(trajectories[members, frame])
                nearest = tree.query(trajectories[observed, frame], k=min(4, len(members)))[0]
                nearest = np.asarray(nearest).reshape(len(observed), -1)[:, -1]
                distance = np.minimum(nearest, distance)
            total[observed, label] += distance
    return total / visible.sum(1, keepdims=True)
