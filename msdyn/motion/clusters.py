"""Grouping trajectories: by movement direction (L2) and by residual motion (L3)."""

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import KDTree

from msdyn.motion.alignment import MIN_TRACKS

__all__ = [
    "assign",
    "cluster_by_direction",
    "cluster_by_residual",
    "distance_to_clusters",
    "fill_occluded",
]


def fill_occluded(displacements: np.ndarray, visible: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Fill the occluded steps of displacement trajectories from their visible neighbours.

    A step takes the distance-weighted mean of the four nearest points seen in that frame; frames in
    which no point is seen are interpolated in time from the filled ones (held at the ends).

    Args:
        displacements: [N, T, 3] displacement of each point from its canonical position.
        visible: [N, T] bool.
        points: [N, 3] canonical positions.

    Returns:
        [N, T, 3], unchanged where visible.
    """
    filled = np.where(visible[..., None], displacements, 0.0)
    known = np.flatnonzero(visible.any(0))
    for frame in known:
        seen = np.flatnonzero(visible[:, frame])
        hidden = np.flatnonzero(~visible[:, frame])
        if not len(hidden):
            continue
        distance, index = KDTree(points[seen]).query(points[hidden], k=min(4, len(seen)))
        distance, index = distance.reshape(len(hidden), -1), index.reshape(len(hidden), -1)
        weight = 1 / np.maximum(distance, 1e-12)
        weight /= weight.sum(1, keepdims=True)
        filled[hidden, frame] = (weight[..., None] * filled[seen[index], frame]).sum(1)
    if 0 < len(known) < filled.shape[1]:
        for frame in np.flatnonzero(~visible.any(0)):
            after = known[known > frame][:1]
            before = known[known < frame][-1:]
            ends = np.concatenate([before, after])
            share = (frame - before[0]) / (after[0] - before[0]) if len(ends) == 2 else 0.0
            filled[:, frame] = (1 - share) * filled[:, ends[0]] + share * filled[:, ends[-1]]
    return filled


def cluster_by_direction(
    displacements: np.ndarray, points: np.ndarray, clusters: int, seed: int
) -> np.ndarray:
    """Group trajectories by movement direction over time.

    The feature of a track is its soft unit velocity at every step: v / (|v| + typical speed), so
    that directions count where there is movement and noise at rest does not; and, with a small
    weight, its place, so that groups of like motion stay compact.

    Args:
        displacements: [N, T, 3] filled displacement trajectories, motion of the level above undone.
        points: [N, 3] canonical positions.
        clusters: number of groups wanted.
        seed: of K-means.

    Returns:
        Labels [N], 0..K-1 with K <= `clusters`; every group has `MIN_TRACKS` tracks or more unless
        there is only one group.

    Reference: Gaussian Sequences with Multi-Scale Dynamics, III-C.3.
    """
    smooth = gaussian_filter1d(displacements, sigma=1.5, axis=1, mode="nearest")
    lag = max(1, min(4, displacements.shape[1] // 8))
    velocity = smooth[:, lag:] - smooth[:, :-lag]  # [N, T - lag, 3]
    speed = np.linalg.norm(velocity, axis=-1, keepdims=True)
    typical = np.sqrt((speed**2).mean()) + 1e-12
    direction = velocity / (speed + typical)
    feature = direction.reshape(len(points), -1)
    return _kmeans(_with_place(feature, points, 0.3), clusters, seed)


def cluster_by_residual(
    displacements: np.ndarray, points: np.ndarray, clusters: int, seed: int
) -> np.ndarray:
    """Group nearby points by their residual motion, half by place and half by displacement.

    Args, Returns: as for `cluster_by_direction`.

    Reference: Gaussian Sequences with Multi-Scale Dynamics, III-C.4.
    """
    smooth = gaussian_filter1d(displacements, sigma=1.5, axis=1, mode="nearest")
    return _kmeans(_with_place(smooth.reshape(len(points), -1), points, 1.0), clusters, seed)


def _with_place(feature: np.ndarray, points: np.ndarray, weight: float) -> np.ndarray:
    """Append positions to features so that their variance is `weight` times the features'."""
    place = points - points.mean(0)
    ratio = np.sqrt(feature.var(0).sum() / max(place.var(0).sum(), 1e-24))
    if ratio == 0:  # no motion at all: the place alone decides
        return place
    return np.concatenate([feature, np.sqrt(weight) * ratio * place], axis=1)


def _kmeans(feature: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """K-means whose groups of fewer than `MIN_TRACKS` members are dissolved into the nearest."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    clusters = min(clusters, len(feature) // MIN_TRACKS, len(np.unique(feature, axis=0)))
    if clusters <= 1:
        return np.zeros(len(feature), int)
    with threadpool_limits(limits=1):  # its result then depends on the seed alone
        fitted = KMeans(clusters, n_init=4, random_state=seed).fit(feature)  # pyright: ignore[reportArgumentType]
    return renumber(assign(fitted.transform(feature)))


def assign(cost: np.ndarray) -> np.ndarray:
    """Assign each track to the group of least cost [N, K]; groups that are too small dissolve.

    Returns:
        Labels [N] in 0..K-1; every group in use has `MIN_TRACKS` tracks or is the only one.
    """
    alive = np.ones(cost.shape[1], bool)
    while True:
        labels = np.where(alive, cost, np.inf).argmin(1)
        sizes = np.bincount(labels, minlength=len(alive))
        small = alive & (sizes < MIN_TRACKS)
        if alive.sum() == 1 or not small.any():
            return labels
        alive[np.flatnonzero(small)[sizes[small].argmin()]] = False


def renumber(labels: np.ndarray) -> np.ndarray:
    """Return labels [N] without gaps, 0..K'-1, in the same order."""
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def distance_to_clusters(
    trajectories: np.ndarray, seen: np.ndarray, size: float, labels: np.ndarray, count: int
) -> np.ndarray:
    """Return how far each track is from the others of each cluster, on the mean while it is seen.

    Args:
        trajectories: [N, T, 3] scene units.
        seen: [N, T] bool; every track somewhere.
        size: the most a distance counts, scene units.
        labels: [N] cluster of each track, 0..K-1.
        count: K.

    Returns:
        [N, K] distance to the fourth nearest track of the cluster.
    """
    total = np.zeros((len(labels), count))
    for frame in np.flatnonzero(seen.any(0)):
        here = np.flatnonzero(seen[:, frame])
        for label in range(count):
            there = here[labels[here] == label]
            distance = np.full(len(here), size)
            if len(there):
                tree = KDTree(trajectories[there, frame])
                near = tree.query(trajectories[here, frame], k=min(4, len(there)))[0]
                near = np.asarray(near).reshape(len(here), -1)[:, -1]
                distance = np.minimum(near, distance)
            total[here, label] += distance
    return total / seen.sum(1, keepdims=True)
