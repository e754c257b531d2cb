"""Rigid motion over time of one cluster of tracks, by robust weighted Procrustes per frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components

from msdyn.geometry import Rigid, nearest_rotations, procrustes

__all__ = [
    "MEMORY",
    "MIN_TRACKS",
    "RigidMotion",
    "align_cluster",
    "anchor_object",
    "canonical_positions",
    "frame_blocks",
    "inliers",
    "interpolate_missing",
    "trajectory_noise",
]

# Tracks needed to estimate a pose from them alone, with one to spare; no cluster has fewer.
MIN_TRACKS = 4
# Expected rotation, radians, of an object relative to its carrier.
_STEADY = 0.1
# Standard deviation, frames, of the temporal smoothing of nearly static objects.
_SMOOTH = 1.5
# Time constant, frames, of the motion-similarity weights.
MEMORY = 6.0
# An observation whose error is this many times the median is an outlier.
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
        shift = self.centre + self.translations
        return Rigid(self.rotations, shift - self.rotations @ self.centre)

    def inverse(self) -> RigidMotion:
        """Return the motion that undoes this one."""
        return RigidMotion(self.centre, self.about.inverse())

    def after(self, first: RigidMotion) -> RigidMotion:
        """Return the motion that does `first`, then this one, about the pivot of `first`."""
        rotations = self.rotations @ first.rotations
        moved = first.centre + first.translations - self.centre
        moved = np.einsum("tij,tj->ti", self.rotations, moved) + self.centre + self.translations
        return RigidMotion(first.centre, Rigid(rotations, moved - first.centre))

    def at(self, frame: int) -> RigidMotion:
        """Return the pose of one frame, held at all times."""
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

    From second differences, which are small for smooth motion: for white noise their variance is
    six times its own. Zero where no track is visible in three consecutive frames.
    """
    steps = visible[:, 2:] & visible[:, 1:-1] & visible[:, :-2]
    second = trajectories[:, 2:] - 2 * trajectories[:, 1:-1] + trajectories[:, :-2]
    if not steps.any():
        return 0.0
    return float(1.4826 * np.median(np.abs(second[steps])) / np.sqrt(6))


def canonical_positions(
    undone: Float[np.ndarray, "tracks frames 3"], weights: Float[np.ndarray, "tracks frames"]
) -> tuple[Float[np.ndarray, "tracks 3"], Float[np.ndarray, " tracks"]]:
    """Estimate canonical positions from trajectories with their motion undone, and the spread.

    The median over time, then one step of robust averaging, so that neither depth from behind the
    object in a few frames nor the noise of a single frame biases the position.

    Args:
        undone: trajectories mapped back to the canonical frame.
        weights: confidence, zero where not visible; no row is all zero.

    Returns:
        Positions, and the weighted mean squared distance of the observations from them.
    """
    order = np.argsort(np.where(weights[..., None] > 0, undone, np.inf), axis=1)
    middle = ((weights > 0).sum(1) - 1) // 2
    picked = np.take_along_axis(order, middle[:, None, None].repeat(3, -1), axis=1)
    median = np.take_along_axis(undone, picked, axis=1)  # [N, 1, 3]
    distance = np.linalg.norm(undone - median, axis=-1)
    typical = np.median(distance[weights > 0]) + 1e-12
    robust = weights * np.minimum(1, 2 * typical / np.maximum(distance, 1e-12))
    share = robust / robust.sum(1, keepdims=True)
    place = (share[..., None] * undone).sum(1)
    squared = ((undone - place[:, None]) ** 2).sum(-1)
    return place, (weights * squared).sum(1) / weights.sum(1)


def inliers(
    undone: Float[np.ndarray, "tracks frames 3"],
    positions: Float[np.ndarray, "tracks 3"],
    weights: Float[np.ndarray, "tracks frames"],
) -> Bool[np.ndarray, "tracks frames"]:
    """Return which observations a cluster's motion explains about as well as the others.

    Next to a silhouette a track gets the depth of what lies behind; if it is the only one visible
    in its frame, it would displace the whole pattern.

    Args:
        undone: trajectories mapped back to the canonical frame.
        positions: canonical positions.
        weights: confidence, zero where not visible.

    Returns:
        True also where not visible; no track loses all its observations.
    """
    distance = np.linalg.norm(undone - positions[:, None], axis=-1)
    visible = weights > 0
    if not visible.any():
        return np.ones_like(visible)
    # A deforming object may be far from its rigid motion, but not farther than its own size.
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

    Frames in which no track has weight are interpolated on SE(3), held at the ends. So are the
    rotations of frames with too few tracks, unless there is a prior for them.

    Args:
        points: canonical positions.
        trajectories: positions in each frame.
        weights: confidence, zero where not visible.
        noise: standard deviation of a coordinate, scene units.
        expected_angle: prior standard deviation of rotations, radians; infinite for none.
        expected_shift: prior standard deviation of translations, scene units; infinite for none.

    Reference: Eq. 11; the prior is ours (residual levels stay residual).
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
        robust = confidence * _huber(error, confidence > 0)
    count = (weights > 0).sum(0)
    if np.isinf(expected_angle):
        enough = count >= min(MIN_TRACKS, count.max())
        about = interpolate_missing(about, enough)
    # The translation that goes with the rotation, shrunk by its own prior.
    rotated = (about.rotation @ source.swapaxes(1, 2)).swapaxes(1, 2)  # [T, N, 3]
    share = robust / np.maximum(robust.sum(1, keepdims=True), 1e-12)
    shift = (share[..., None] * (target - rotated)).sum(1)
    shrink = effective / np.maximum(effective + (noise / expected_shift) ** 2, 1e-12)
    about = Rigid(about.rotation, shrink[:, None] * shift)
    return RigidMotion(centre, interpolate_missing(about, count > 0))


def _huber(
    error: Float[np.ndarray, "*shape"], valid: Bool[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Return Huber weights under one threshold for all frames, so that frames are comparable."""
    if not valid.any():
        return np.ones_like(error)
    # 1.54: median length of a standard normal vector in 3D.
    threshold = 2.5 * float(np.median(error[valid])) / 1.54
    return np.minimum(threshold / np.maximum(error, 1e-12), 1.0)


def interpolate_missing(
    poses: Rigid[np.ndarray], known: Bool[np.ndarray, " frames"]
) -> Rigid[np.ndarray]:
    """Fill the poses [T] of unknown frames from their known neighbours; beyond the ends, hold."""
    frames = np.flatnonzero(known)
    positions = np.interp(np.arange(len(known)), frames, np.arange(len(frames)))
    low = np.floor(positions).astype(int)
    high = np.minimum(low + 1, len(frames) - 1)
    filled = poses[frames[low]].interpolated(poses[frames[high]], positions - low)
    rotation = filled.rotation.copy()
    rotation[frames] = poses.rotation[frames]
    return Rigid(rotation, filled.translation)


def anchor_object(
    xyz: Float[np.ndarray, "tracks frames 3"],
    weights: Float[np.ndarray, "tracks frames"],
    canonical: int,
    *,
    steady: bool = False,
) -> tuple[RigidMotion, Float[np.ndarray, "tracks 3"]]:
    """Estimate an object's dominant rigid motion and the canonical position of each of its tracks.

    Tracks visible in the canonical frame keep their observed positions. The motion is propagated
    outward frame by frame: each frame is aligned to the tracks of known canonical position, and
    tracks first visible in it are mapped back by its pose. A few rounds of re-estimating one from
    the other distribute the error. Where all tracks were lost, the new ones are assumed to lie
    where the object was, shifted by the displacement of its centre; fewer than `MIN_TRACKS` (or
    than the object ever has) are outliers that do not move it.

    An object with too few tracks in the canonical frame is anchored in the frame with the most, and
    does not move between the canonical frame and the nearest one in which it is visible.

    Args:
        xyz: lifted trajectories of one object.
        weights: confidence, zero where not visible; every track is visible somewhere.
        canonical: frame index.
        steady: the object is nearly static; where all tracks are lost, it is not moved.

    Returns:
        The motion, identity at the anchor frame, and canonical positions.

    Reference: Eq. 11, with occluded correspondences recovered.
    """
    visible = weights > 0
    enough = min(MIN_TRACKS, int(visible.sum(0).max()))
    anchor = canonical if visible[:, canonical].sum() >= enough else int(visible.sum(0).argmax())
    points = np.where(visible[:, anchor, None], xyz[:, anchor], 0.0)
    known = visible[:, anchor].copy()
    trusted = weights.copy()
    frames = xyz.shape[1]
    noise = trajectory_noise(xyz, visible) if steady else 0.0
    rotations, translations = np.tile(np.eye(3), (frames, 1, 1)), np.zeros((frames, 3))
    for step in (1, -1):
        for frame in range(anchor + step, frames if step > 0 else -1, step):
            pose = Rigid(rotations[frame - step], translations[frame - step])
            if steady:
                pose = Rigid.identity()
            seen = visible[:, frame]
            new = seen & ~known
            if seen.sum() < enough and not (seen & known).any():
                trusted[:, frame] = 0  # outliers get a position, but no weight
            else:
                pose = _next_pose(
                    points, xyz[:, frame], weights[:, frame], known, pose, steady, noise
                )
                known |= new
            rotations[frame], translations[frame] = pose.rotation, pose.translation
            points[new] = (xyz[new, frame] - pose.translation) @ pose.rotation

    motion = RigidMotion(np.zeros(3), Rigid(rotations, translations))
    later = ~visible[:, anchor]
    for _ in range(4):
        motion = align_cluster(
            points, xyz, trusted, noise=noise, expected_angle=_STEADY if steady else np.inf
        )
        if steady:
            motion = _without_drift(_smoothed(motion, weights, points), weights, anchor)
        if not later.any():
            break
        back = motion.undo(xyz[later])
        spread = weights[later, :, None] / weights[later].sum(1)[:, None, None]
        points[later] = (spread * back).sum(1)
    return _rebase(motion, points, later, anchor)


def frame_blocks(weights: Float[np.ndarray, "tracks frames"]) -> Int[np.ndarray, " frames"]:
    """Return the block of frames that common tracks connect each frame to; -1 without tracks."""
    visible = (weights > 0).astype(float)
    shared = visible.T @ visible  # [T, T] tracks visible in both frames
    enough = np.minimum(MIN_TRACKS, np.minimum.outer(np.diag(shared), np.diag(shared)).clip(1))
    _, block = connected_components(shared >= enough, directed=False)
    return np.where(np.diag(shared) > 0, block, -1)


def _smoothed(
    motion: RigidMotion,
    weights: Float[np.ndarray, "tracks frames"],
    points: Float[np.ndarray, "tracks 3"],
) -> RigidMotion:
    """Smooth a motion over time, each frame weighted by its number of visible tracks.

    A narrow visible strip of a disappearing object would otherwise rotate with its depth noise.
    """
    frames = np.arange(weights.shape[1])
    share = np.exp(-0.5 * (frames[:, None] - frames) ** 2 / _SMOOTH**2)
    share = share * ((weights > 0).sum(0) + 1e-6)
    share /= share.sum(1, keepdims=True)
    rotations = nearest_rotations(np.einsum("st,tij->sij", share, motion.rotations))
    centre = points.mean(0)
    shift = share @ (motion.apply(centre[None])[0] - centre)
    return RigidMotion(centre, Rigid(rotations, shift))


def _without_drift(
    motion: RigidMotion, weights: Float[np.ndarray, "tracks frames"], anchor: int
) -> RigidMotion:
    """Remove the mean drift relative to the carrier in blocks of frames that no track connects.

    Tracks do not constrain the pose of such a block relative to the anchor's; it would be decided
    by the few that are visible last before an occlusion. Frames next to the gap weigh most.
    """
    block = frame_blocks(weights)
    count = (weights > 0).sum(0)
    frames = np.arange(len(block))
    rotations, translations = motion.rotations.copy(), motion.translations.copy()
    for number in np.unique(block[(block >= 0) & (block != block[anchor])]):
        own = block == number
        gap = np.abs(frames[:, None] - frames[~own & (block >= 0)]).min(1)
        share = np.where(own, count * np.exp(-gap / MEMORY), 0.0)
        share /= share.sum()
        back = nearest_rotations(np.einsum("t,tij->ij", share, rotations)).T
        shift = back @ (share @ translations)
        translations[own] -= rotations[own] @ shift
        rotations[own] = rotations[own] @ back
    return RigidMotion(motion.centre, Rigid(rotations, translations))


def _next_pose(
    points: Float[np.ndarray, "tracks 3"],
    xyz: Float[np.ndarray, "tracks 3"],
    weights: Float[np.ndarray, " tracks"],
    known: Bool[np.ndarray, " tracks"],
    previous: Rigid[np.ndarray],
    steady: bool,
    noise: float,
) -> Rigid[np.ndarray]:
    """Return the pose of a frame from its neighbour's, by the displacement of the known tracks."""
    seen = weights > 0
    common = seen & known
    if not common.any():
        if steady:
            return previous
        shift = np.median(xyz[seen], 0) - np.median(previous.apply(points[known]), 0)
        return Rigid(previous.rotation, previous.translation + shift)
    moved, target, weight = previous.apply(points[common]), xyz[common], weights[common]
    # A handful of tracks does not rotate an object that is nearly static.
    prior = np.array((noise / _STEADY) ** 2 / int(common.sum()))
    delta = procrustes(moved, target, weight, prior).rigid
    for _ in range(3):
        error = np.linalg.norm(delta.apply(moved) - target, axis=-1)
        delta = procrustes(moved, target, weight * _huber(error, weight > 0), prior).rigid
    return delta @ previous


def _rebase(
    motion: RigidMotion,
    points: Float[np.ndarray, "tracks 3"],
    later: Bool[np.ndarray, " tracks"],
    frame: int,
) -> tuple[RigidMotion, Float[np.ndarray, "tracks 3"]]:
    """Make a motion the identity at a frame, where the points that are not `later` were visible."""
    about = motion.about @ motion.about[frame].inverse()
    rotations, translations = about.rotation.copy(), about.translation.copy()
    rotations[frame], translations[frame] = np.eye(3), 0.0
    points = points.copy()
    points[later] = motion.apply(points[later])[:, frame]
    return RigidMotion(motion.centre, Rigid(rotations, translations)), points
