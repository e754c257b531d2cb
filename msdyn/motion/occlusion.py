"""Motion of occluded clusters, inferred from visible clusters with similar motion.

The paper (III-C) does not treat occlusions; this is ours.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from msdyn.geometry import Rigid, nearest_rotations
from msdyn.motion.alignment import RigidMotion, interpolate_missing, trajectory_noise
from msdyn.motion.object_alignment import TIME_CONSTANT

__all__ = ["carrier_through_occlusion", "infer_occluded_motions", "pose_variance"]

# Time constant, frames, of the weights that average a cluster's pose relative to its reference next
# to an occlusion: the last few tracks alone would rotate it by their depth noise.
_EDGE_TIME_CONSTANT = 3.0
# A carrier explains an object's motion if it leaves at most this fraction of the variance of the
# object's positions.
_UNEXPLAINED = 0.25


def infer_occluded_motions(
    motions: list[RigidMotion],
    points: list[Float[np.ndarray, "_ 3"]],
    visible: Bool[np.ndarray, "clusters frames"],
    parent: RigidMotion,
    variance: Float[np.ndarray, "clusters frames"],
) -> list[RigidMotion]:
    """Infer the motion of occluded clusters from the visible cluster with the most similar motion.

    An occluded part is often rigidly connected to a visible one, such as the keys of a laptop to
    its front edge. Candidates for the reference are the other clusters, the level above, and the
    static world. In occluded frames the motion is that of the reference, composed with the relative
    pose of the two before and after the occlusion, unless the pose estimated from the remaining
    visible tracks has a lower expected error.

    Args:
        motions: of K clusters of one object, relative to the level above.
        points: canonical positions [N_k, 3] of the tracks of each.
        visible: whether enough of a cluster's tracks are visible.
        parent: the motion of the level above.
        variance: expected squared error of the estimated motions, scene units squared; infinite
            without visible tracks.

    Returns:
        The motions, unchanged where clusters are visible.
    """
    count, frames = visible.shape
    static = [RigidMotion.identity(parent.centre, frames), parent.inverse()]
    # Motions of clusters and further candidates, and in which frames they are known and observed.
    filled, known = [*motions, *static], np.vstack([visible, np.ones((2, frames), bool)])
    observed = known.copy()
    relative = [
        # Points rigidly connected to a candidate are static in its coordinate system.
        [other.undo(motion.apply(own)) for other in (*motions, *static)]
        for motion, own in zip(motions, points, strict=True)
    ]
    runs = [(number, run) for number in range(count) for run in _runs(~visible[number])]
    # Short occlusions first: a filled cluster can be the reference during longer ones.
    for number, run in sorted(runs, key=lambda entry: len(entry[1])):
        gap = np.abs(np.arange(frames)[:, None] - run).min(1)
        nearness = np.where(visible[number], np.exp(-gap / TIME_CONSTANT), 0.0)
        cost = np.full(len(filled), np.inf)
        for row, trajectories in enumerate(relative[number]):
            weight = nearness * observed[row]
            if row != number and known[row, run].all() and (weight > 0).sum() >= 2:
                cost[row] = _temporal_variance(trajectories, weight / weight.sum())
        if np.isfinite(cost).any():
            best = int(cost.argmin())
            inferred = _composed_with_reference(
                filled[best], motions[number], observed[best] & visible[number], run
            )
            own = filled[number]
            rotations, translations = own.rotations.copy(), own.translations.copy()
            worse = run[variance[number, run] > cost[best]]
            rotations[worse] = inferred.rotations[worse]
            translations[worse] = inferred.translations[worse]
            filled[number] = RigidMotion(own.centre, Rigid(rotations, translations))
            known[number, run] = True
    return filled[:count]


def pose_variance(
    points: Float[np.ndarray, "tracks 3"],
    weights: Float[np.ndarray, "tracks frames"],
    noise: float,
    expected_angle: float,
    min_tracks: int,
) -> Float[np.ndarray, " frames"]:
    """Return the expected squared error of a cluster's pose in each frame, scene units squared.

    It is the mean over all points of the cluster, so it is large for nearly collinear tracks, which
    determine the rotation about their line badly.

    Args:
        points: canonical positions.
        weights: zero where not visible.
        noise: standard deviation of a coordinate of a track, scene units.
        expected_angle: prior standard deviation of rotations, radians.
        min_tracks: frames with fewer visible tracks get infinity.
    """
    variance = np.full(weights.shape[1], np.inf)
    for frame in np.flatnonzero((weights > 0).sum(0) >= min_tracks):
        own = points[weights[:, frame] > 0]
        mean = own.mean(0)
        information = _inertia(own - mean) + (noise / expected_angle) ** 2 * np.eye(3)
        # Covariance of the rotation, applied to all points of the cluster.
        rotational = np.linalg.pinv(information) @ _inertia(points - mean)
        variance[frame] = noise**2 * (np.trace(rotational) / len(points) + 3 / len(own))
    return variance


def _inertia(points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "3 3"]:
    """Return the sum over points of |p|^2 I - p p^T, the tensor of inertia for unit masses."""
    return (points**2).sum() * np.eye(3) - points.T @ points


def _runs(mask: Bool[np.ndarray, " frames"]) -> list[Int[np.ndarray, " _"]]:
    """Return the indices of each run of True."""
    index = np.flatnonzero(mask)
    return np.split(index, np.flatnonzero(np.diff(index) > 1) + 1) if len(index) else []


def _temporal_variance(
    trajectories: Float[np.ndarray, "points frames 3"], weights: Float[np.ndarray, " frames"]
) -> float:
    """Return the mean variance of trajectories over time, under weights that sum to one."""
    mean = np.einsum("t,ntj->nj", weights, trajectories)
    return float(np.einsum("t,ntj->", weights, (trajectories - mean[:, None]) ** 2) / len(mean))


def _composed_with_reference(
    reference: RigidMotion,
    motion: RigidMotion,
    both: Bool[np.ndarray, " frames"],
    run: Int[np.ndarray, " occluded"],
) -> RigidMotion:
    """Return the motion of an occluded cluster that follows a reference motion.

    The pose relative to the reference is interpolated over the occluded frames, between averages
    over a few frames at either end.

    Args:
        reference: the motion to follow.
        motion: the estimated motion.
        both: frames in which both are visible; there `motion` is kept.
        run: indices of the occluded frames.
    """
    # The reference motion about this motion's pivot.
    shift = reference.apply(motion.centre[None])[0] - motion.centre
    about = Rigid(reference.rotations, shift)
    relative = about.inverse() @ motion.about
    rotation, offset = relative.rotation, relative.translation
    time = np.arange(len(both))
    mean_rotation, mean_offset = rotation.copy(), offset.copy()
    for side in (both & (time < run[0]), both & (time > run[-1])):
        if side.any():
            gap = np.where(side, np.abs(time[:, None] - run).min(1), np.inf)
            weight = np.exp(-gap / _EDGE_TIME_CONSTANT)
            weight /= weight.sum()
            edge = gap.argmin()
            mean_rotation[edge] = nearest_rotations(np.einsum("t,tij->ij", weight, rotation))
            mean_offset[edge] = weight @ offset
    relative = interpolate_missing(Rigid(mean_rotation, mean_offset), both)
    return RigidMotion(motion.centre, about @ relative)


def carrier_through_occlusion(
    xyz: Float[np.ndarray, "tracks frames 3"],
    weights: Float[np.ndarray, "tracks frames"],
    carriers: list[RigidMotion],
    canonical: int,
) -> RigidMotion | None:
    """Return the motion of the part that carries an object while all the object's tracks are lost.

    Tracks that start when an object reappears do not constrain its rotation during the occlusion.
    The motion of the parts that carry it before and after, such as a hand, does. If these are two
    different parts, the carrier is switched at the frame of least relative motion between them.
    Relative to this motion the object is nearly static and can be aligned across the occlusion.

    Args:
        xyz: lifted trajectories of one object.
        weights: confidence, zero where not visible.
        carriers: motions, in the world, of the parts of all other objects.
        canonical: frame in which the motion is the identity.

    Returns:
        The motion; None if tracks connect both sides of every gap, or if no part carries the
        object.
    """
    visible = weights > 0
    frames = visible.shape[1]
    noise = trajectory_noise(xyz, visible)
    carriers = [*carriers, RigidMotion.identity(np.zeros(3), frames)]
    result = None
    for run in _runs(visible.sum(0) == 0):
        first, last = run[0], run[-1]
        if first == 0 or last == frames - 1:
            continue
        if (visible[:, :first].any(1) & visible[:, last + 1 :].any(1)).any():
            continue
        time = np.arange(frames)
        sides = []
        for gap in (first - time, time - last):
            nearness = np.where(gap > 0, np.exp(-gap / TIME_CONSTANT), 0.0)
            spread = [_median_temporal_variance(c.undo(xyz), visible * nearness) for c in carriers]
            # The last candidate is the static world.
            if min(spread) <= max(_UNEXPLAINED * spread[-1], 12 * noise**2):
                sides.append(carriers[int(np.argmin(spread))])
        if len(sides) < 2:
            continue
        before, after = sides if result is None else (result, sides[1])
        # The object, moved by the first carrier, in the coordinate system of the second one.
        held = before.apply(before.undo(xyz)[visible[:, :first].any(1), first - 1])
        relative_speed = np.linalg.norm(np.diff(after.undo(held), axis=1), axis=-1).mean(0)
        switch = int(run[0] - 1 + relative_speed[first - 1 : last + 1].argmin())
        second = after.after(after.at(switch).inverse()).after(before.at(switch))
        later = (time > switch)[:, None]
        result = RigidMotion(
            before.centre,  # also the pivot of `second`
            Rigid(
                np.where(later[..., None], second.rotations, before.rotations),
                np.where(later, second.translations, before.translations),
            ),
        )
    return None if result is None else result.after(result.at(canonical).inverse())


def _median_temporal_variance(
    undone: Float[np.ndarray, "tracks frames 3"], weights: Float[np.ndarray, "tracks frames"]
) -> float:
    """Return the weighted variance of trajectories over time, as the median over the tracks.

    The median is robust against tracks that drift to another surface.
    """
    rows = (weights > 0).sum(1) >= 2
    if not rows.any():
        return np.inf
    undone, weights = undone[rows], weights[rows]
    total = weights.sum(1)
    normalised = weights / total[:, None]
    mean = np.einsum("nt,ntj->nj", normalised, undone)
    variance = (normalised * ((undone - mean[:, None]) ** 2).sum(-1)).sum(1)
    order = variance.argsort()
    half = np.cumsum(total[order]).searchsorted(total.sum() / 2)
    return float(variance[order[half]])
