"""Rigid motion over time of one cluster of tracks, by robust weighted Procrustes a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components

from msdyn.geometry import (
    apply_rigid,
    interpolate_rotations,
    invert_rigid,
    nearest_rotations,
    procrustes,
)

__all__ = [
    "MEMORY",
    "MIN_TRACKS",
    "RigidMotion",
    "align_cluster",
    "anchor_object",
    "frame_blocks",
    "inliers",
    "interpolate_missing",
    "places_at_rest",
    "trajectory_noise",
]

# Tracks needed to take a pose from them alone, with one to spare; no cluster is made of fewer.
MIN_TRACKS = 4
# Radians that an object is expected to turn at most against what carries it.
_STEADY = 0.1
# The motion of what nearly stands still is averaged over time, by a Gaussian of this sigma, frames.
_SMOOTH = 1.5
# Frames over which it is forgotten what moved alike.
MEMORY = 6.0
# A sighting this many times as far off as is usual is taken for another surface's.
_OUTLIER = 8.0


@dataclass(frozen=True)
class RigidMotion:
    """A rigid motion over T frames about a pivot: x_t = R_t (x - centre) + centre + t_t.

    Attributes:
        centre: [3] pivot.
        rotations: [T, 3, 3].
        translations: [T, 3] scene units.
    """

    centre: np.ndarray
    rotations: np.ndarray
    translations: np.ndarray

    @classmethod
    def identity(cls, centre: np.ndarray, frames: int) -> RigidMotion:
        return cls(centre, np.tile(np.eye(3), (frames, 1, 1)), np.zeros((frames, 3)))

    def inverse(self) -> RigidMotion:
        """Return the motion that undoes this one."""
        back = self.rotations.swapaxes(1, 2)
        return RigidMotion(self.centre, back, -np.einsum("tij,tj->ti", back, self.translations))

    def after(self, first: RigidMotion) -> RigidMotion:
        """Return the motion that does `first`, then this one."""
        rotations = self.rotations @ first.rotations
        moved = first.centre + first.translations - self.centre
        moved = np.einsum("tij,tj->ti", self.rotations, moved) + self.centre + self.translations
        return RigidMotion(first.centre, rotations, moved - first.centre)

    def at(self, frame: int) -> RigidMotion:
        """Return the pose of one frame, held at all times."""
        count = len(self.rotations)
        rotations = np.repeat(self.rotations[frame, None], count, axis=0)
        return RigidMotion(
            self.centre, rotations, np.repeat(self.translations[frame, None], count, axis=0)
        )

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Move canonical points [N, 3] to every frame: [N, T, 3]."""
        moved = np.einsum("tij,nj->nti", self.rotations, points - self.centre)
        return moved + self.centre + self.translations

    def undo(self, trajectories: np.ndarray) -> np.ndarray:
        """Carry trajectories [N, T, 3] back to the canonical frame."""
        centred = trajectories - self.centre - self.translations
        return np.einsum("tji,ntj->nti", self.rotations, centred) + self.centre


def trajectory_noise(trajectories: np.ndarray, visible: np.ndarray) -> float:
    """Estimate the noise (standard deviation of a coordinate) of trajectories.

    From second differences, which smooth motion hardly has: for white noise their variance is six
    times its own. Zero where no track has three steps in a row.
    """
    steps = visible[:, 2:] & visible[:, 1:-1] & visible[:, :-2]
    second = trajectories[:, 2:] - 2 * trajectories[:, 1:-1] + trajectories[:, :-2]
    if not steps.any():
        return 0.0
    return float(1.4826 * np.median(np.abs(second[steps])) / np.sqrt(6))


def places_at_rest(undone: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the canonical positions that undone trajectories say, and their spread.

    The median over time, then one step of robust averaging: a depth from behind the object in a few
    frames does not matter, and the noise of one frame is not taken for the shape.

    Args:
        undone: [N, T, 3] trajectories carried back to the canonical frame.
        weights: [N, T] confidence, zero where not visible; no row is all zero.

    Returns:
        Positions [N, 3], and the weighted mean squared distance from them [N].
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


def inliers(undone: np.ndarray, places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return which sightings a cluster's motion explains about as well as it does the others.

    Beside a silhouette a track takes the depth of what is behind; where it is alone in its frame it
    would carry a whole pattern there.

    Args:
        undone: [N, T, 3] trajectories carried back to the canonical frame.
        places: [N, 3] canonical positions.
        weights: [N, T] confidence, zero where not visible.

    Returns:
        [N, T] bool, True where not visible; no track loses all its sightings.
    """
    distance = np.linalg.norm(undone - places[:, None], axis=-1)
    visible = weights > 0
    if not visible.any():
        return np.ones_like(visible)
    # What deforms may be far from where a rigid motion has it, but not by more than its own size.
    size = np.sqrt(places.var(0).sum())
    good = distance <= max(_OUTLIER * float(np.median(distance[visible])), 0.5 * size)
    good |= ~(good & visible).any(1, keepdims=True)
    return good | ~visible


def align_cluster(
    points: np.ndarray,
    trajectories: np.ndarray,
    weights: np.ndarray,
    *,
    noise: float = 0.0,
    expected_angle: float = np.inf,
    expected_shift: float = np.inf,
) -> RigidMotion:
    """Fit a rigid motion to a cluster, robustly, with rotations no larger than the data ask for.

    Frames in which no track has weight are interpolated on SE(3), held at the ends. So are the
    rotations of frames with too few tracks, where no prior says what else they would be.

    Args:
        points: [N, 3] canonical positions.
        trajectories: [N, T, 3] positions in each frame.
        weights: [N, T] confidence, zero where not visible.
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
    source = torch.from_numpy(points - centre)[None]  # [1, N, 3]
    target = torch.from_numpy(trajectories - centre).transpose(0, 1)  # [T, N, 3]
    confidence = torch.from_numpy(weights).T.contiguous()  # [T, N]
    effective = confidence.sum(1) ** 2 / (confidence**2).sum(1).clamp_min(1e-12)  # [T]
    prior = noise**2 / (effective.clamp_min(1) * expected_angle**2)
    robust = confidence
    for _ in range(4):
        rotation, translation, _ = procrustes(source, target, robust, prior)
        error = (apply_rigid(rotation[:, None], translation[:, None], source) - target).norm(dim=-1)
        robust = confidence * _huber(error, confidence > 0)
    count = (weights > 0).sum(0)
    if np.isinf(expected_angle):
        enough = count >= min(MIN_TRACKS, count.max())
        rotation = torch.from_numpy(interpolate_missing(rotation, translation, enough)[0])
    # The translation that goes with the rotation, shrunk by its own prior.
    rotated = (rotation @ source.mT).mT  # [T, N, 3]
    share = robust / robust.sum(1, keepdim=True).clamp_min(1e-12)
    shift = (share.unsqueeze(-1) * (target - rotated)).sum(1)
    shrink = effective / (effective + (noise / expected_shift) ** 2).clamp_min(1e-12)
    shift = shrink.unsqueeze(-1) * shift
    rotations, translations = interpolate_missing(rotation, shift, count > 0)
    return RigidMotion(centre, rotations, translations)


def _huber(error: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return Huber weights with one threshold for all frames, so that no frame changes its mind."""
    if not bool(valid.any()):
        return torch.ones_like(error)
    threshold = 2.5 * error[valid].median() / 1.54  # 1.54: median length of a unit 3D normal
    return (threshold / error.clamp_min(1e-12)).clamp_max(1.0)


def interpolate_missing(
    rotations: torch.Tensor, translations: torch.Tensor, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fill frames that are not `seen` from the nearest seen ones; outside them, hold."""
    known = np.flatnonzero(seen)
    positions = np.interp(np.arange(len(seen)), known, np.arange(len(known)))
    low = np.floor(positions).astype(int)
    high = np.minimum(low + 1, len(known) - 1)
    fraction = torch.from_numpy(positions - low)
    start, end = known[low], known[high]
    filled = interpolate_rotations(rotations[start], rotations[end], fraction)
    filled[known] = rotations[known]
    shift = torch.lerp(translations[start], translations[end], fraction[:, None])
    return filled.numpy(), shift.numpy()


def anchor_object(
    xyz: np.ndarray, weights: np.ndarray, canonical: int, *, steady: bool = False
) -> tuple[RigidMotion, np.ndarray]:
    """Find an object's dominant rigid motion and the canonical position of each of its tracks.

    Tracks visible in the canonical frame are where they were seen. The motion is then carried
    outward frame by frame: each frame is aligned to the tracks of known canonical position, and
    tracks first seen in it are carried back by its pose; a few rounds of re-estimating one from
    the other spread the error. Where every track was lost, the new ones are taken to lie where
    the object was, moved by the shift of its centre; fewer than four (or than it ever has) are
    strays, which do not move it.

    An object with too few tracks in the canonical frame is anchored in the frame with the most, and
    keeps still from the canonical frame to the nearest one in which it is seen.

    Args:
        xyz: [N, T, 3] lifted trajectories of one object.
        weights: [N, T] confidence, zero where not visible; every track visible somewhere.
        canonical: frame index.
        steady: the object nearly stands still; where all tracks are lost, it is not moved.

    Returns:
        The motion, identity at the anchor frame, and canonical positions [N, 3].

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
    rotations = np.tile(np.eye(3), (frames, 1, 1))
    translations = np.zeros((frames, 3))
    for step in (1, -1):
        for frame in range(anchor + step, frames if step > 0 else -1, step):
            pose = rotations[frame - step], translations[frame - step]
            if steady:
                pose = np.eye(3), np.zeros(3)
            seen = visible[:, frame]
            new = seen & ~known
            if seen.sum() < enough and not (seen & known).any():
                trusted[:, frame] = 0  # strays are placed, but move nothing
            else:
                pose = _next_pose(
                    points, xyz[:, frame], weights[:, frame], known, pose, steady, noise
                )
                known |= new
            rotations[frame], translations[frame] = pose
            points[new] = (xyz[new, frame] - pose[1]) @ pose[0]

    motion = RigidMotion(np.zeros(3), rotations, translations)
    later = ~visible[:, anchor]
    for _ in range(4):
        motion = align_cluster(
            points, xyz, trusted, noise=noise, expected_angle=_STEADY if steady else np.inf
        )
        if steady:
            motion = _steadied(_smoothed(motion, weights, points), weights, anchor)
        if not later.any():
            break
        back = motion.undo(xyz[later])
        spread = weights[later, :, None] / weights[later].sum(1)[:, None, None]
        points[later] = (spread * back).sum(1)
    return _rebase(motion, points, later, anchor)


def frame_blocks(weights: np.ndarray) -> np.ndarray:
    """Return the block of frames that tracks [N, T] join each frame [T] to; -1 without tracks."""
    visible = (weights > 0).astype(float)
    shared = visible.T @ visible  # [T, T] tracks seen in both frames
    enough = np.minimum(MIN_TRACKS, np.minimum.outer(np.diag(shared), np.diag(shared)).clip(1))
    _, block = connected_components(shared >= enough, directed=False)
    return np.where(np.diag(shared) > 0, block, -1)


def _smoothed(motion: RigidMotion, weights: np.ndarray, points: np.ndarray) -> RigidMotion:
    """Average a motion over a few frames, each counting by how many tracks are seen in it.

    The narrow strip left of an object that disappears turns with every error of its depth.
    """
    frames = np.arange(weights.shape[1])
    share = np.exp(-0.5 * (frames[:, None] - frames) ** 2 / _SMOOTH**2)
    share = share * ((weights > 0).sum(0) + 1e-6)
    share /= share.sum(1, keepdims=True)
    rotations = nearest_rotations(np.einsum("st,tij->sij", share, motion.rotations))
    centre = points.mean(0)
    shift = share @ (motion.apply(centre[None])[0] - centre)
    return RigidMotion(centre, rotations, shift)


def _steadied(motion: RigidMotion, weights: np.ndarray, anchor: int) -> RigidMotion:
    """Let an object be still on the mean where no track joins its frames to those of the anchor.

    How such frames lie to the others their tracks do not say: the few that are seen last before an
    object disappears would decide. Frames next to the gap count most.
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
    return RigidMotion(motion.centre, rotations, translations)


def _next_pose(
    points: np.ndarray,
    xyz: np.ndarray,
    weights: np.ndarray,
    known: np.ndarray,
    previous: tuple[np.ndarray, np.ndarray],
    steady: bool,
    noise: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pose (R, t) of a frame from its neighbour's, by the change of the known tracks."""
    rotation, translation = previous
    seen = weights > 0
    common = seen & known
    if not common.any():
        if steady:
            return previous
        shift = np.median(xyz[seen], 0) - np.median(points[known] @ rotation.T + translation, 0)
        return rotation, translation + shift
    moved = torch.from_numpy(points[common] @ rotation.T + translation)
    target = torch.from_numpy(xyz[common])
    weight = torch.from_numpy(weights[common])
    # Half a dozen tracks do not turn what nearly stands still.
    prior = weight.new_tensor((noise / _STEADY) ** 2 / int(common.sum()))
    robust = weight
    delta, shift, _ = procrustes(moved, target, robust, prior)
    for _ in range(3):
        error = (apply_rigid(delta, shift, moved) - target).norm(dim=-1)
        robust = weight * _huber(error, weight > 0)
        delta, shift, _ = procrustes(moved, target, robust, prior)
    return delta.numpy() @ rotation, delta.numpy() @ translation + shift.numpy()


def _rebase(
    motion: RigidMotion, points: np.ndarray, later: np.ndarray, frame: int
) -> tuple[RigidMotion, np.ndarray]:
    """Make a motion the identity at a frame, where the points that are not `later` were seen."""
    rotation = torch.from_numpy(motion.rotations)
    translation = torch.from_numpy(motion.translations)
    back_rotation, back_shift = invert_rigid((rotation[frame], translation[frame]))
    rotations = (rotation @ back_rotation).numpy()
    translations = (apply_rigid(rotation, translation, back_shift)).numpy()
    rotations[frame], translations[frame] = np.eye(3), 0.0
    points = points.copy()
    points[later] = motion.apply(points[later])[:, frame]
    return RigidMotion(motion.centre, rotations, translations), points
