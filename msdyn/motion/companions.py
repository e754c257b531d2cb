"""Where what is hidden goes: with what it moved alike with while both were seen."""

from __future__ import annotations

import numpy as np
import torch

from msdyn.geometry import nearest_rotations
from msdyn.motion.alignment import MEMORY, RigidMotion, interpolate_missing, trajectory_noise

__all__ = ["follow_companions", "guide_through_occlusion", "pose_variance"]

# The place of a cluster beside its companion is averaged with weights that fall to 1/e in so many
# frames: the last few tracks of what disappears turn with every error of their depth.
_EDGE = 3.0
# Share of the variance of an object's positions that may be left, seen from what carries it.
_CARRIED = 0.25


def follow_companions(
    motions: list[RigidMotion],
    points: list[np.ndarray],
    seen: np.ndarray,
    parent: RigidMotion,
    doubt: np.ndarray,
) -> list[RigidMotion]:
    """Let clusters that are hidden move with what they moved most alike with just before and after.

    A part that is hidden is often rigidly joined to one that is not: the keys of a laptop to its
    front edge, say, and not to the lid that hides them. Candidates are the other clusters, the
    level above, and standing still in the world. A hidden frame takes the companion's motion and
    what the two differed by when last and next seen together, unless the few tracks left in it are
    expected to say it better.

    Args:
        motions: of K clusters of one object, relative to the level above.
        points: canonical positions [N_k, 3] of the tracks of each.
        seen: [K, T] whether enough of a cluster's tracks are visible.
        parent: the motion of the level above.
        doubt: [K, T] squared error, scene units, expected of the motions as they are; infinite
            where no tracks are seen.

    Returns:
        The motions, unchanged where clusters are seen.
    """
    count, frames = seen.shape
    still = [RigidMotion.identity(parent.centre, frames), parent.inverse()]
    # What is known of the clusters and of what stands still, and what of it was seen.
    filled, there = [*motions, *still], np.vstack([seen, np.ones((2, frames), bool)])
    observed = there.copy()
    beside = [
        # Seen from a companion, what is joined to it stands still.
        [other.undo(motion.apply(own)) for other in (*motions, *still)]
        for motion, own in zip(motions, points, strict=True)
    ]
    runs = [(number, run) for number in range(count) for run in _runs(~seen[number])]
    # Short runs first: what is filled may in turn lead what is hidden for longer.
    for number, run in sorted(runs, key=lambda entry: len(entry[1])):
        away = np.abs(np.arange(frames)[:, None] - run).min(1)
        nearness = np.where(seen[number], np.exp(-away / MEMORY), 0.0)
        cost = np.full(len(filled), np.inf)
        for row, trajectories in enumerate(beside[number]):
            both = nearness * observed[row]
            if row != number and there[row, run].all() and (both > 0).sum() >= 2:
                cost[row] = _spread(trajectories, both / both.sum())
        if np.isfinite(cost).any():
            best = int(cost.argmin())
            led = _with(filled[best], motions[number], observed[best] & seen[number], run)
            own = filled[number]
            rotations, translations = own.rotations.copy(), own.translations.copy()
            worse = run[doubt[number, run] > cost[best]]
            rotations[worse], translations[worse] = led.rotations[worse], led.translations[worse]
            filled[number] = RigidMotion(own.centre, rotations, translations)
            there[number, run] = True
    return filled[:count]


def pose_variance(
    points: np.ndarray, weights: np.ndarray, noise: float, expected_angle: float, least: int
) -> np.ndarray:
    """Return the squared error [T], scene units, expected of a cluster's pose in each frame.

    It is the mean over all points of the cluster: a strip of tracks says little of how the rest
    turns about it.

    Args:
        points: [N, 3] canonical positions.
        weights: [N, T] zero where not visible.
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


def _inertia(points: np.ndarray) -> np.ndarray:
    """Return the sum over points [N, 3] of |p|^2 I - p p^T: how far turns displace them."""
    return (points**2).sum() * np.eye(3) - points.T @ points


def _runs(mask: np.ndarray) -> list[np.ndarray]:
    """Return the indices of each run of True."""
    index = np.flatnonzero(mask)
    return np.split(index, np.flatnonzero(np.diff(index) > 1) + 1) if len(index) else []


def _spread(trajectories: np.ndarray, share: np.ndarray) -> float:
    """Return the mean variance over time [N, T, 3] under weights [T] that sum to one."""
    mean = np.einsum("t,ntj->nj", share, trajectories)
    return float(np.einsum("t,ntj->", share, (trajectories - mean[:, None]) ** 2) / len(mean))


def _with(
    other: RigidMotion, motion: RigidMotion, both: np.ndarray, run: np.ndarray
) -> RigidMotion:
    """Return a motion that follows another through a run of frames.

    Where `both` are seen it is itself; but on either side of the run it is where it lies beside the
    other on the mean over a few frames.
    """
    turn = torch.from_numpy(other.rotations)
    # The other's motion about this one's pivot.
    shift = torch.from_numpy(other.apply(motion.centre[None])[0] - motion.centre)
    back = turn.mT
    rotation = back @ torch.from_numpy(motion.rotations)
    offset = (back @ (torch.from_numpy(motion.translations) - shift).unsqueeze(-1)).squeeze(-1)
    time = np.arange(len(both))
    mean_rotation, mean_offset = rotation.clone(), offset.clone()
    for side in (both & (time < run[0]), both & (time > run[-1])):
        if side.any():
            away = np.where(side, np.abs(time[:, None] - run).min(1), np.inf)
            share = np.exp(-away / _EDGE)
            share /= share.sum()
            edge = away.argmin()
            turned = nearest_rotations(np.einsum("t,tij->ij", share, rotation.numpy()))
            mean_rotation[edge] = torch.from_numpy(turned)
            mean_offset[edge] = torch.from_numpy(share @ offset.numpy())
    rotations, offsets = interpolate_missing(mean_rotation, mean_offset, both)
    turned = turn @ torch.from_numpy(rotations)
    moved = (turn @ torch.from_numpy(offsets).unsqueeze(-1)).squeeze(-1) + shift
    return RigidMotion(motion.centre, turned.numpy(), moved.numpy())


def guide_through_occlusion(
    xyz: np.ndarray, weights: np.ndarray, carriers: list[RigidMotion], canonical: int
) -> RigidMotion | None:
    """Return the motion of what carries an object while all its tracks are lost.

    Tracks that begin when an object is seen again say nothing of how it turned meanwhile; what held
    it before and what holds it after do. Where those differ, it changes hands when they move least
    against one another. Seen from this motion the object nearly stands still, and can be aligned
    across the gap.

    Args:
        xyz: [N, T, 3] lifted trajectories of one object.
        weights: [N, T] confidence, zero where not visible.
        carriers: motions, in the world, of the parts of all other objects.
        canonical: frame in which the motion is to be the identity.

    Returns:
        The motion, or None where the tracks reach across every gap, or nothing carries it.
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
            spread = [_spread_of_seen(c.undo(xyz), visible * nearness) for c in carriers]
            # What carries it must explain most of how it moves, or else it stands still.
            if min(spread) <= max(_CARRIED * spread[-1], 12 * noise**2):
                sides.append(carriers[int(np.argmin(spread))])
        if len(sides) < 2:
            continue
        before, after = sides if guide is None else (guide, sides[1])
        # The object, carried by what held it before, as seen from what holds it after.
        held = before.apply(before.undo(xyz)[visible[:, :first].any(1), first - 1])
        slip = np.linalg.norm(np.diff(after.undo(held), axis=1), axis=-1).mean(0)
        change = int(run[0] - 1 + slip[first - 1 : last + 1].argmin())
        taken = after.after(after.at(change).inverse()).after(before.at(change))
        later = (time > change)[:, None]
        guide = RigidMotion(
            before.centre,  # also that of `taken`, which begins with `before`
            np.where(later[..., None], taken.rotations, before.rotations),
            np.where(later, taken.translations, before.translations),
        )
    return None if guide is None else guide.after(guide.at(canonical).inverse())


def _spread_of_seen(undone: np.ndarray, weights: np.ndarray) -> float:
    """Return the variance of trajectories [N, T, 3] over the time [N, T] they count.

    It is the median over the tracks: a few that slip to another surface move by more than all else.
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
