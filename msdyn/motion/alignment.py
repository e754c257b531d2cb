"""Rigid motion over time of one cluster of tracks, by robust weighted Procrustes per frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from msdyn.geometry import Rigid, procrustes
from msdyn.reading import row_slices

__all__ = [
    "MIN_TRACKS",
    "RigidMotion",
    "align_cluster",
    "canonical_positions",
    "huber_weights",
    "inliers",
    "interpolate_missing",
    "noise_of_second_differences",
    "trajectory_noise",
]

# Minimum tracks per cluster and per estimated pose: one more than a pose needs.
MIN_TRACKS = 4
# Observations with an error above this multiple of the median are outliers.
_OUTLIER = 8.0


@dataclass(frozen=True)
class RigidMotion:
    """A rigid motion over T frames about a pivot: x_t = R_t (x - centre) + centre + t_t.

    Attributes:
        centre: [3] pivot, scene units.
        about: [T] rotations and translations about the pivot.
    """

    centre: Float[np.ndarray, " 3"]
    about: Rigid[np.ndarray]

    @classmethod
    def identity(cls, centre: Float[np.ndarray, " 3"], frames: int) -> RigidMotion:
        return cls(centre, Rigid.identity(frames))

    @property
    def rotations(self) -> Float[np.ndarray, "frames 3 3"]:
        return self.about.rotation

    @property
    def translations(self) -> Float[np.ndarray, "frames 3"]:
        return self.about.translation

    @property
    def world(self) -> Rigid[np.ndarray]:
        """The same motion about the origin, [T]."""
        moved_centre = self.centre + self.translations
        return Rigid(self.rotations, moved_centre - self.rotations @ self.centre)

    def inverse(self) -> RigidMotion:
        """Return the inverse motion."""
        return RigidMotion(self.centre, self.about.inverse())

    def after(self, first: RigidMotion) -> RigidMotion:
        """Return the motion that applies `first`, then this one, about the pivot of `first`."""
        rotations = self.rotations @ first.rotations
        moved = first.centre + first.translations - self.centre
        moved = np.einsum("tij,tj->ti", self.rotations, moved) + self.centre + self.translations
        return RigidMotion(first.centre, Rigid(rotations, moved - first.centre))

    def at(self, frame: int) -> RigidMotion:
        """Return the motion that has the pose of one frame in all frames."""
        return RigidMotion(self.centre, self.about[np.full(len(self.about), frame)])

    def apply(self, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points frames 3"]:
        """Move canonical points to every frame."""
        moved = np.einsum("tij,nj->nti", self.rotations, points - self.centre)
        return moved + self.centre + self.translations

    def undo(
        self, trajectories: Float[np.ndarray, "points frames 3"]
    ) -> Float[np.ndarray, "points frames 3"]:
        """Map trajectories back to the canonical frame."""
        centred = trajectories - self.centre - self.translations
        return np.einsum("tji,ntj->nti", self.rotations, centred) + self.centre


def trajectory_noise(
    trajectories: Float[np.ndarray, "tracks frames 3"], visible: Bool[np.ndarray, "tracks frames"]
) -> float:
    """Estimate the noise of trajectories: the standard deviation of a coordinate, scene units.

    It is estimated from second differences, which are small for smooth motion and have six times
    the variance of white noise. It is 0 if no track is visible in three consecutive frames.
    """
    valid = visible[:, 2:] & visible[:, 1:-1] & visible[:, :-2]
    second = trajectories[:, 2:] - 2 * trajectories[:, 1:-1] + trajectories[:, :-2]
    return noise_of_second_differences(second[valid])


def noise_of_second_differences(values: Float[np.ndarray, "*values"]) -> float:
    """Return the standard deviation of white noise with such second differences, 0 without any."""
    if not values.size:
        return 0.0
    # 1.4826: standard deviation of a normal distribution per median absolute deviation.
    return float(1.4826 * np.median(np.abs(values)) / np.sqrt(6))


def canonical_positions(
    undone: Float[np.ndarray, "tracks frames 3"], weights: Float[np.ndarray, "tracks frames"]
) -> tuple[Float[np.ndarray, "tracks 3"], Float[np.ndarray, " tracks"]]:
    """Estimate canonical positions from trajectories with their motion undone, and the spread.

    The median over time, then one step of robust averaging: neither background depth in a few
    frames nor the noise of a single frame biases the position.

    Args:
        undone: trajectories mapped back to the canonical frame.
        weights: confidence, zero where not visible; no row is all zero.

    Returns:
        Positions, and the weighted mean squared distance of the observations from them.
    """
    distance = np.empty(weights.shape)
    for rows in row_slices(undone.shape, undone.dtype):
        seen = weights[rows] > 0
        order = np.argsort(np.where(seen[..., None], undone[rows], np.inf), axis=1)
        middle = (seen.sum(1) - 1) // 2
        median_index = np.take_along_axis(order, middle[:, None, None].repeat(3, -1), axis=1)
        median = np.take_along_axis(undone[rows], median_index, axis=1)  # [n, 1, 3]
        distance[rows] = np.linalg.norm(undone[rows] - median, axis=-1)
    typical = np.median(distance[weights > 0]) + 1e-12
    position, spread = np.empty((len(undone), 3)), np.empty(len(undone))
    for rows in row_slices(undone.shape, undone.dtype):
        own = weights[rows]
        robust = own * np.minimum(1, 2 * typical / np.maximum(distance[rows], 1e-12))
        normalised = robust / robust.sum(1, keepdims=True)
        position[rows] = (normalised[..., None] * undone[rows]).sum(1)
        squared = ((undone[rows] - position[rows, None]) ** 2).sum(-1)
        spread[rows] = (own * squared).sum(1) / own.sum(1)
    return position, spread


def inliers(
    undone: Float[np.ndarray, "tracks frames 3"],
    positions: Float[np.ndarray, "tracks 3"],
    weights: Float[np.ndarray, "tracks frames"],
) -> Bool[np.ndarray, "tracks frames"]:
    """Return which observations are inliers of a cluster's motion.

    Next to a silhouette a track may get the depth of the background. If it is the only track
    visible in its frame, it would displace the whole pattern.

    Args:
        undone: trajectories mapped back to the canonical frame.
        positions: canonical positions.
        weights: confidence, zero where not visible.

    Returns:
        True also where not visible; every track keeps at least one observation.
    """
    distance = np.empty(weights.shape)
    for rows in row_slices(undone.shape, undone.dtype):
        distance[rows] = np.linalg.norm(undone[rows] - positions[rows, None], axis=-1)
    visible = weights > 0
    if not visible.any():
        return np.ones_like(visible)
    # Residuals of a deforming object are large, but below half its size.
    size = np.sqrt(positions.var(0).sum())
    good = distance <= max(_OUTLIER * float(np.median(distance[visible])), 0.5 * size)
    good |= ~(good & visible).any(1, keepdims=True)
    return good | ~visible


def align_cluster(
    points: Float[np.ndarray, "tracks 3"],
    trajectories: Float[np.ndarray, "tracks frames 3"],
    weights: Float[np.ndarray, "tracks frames"],
    *,
    noise: float = 0.0,
    expected_angle: float = np.inf,
    expected_shift: float = np.inf,
) -> RigidMotion:
    """Fit a rigid motion to a cluster, robustly, under a prior on its rotations and translations.

    Frames without any weight are interpolated on SE(3), constant beyond the ends. So are the
    rotations of frames with too few tracks, unless there is a prior.

    Args:
        points: canonical positions.
        trajectories: positions in each frame.
        weights: confidence, zero where not visible.
        noise: standard deviation of a coordinate, scene units.
        expected_angle: prior standard deviation of rotations, radians; infinite for none.
        expected_shift: prior standard deviation of translations, scene units; infinite for none.

    Reference: Eq. 11; the prior is ours, to keep residual levels small.
    """
    frames = trajectories.shape[1]
    total = weights.sum(1)
    centre = (total[:, None] * points).sum(0) / max(total.sum(), 1e-12)
    if not weights.any():
        return RigidMotion.identity(points.mean(0) if len(points) else np.zeros(3), frames)
    source = (points - centre)[None]  # [1, N, 3]
    target = (trajectories - centre).swapaxes(0, 1)  # [T, N, 3]
    confidence = np.ascontiguousarray(weights.T)  # [T, N]
    squares = (confidence**2).sum(1)
    effective = confidence.sum(1) ** 2 / np.maximum(squares, 1e-12)  # [T]
    prior = noise**2 / (np.maximum(effective, 1) * expected_angle**2)
    robust = confidence
    for _ in range(4):
        about = procrustes(source, target, robust, prior).rigid
        error = np.linalg.norm(about.apply(source) - target, axis=-1)
        robust = confidence * huber_weights(error, confidence > 0)
    count = (weights > 0).sum(0)
    if np.isinf(expected_angle):
        enough = count >= min(MIN_TRACKS, count.max())
        about = interpolate_missing(about, enough)
    # Translation given the rotation, shrunk by its prior.
    rotated = (about.rotation @ source.swapaxes(1, 2)).swapaxes(1, 2)  # [T, N, 3]
    normalised = robust / np.maximum(robust.sum(1, keepdims=True), 1e-12)
    translation = (normalised[..., None] * (target - rotated)).sum(1)
    shrinkage = effective / np.maximum(effective + (noise / expected_shift) ** 2, 1e-12)
    about = Rigid(about.rotation, shrinkage[:, None] * translation)
    return RigidMotion(centre, interpolate_missing(about, count > 0))


def huber_weights(
    error: Float[np.ndarray, "*shape"], valid: Bool[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Return Huber weights, with one threshold for all frames to make frames comparable."""
    if not valid.any():
        return np.ones_like(error)
    # 1.54: median length of a standard normal vector in 3D.
    threshold = 2.5 * float(np.median(error[valid])) / 1.54
    return np.minimum(threshold / np.maximum(error, 1e-12), 1.0)


def interpolate_missing(
    poses: Rigid[np.ndarray], known: Bool[np.ndarray, " frames"]
) -> Rigid[np.ndarray]:
    """Interpolate the poses [T] of unknown frames on SE(3), constant beyond the known ones."""
    if known.all():
        return poses
    frames, missing = np.flatnonzero(known), np.flatnonzero(~known)
    positions = np.interp(missing, frames, np.arange(len(frames)))
    low = np.floor(positions).astype(int)
    high = np.minimum(low + 1, len(frames) - 1)
    filled = poses[frames[low]].interpolated(poses[frames[high]], positions - low)
    rotation, translation = poses.rotation.copy(), poses.translation.copy()
    rotation[missing], translation[missing] = filled.rotation, filled.translation
    return Rigid(rotation, translation)
