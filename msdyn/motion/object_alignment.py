"""The dominant rigid motion of a whole object (L1) and the canonical positions of its tracks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components

from msdyn.geometry import Rigid, nearest_rotations, procrustes
from msdyn.motion.alignment import (
    MIN_TRACKS,
    RigidMotion,
    align_cluster,
    huber_weights,
    trajectory_noise,
)

__all__ = ["TIME_CONSTANT", "anchor_object", "frame_blocks"]

# Time constant, frames, of weights that decrease with the temporal distance from an occlusion.
TIME_CONSTANT = 6.0
# Prior standard deviation of the rotation, radians, of an object relative to its carrier.
_EXPECTED_ANGLE = 0.1
# Standard deviation, frames, of the temporal smoothing of nearly static objects.
_SMOOTHING = 1.5


def anchor_object(
    xyz: Float[np.ndarray, "tracks frames 3"],
    weights: Float[np.ndarray, "tracks frames"],
    canonical: int,
    *,
    nearly_static: bool = False,
) -> tuple[RigidMotion, Float[np.ndarray, "tracks 3"]]:
    """Estimate an object's dominant rigid motion and the canonical position of each of its tracks.

    Tracks visible in the canonical frame keep their observed positions. The motion is propagated
    outward frame by frame: each frame is aligned to the tracks of known canonical position, and
    tracks first visible in it are mapped undone by its pose. A few alternating re-estimations
    distribute the error. If no known track is visible in a frame, the object is translated so that
    the medians of the new tracks and of the object coincide, unless there are fewer new tracks than
    `MIN_TRACKS` (or than the object has in any frame), which are outliers.

    An object with too few tracks in the canonical frame is anchored in the frame with the most, and
    does not move between the canonical frame and the nearest one in which it is visible.

    Args:
        xyz: lifted trajectories of one object.
        weights: confidence, zero where not visible; every track is visible in some frame.
        canonical: frame index.
        nearly_static: whether the object is nearly static; then it is not moved while all its
            tracks are lost.

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
    noise = trajectory_noise(xyz, visible) if nearly_static else 0.0
    rotations, translations = np.tile(np.eye(3), (frames, 1, 1)), np.zeros((frames, 3))
    for step in (1, -1):
        for frame in range(anchor + step, frames if step > 0 else -1, step):
            pose = Rigid(rotations[frame - step], translations[frame - step])
            if nearly_static:
                pose = Rigid.identity()
            observed = visible[:, frame]
            new = observed & ~known
            if observed.sum() < enough and not (observed & known).any():
                trusted[:, frame] = 0  # outliers get a position, but no weight
            else:
                pose = _next_pose(
                    points, xyz[:, frame], weights[:, frame], known, pose, nearly_static, noise
                )
                known |= new
            rotations[frame], translations[frame] = pose.rotation, pose.translation
            points[new] = (xyz[new, frame] - pose.translation) @ pose.rotation

    motion = RigidMotion(np.zeros(3), Rigid(rotations, translations))
    later = ~visible[:, anchor]
    for _ in range(4):
        motion = align_cluster(
            points,
            xyz,
            trusted,
            noise=noise,
            expected_angle=_EXPECTED_ANGLE if nearly_static else np.inf,
        )
        if nearly_static:
            motion = _without_drift(_smoothed(motion, weights, points), weights, anchor)
        if not later.any():
            break
        undone = motion.undo(xyz[later])
        normalised = weights[later, :, None] / weights[later].sum(1)[:, None, None]
        points[later] = (normalised * undone).sum(1)
    return _rebase(motion, points, later, anchor)


def frame_blocks(weights: Float[np.ndarray, "tracks frames"]) -> Int[np.ndarray, " frames"]:
    """Label frames by connected component, frames with common tracks being connected.

    The label is -1 for frames without tracks.
    """
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

    Otherwise the few tracks of an almost occluded object would rotate it by their depth noise.
    """
    frames = np.arange(weights.shape[1])
    kernel = np.exp(-0.5 * (frames[:, None] - frames) ** 2 / _SMOOTHING**2)
    kernel = kernel * ((weights > 0).sum(0) + 1e-6)
    kernel /= kernel.sum(1, keepdims=True)
    rotations = nearest_rotations(np.einsum("st,tij->sij", kernel, motion.rotations))
    centre = points.mean(0)
    translation = kernel @ (motion.apply(centre[None])[0] - centre)
    return RigidMotion(centre, Rigid(rotations, translation))


def _without_drift(
    motion: RigidMotion, weights: Float[np.ndarray, "tracks frames"], anchor: int
) -> RigidMotion:
    """Remove the mean drift relative to the carrier in blocks of frames that no track connects.

    Tracks do not constrain the pose of such a block relative to that of the anchor; it would depend
    on the few tracks visible just before the occlusion. Frames next to the gap weigh most.
    """
    block = frame_blocks(weights)
    count = (weights > 0).sum(0)
    frames = np.arange(len(block))
    rotations, translations = motion.rotations.copy(), motion.translations.copy()
    for label in np.unique(block[(block >= 0) & (block != block[anchor])]):
        own = block == label
        gap = np.abs(frames[:, None] - frames[~own & (block >= 0)]).min(1)
        weight = np.where(own, count * np.exp(-gap / TIME_CONSTANT), 0.0)
        weight /= weight.sum()
        inverse_rotation = nearest_rotations(np.einsum("t,tij->ij", weight, rotations)).T
        drift = inverse_rotation @ (weight @ translations)
        translations[own] -= rotations[own] @ drift
        rotations[own] = rotations[own] @ inverse_rotation
    return RigidMotion(motion.centre, Rigid(rotations, translations))


def _next_pose(
    points: Float[np.ndarray, "tracks 3"],
    xyz: Float[np.ndarray, "tracks 3"],
    weights: Float[np.ndarray, " tracks"],
    known: Bool[np.ndarray, " tracks"],
    previous: Rigid[np.ndarray],
    nearly_static: bool,
    noise: float,
) -> Rigid[np.ndarray]:
    """Return the pose of a frame from its neighbour's and the displacement of known tracks."""
    visible = weights > 0
    common = visible & known
    if not common.any():
        if nearly_static:
            return previous
        shift = np.median(xyz[visible], 0) - np.median(previous.apply(points[known]), 0)
        return Rigid(previous.rotation, previous.translation + shift)
    moved, target, weight = previous.apply(points[common]), xyz[common], weights[common]
    # The prior prevents a few tracks from rotating a nearly static object.
    prior = np.array((noise / _EXPECTED_ANGLE) ** 2 / int(common.sum()))
    delta = procrustes(moved, target, weight, prior).rigid
    for _ in range(3):
        error = np.linalg.norm(delta.apply(moved) - target, axis=-1)
        delta = procrustes(moved, target, weight * huber_weights(error, weight > 0), prior).rigid
    return delta @ previous


def _rebase(
    motion: RigidMotion,
    points: Float[np.ndarray, "tracks 3"],
    later: Bool[np.ndarray, " tracks"],
    frame: int,
) -> tuple[RigidMotion, Float[np.ndarray, "tracks 3"]]:
    """Make a motion the identity at a frame and map points to it; others were observed there.

    Args:
        motion: of the object.
        points: canonical positions.
        later: points not visible in the frame.
        frame: the anchor frame.
    """
    about = motion.about @ motion.about[frame].inverse()
    rotations, translations = about.rotation.copy(), about.translation.copy()
    rotations[frame], translations[frame] = np.eye(3), 0.0
    points = points.copy()
    points[later] = motion.apply(points[later])[:, frame]
    return RigidMotion(motion.centre, Rigid(rotations, translations)), points
