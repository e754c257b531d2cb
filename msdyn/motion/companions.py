"""Inferring the motion of occluded clusters from visible ones with the most similar motion.

The paper (III-C) leaves occlusions open; this is ours.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from msdyn.geometry import Rigid, nearest_rotations
from msdyn.motion.alignment import MEMORY, RigidMotion, interpolate_missing, trajectory_noise

__all__ = ["follow_companions", "guide_through_occlusion", "pose_variance"]

# Time constant, frames, of the weights that average a cluster's pose relative to its companion
# next to an occlusion: the last few tracks alone would rotate with their depth noise.
_EDGE = 3.0
# Maximum share of the variance of an object's positions that is left relative to its carrier.
_CARRIED = 0.25


def follow_companions(
    motions: list[RigidMotion],
    points: list[Float[np.ndarray, "_ 3"]],
    seen: Bool[np.ndarray, "clusters frames"],
    parent: RigidMotion,
    variance: Float[np.ndarray, "clusters frames"],
) -> list[RigidMotion]:
    """Infer the motion of occluded clusters from the visible cluster with the most similar motion.

    An occluded part is often rigidly joined to a visible one: the keys of a laptop to its front
    edge, say, and not to the lid that occludes them. Candidates are the other clusters, the level
    above, and the static world. An occluded frame takes the companion's motion, composed with the
    relative pose of the two before and after the occlusion, unless the few tracks left in it are
    expected to be more accurate.

    Args:
        motions: of K clusters of one object, relative to the level above.
        points: canonical positions [N_k, 3] of the tracks of each.
        seen: whether enough of a cluster's tracks are visible.
        parent: the motion of the level above.
        variance: squared error, scene units, expected of the motions as they are; infinite where no
            tracks are visible.

    Returns:
        The motions, unchanged where clusters are visible.
    """
    count, frames = seen.shape
    static = [RigidMotion.identity(parent.centre, frames), parent.inverse()]
    # Motions of clusters and of the static candidates; where they are known, and were observed.
    filled, known = [*motions, *static], np.vstack([seen, np.ones((2, frames), bool)])
    observed = known.copy()
    relative = [
        # In a companion's frame, points that are rigidly joined to it do not move.
        [other.undo(motion.apply(own)) for other in (*motions, *static)]
        for motion, own in zip(motions, points, strict=True)
    ]
    runs = [(number, run) for number in range(count) for run in _runs(~seen[number])]
    # Short occlusions first: clusters that are filled may be companions through longer ones.
    for number, run in sorted(runs, key=lambda entry: len(entry[1])):
        away = np.abs(np.arange(frames)[:, None] - run).min(1)
        nearness = np.where(seen[number], np.exp(-away / MEMORY), 0.0)
        cost = np.full(len(filled), np.inf)
        for row, trajectories in enumerate(relative[number]):
            both = nearness * observed[row]
            if row != number and known[row, run].all() and (both > 0).sum() >= 2:
                cost[row] = _spread(trajectories, both / both.sum())
        if np.isfinite(cost).any():
            best = int(cost.argmin())
            led = _following(filled[best], motions[number], observed[best] & seen[number], run)
            own = filled[number]
            rotations, translations = own.rotations.copy(), own.translations.copy()
            worse = run[variance[number, run] > cost[best]]
            rotations[worse], translations[worse] = led.rotations[worse], led.translations[worse]
            filled[number] = RigidMotion(own.centre, Rigid(rotations, translations))
            known[number, run] = True
    return filled[:count]


def pose_variance(
    points: Float[np.ndarray, "tracks 3"],
    weights: Float[np.ndarray, "tracks frames"],
    noise: float,
    expected_angle: float,
    least: int,
) -> Float[np.ndarray, " frames"]:
    """Return the squared error, scene units, expected of a cluster's pose in each frame.

    It is the mean over all points of the cluster: a narrow strip of tracks determines the rotation
    about it badly.

    Args:
        points: canonical positions.
        weights: zero where not visible.
        noise: standard deviation of a coordinate of a track, scene units.
        expected_angle: prior standard deviation of rotations, radians.
        least: tracks needed; infinity is returned for frames with fewer.
    """
    variance = np.full(weights.shape[1], np.inf)
    for frame in np.flatnonzero((weights > 0).sum(0) >= least):
        own = points[weights[:, frame] > 0]
        middle = own.mean(0)
        information = _inertia(own - middle) + (noise / expected_angle) ** 2 * np.eye(3)
        swing = np.linalg.pinv(information) @ _inertia(points - middle)
        variance[frame] = noise**2 * (np.trace(swing) / len(points) + 3 / len(own))
    return variance


def _inertia(points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "3 3"]:
    """Return the sum over points of |p|^2 I - p p^T: how far rotations displace them."""
    return (points**2).sum() * np.eye(3) - points.T @ points


def _runs(mask: Bool[np.ndarray, " frames"]) -> list[np.ndarray]:
    """Return the indices of each run of True."""
    index = np.flatnonzero(mask)
    return np.split(index, np.flatnonzero(np.diff(index) > 1) + 1) if len(index) else []


def _spread(
    trajectories: Float[np.ndarray, "points frames 3"], share: Float[np.ndarray, " frames"]
) -> float:
    """Return the mean variance of trajectories over time, under weights that sum to one."""
    mean = np.einsum("t,ntj->nj", share, trajectories)
    return float(np.einsum("t,ntj->", share, (trajectories - mean[:, None]) ** 2) / len(mean))


def _following(
    companion: RigidMotion, motion: RigidMotion, both: Bool[np.ndarray, " frames"], run: np.ndarray
) -> RigidMotion:
    """Return a motion that follows its companion through a run of frames.

    Its pose relative to the companion is interpolated between the two sides of the run, at the
    edges of which it is averaged over a few frames.

    Args:
        companion: the motion to follow.
        motion: the motion as estimated.
        both: frames in which both are visible; there `motion` is kept.
        run: indices of the occluded frames.
    """
    # The companion's motion about this one's pivot.
    shift = companion.apply(motion.centre[None])[0] - motion.centre
    leader = Rigid(companion.rotations, shift)
    relative = leader.inverse() @ motion.about
    rotation, offset = relative.rotation, relative.translation
    time = np.arange(len(both))
    mean_rotation, mean_offset = rotation.copy(), offset.copy()
    for side in (both & (time < run[0]), both & (time > run[-1])):
        if side.any():
            away = np.where(side, np.abs(time[:, None] - run).min(1), np.inf)
            share = np.exp(-away / _EDGE)
            share /= share.sum()
            edge = away.argmin()
            mean_rotation[edge] = nearest_rotations(np.einsum("t,tij->ij", share, rotation))
            mean_offset[edge] = share @ offset
    relative = interpolate_missing(Rigid(mean_rotation, mean_offset), both)
    return RigidMotion(motion.centre, leader @ relative)


def guide_through_occlusion(
    xyz: Float[np.ndarray, "tracks frames 3"],
    weights: Float[np.ndarray, "tracks frames"],
    carriers: list[RigidMotion],
    canonical: int,
) -> RigidMotion | None:
    """Return the motion of an object's carrier while all its tracks are lost.

    Tracks that start when an object reappears do not tell how it rotated meanwhile; the parts that
    held it before and hold it after do. Where these differ, the carrier is switched when the two
    move least relative to one another. In the frame of this motion the object is nearly static, and
    can be aligned across the gap.

    Args:
        xyz: lifted trajectories of one object.
        weights: confidence, zero where not visible.
        carriers: motions, in the world, of the parts of all other objects.
        canonical: frame in which the motion is to be the identity.

    Returns:
        The motion, or None where the tracks bridge every gap, or nothing carries the object.
    """
    visible = weights > 0
    frames = visible.shape[1]
    noise = trajectory_noise(xyz, visible)
    carriers = [*carriers, RigidMotion.identity(np.zeros(3), frames)]
    guide = None
    for run in _runs(visible.sum(0) == 0):
        first, last = run[0], run[-1]
        if first == 0 or last == frames - 1:
            continue
        if (visible[:, :first].any(1) & visible[:, last + 1 :].any(1)).any():
            continue
        time = np.arange(frames)
        sides = []
        for away in (first - time, time - last):
            nearness = np.where(away > 0, np.exp(-away / MEMORY), 0.0)
            spread = [_median_spread(c.undo(xyz), visible * nearness) for c in carriers]
            # A carrier must explain most of the object's motion; otherwise the object is static.
            if min(spread) <= max(_CARRIED * spread[-1], 12 * noise**2):
                sides.append(carriers[int(np.argmin(spread))])
        if len(sides) < 2:
            continue
        before, after = sides if guide is None else (guide, sides[1])
        # The object, moved with its carrier before the gap, in the frame of the one after it.
        held = before.apply(before.undo(xyz)[visible[:, :first].any(1), first - 1])
        slip = np.linalg.norm(np.diff(after.undo(held), axis=1), axis=-1).mean(0)
        change = int(run[0] - 1 + slip[first - 1 : last + 1].argmin())
        taken = after.after(after.at(change).inverse()).after(before.at(change))
        later = (time > change)[:, None]
        guide = RigidMotion(
            before.centre,  # also that of `taken`, which begins with `before`
            Rigid(
                np.where(later[..., None], taken.rotations, before.rotations),
                np.where(later, taken.translations, before.translations),
            ),
        )
    return None if guide is None else guide.after(guide.at(canonical).inverse())


def _median_spread(
    undone: Float[np.ndarray, "tracks frames 3"], weights: Float[np.ndarray, "tracks frames"]
) -> float:
    """Return the weighted variance of trajectories over time, as the median over the tracks.

    Tracks that slip to another surface move farther than all others: a mean would follow them.
    """
    rows = (weights > 0).sum(1) >= 2
    if not rows.any():
        return np.inf
    undone, weights = undone[rows], weights[rows]
    total = weights.sum(1)
    share = weights / total[:, None]
    mean = np.einsum("nt,ntj->nj", share, undone)
    variance = (share * ((undone - mean[:, None]) ** 2).sum(-1)).sum(1)
    order = variance.argsort()
    half = np.cumsum(total[order]).searchsorted(total.sum() / 2)
    return float(variance[order[half]])
