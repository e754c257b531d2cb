"""Objects of a sequence as rigid bodies in a tree of joints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Real
from scipy.spatial import KDTree
from torch import Tensor

from msdyn.geometry import FREEDOM, Joint, Moments, Rigid, fit_joint, procrustes
from msdyn.sequence.objects import living_weights
from msdyn.sequence.sequence import GaussianSequence

__all__ = ["ArticulatedObject", "Body", "articulated_objects"]

_FRAMES_AT_A_TIME = 8
_LEAST_SHARE = 0.1
"""A body is at least this share of its object, by opacity; smaller groups join the likeliest."""
_TIMES_EXPLAINED = 0.9
"""The share of the times at which one motion must explain two groups."""


@dataclass(frozen=True)
class Body:
    """A rigid body.

    Attributes:
        index: [N] indices into the moving Gaussians of the sequence, increasing.
        motion: [T] relative to the canonical frame, in the world of the sequence. Groups of
            Gaussians that it does not explain within twice the tolerance belong to the body, but
            have no part in it.
        moments: canonical mean and spread of its Gaussians, weighted by opacity.
        error: root mean square distance, by opacity and over the times, of its Gaussians from where
            this one motion has them, scene units.
        parent: index of the body that carries it; None for the root.
        joint: with the parent; None for the root.
    """

    index: Int[np.ndarray, " own"]
    motion: Rigid[np.ndarray]
    moments: Moments
    error: float
    parent: int | None
    joint: Joint | None


@dataclass(frozen=True)
class ArticulatedObject:
    """The bodies of an object; parents come before children, the root, the largest, first.

    Attributes:
        label: mask index (1..K).
        bodies: at least one.
        tolerance: within which groups of Gaussians are one body, scene units.
    """

    label: int
    bodies: tuple[Body, ...]
    tolerance: float


@dataclass(frozen=True)
class _Group:
    """Gaussians of one primitive, and their motion."""

    index: Int[np.ndarray, " own"]
    weight: float
    moments: Moments
    motion: Rigid[np.ndarray]


@torch.no_grad()
def articulated_objects(
    sequence: GaussianSequence,
    frames: Real[np.ndarray, " times"],
    *,
    levels: int | None = None,
    labels: list[int] | None = None,
    tolerance_px: float = 2.0,
    joints: bool = True,
) -> list[ArticulatedObject]:
    """Return each object as a tree of rigid bodies with joints.

    The groups of the second motion level (primitives) are merged, the most alike first, while one
    rigid motion explains all groups of a body within the tolerance at nine tenths of the times.
    The largest body is the root; each other body is attached to the one of the tree with which its
    joint has the fewest degrees of freedom, the smallest residual and the smallest distance.

    Args:
        sequence: the fit.
        frames: fractional frame indices.
        levels: number of motion levels to apply; all by default.
        labels: mask indices of the objects; all by default.
        tolerance_px: in pixels of the clip's cameras at the object's median distance.
        joints: whether to divide objects; otherwise each is one body.
    """
    times = torch.as_tensor(np.asarray(frames, float), dtype=torch.float32, device=sequence.device)
    posed = [
        sequence.posed(part, levels=levels).means[:, len(sequence.static) :].double()
        for part in times.split(_FRAMES_AT_A_TIME)
    ]
    means = torch.cat(posed) if posed else torch.zeros(0, len(sequence.moving), 3)
    cameras = sequence.cameras.interpolated(np.asarray(frames, float))
    found = []
    for label in sequence.objects if labels is None else labels:
        own = torch.nonzero(sequence.labels == label)[:, 0]
        centre = means[:, own].median(1).values.cpu().numpy()  # [T, 3]
        depth = np.einsum("td,td->t", cameras.cam_from_world[:, 2, :3], centre)
        depth += cameras.cam_from_world[:, 2, 3]
        unit = float(np.median(np.abs(depth)) / cameras.intrinsics[:, 0, 0].mean())
        tolerance = max(tolerance_px * unit, 1e-12)
        groups = [own]
        if joints and sequence.num_levels > 1 and (levels is None or levels > 1):
            names = sequence.motion.groups(1)[own]
            groups = [own[names == name] for name in names.unique()]
        members = [[_group(sequence, means, times, group)] for group in groups]
        clusters = _attached(_merged(members, tolerance))
        while True:
            bodies = [_body(sequence, means, times, part, tolerance) for part in clusters]
            tree, numbers = _tree(sequence, bodies, tolerance)
            fixed = [k for k, body in enumerate(tree) if body.joint and body.joint.kind == "fixed"]
            if not fixed:
                break
            # What a fixed joint explains is one body.
            child, parent = numbers[fixed[0]], numbers[tree[fixed[0]].parent or 0]
            clusters[parent] = clusters[parent] + clusters[child]
            del clusters[child]
        found.append(ArticulatedObject(label, tree, tolerance))
    return found


def _group(
    sequence: GaussianSequence,
    means: Float[Tensor, "times moving 3"],
    times: Float[Tensor, " times"],
    index: Int[Tensor, " own"],
) -> _Group:
    canonical = sequence.moving.means.double()[index]
    weights = living_weights(sequence, index, times)
    motion = procrustes(canonical[None], means[:, index], weights).rigid.arrays()
    always = sequence.moving.opacities.double()[index].cpu().numpy()
    moments = Moments.of(canonical.cpu().numpy(), always)
    return _Group(index.cpu().numpy(), float(always.sum()), moments, motion)


def _common(members: list[_Group]) -> tuple[Rigid[np.ndarray], Float[np.ndarray, "groups times"]]:
    """Return the motion that explains groups best, and each group's distance from it per time."""
    before = np.concatenate([group.moments.points for group in members])
    after = np.concatenate(
        [group.motion.apply(group.moments.points[None]) for group in members], axis=1
    )
    weights = np.repeat([group.weight for group in members], 6)
    times = after.shape[0]
    motion = procrustes(
        np.broadcast_to(before, (times, *before.shape)), after, np.tile(weights, (times, 1))
    ).rigid
    squared = ((motion.apply(before[None]) - after) ** 2).sum(2)  # [T, 6 G]
    return motion, np.sqrt(squared.reshape(times, -1, 6).mean(2)).T


def _cost(members: list[_Group]) -> float:
    """Return the error that groups that are no specks have at most, at nine tenths of the times."""
    _, distance = _common(members)
    weight = np.array([group.weight for group in members])
    relevant = weight >= 0.1 * weight.max()
    return float(np.quantile(distance[relevant], _TIMES_EXPLAINED, axis=1).max())


def _merged(clusters: list[list[_Group]], tolerance: float) -> list[list[_Group]]:
    """Merge clusters agglomeratively, within the tolerance."""
    clusters = [list(cluster) for cluster in clusters]
    costs = {
        (a, b): _cost(clusters[a] + clusters[b]) for b in range(len(clusters)) for a in range(b)
    }
    alive = set(range(len(clusters)))
    while costs:
        (a, b), cost = min(costs.items(), key=lambda item: item[1])
        if cost > tolerance:
            break
        clusters[a] = clusters[a] + clusters[b]
        alive.discard(b)
        costs = {pair: value for pair, value in costs.items() if not {a, b} & set(pair)}
        costs |= {(min(a, c), max(a, c)): _cost(clusters[a] + clusters[c]) for c in alive - {a}}
    return [clusters[k] for k in sorted(alive)]


def _attached(clusters: list[list[_Group]]) -> list[list[_Group]]:
    """Add each cluster that is too small for a body to that which explains it best."""
    total = sum(group.weight for cluster in clusters for group in cluster)

    def weight(cluster: list[_Group]) -> float:
        return sum(group.weight for group in cluster)

    clusters = sorted(clusters, key=weight, reverse=True)
    bodies = [c for c in clusters if weight(c) >= _LEAST_SHARE * total] or clusters[:1]
    motions = [_common(cluster)[0] for cluster in bodies]
    grown = [list(cluster) for cluster in bodies]
    for group in (group for cluster in clusters[len(bodies) :] for group in cluster):
        true = group.motion.apply(group.moments.points[None])
        distance = [
            np.median(np.linalg.norm(motion.apply(group.moments.points[None]) - true, axis=2))
            for motion in motions
        ]
        grown[int(np.argmin(distance))].append(group)
    return grown


def _body(
    sequence: GaussianSequence,
    means: Float[Tensor, "times moving 3"],
    times: Float[Tensor, " times"],
    cluster: list[_Group],
    tolerance: float,
) -> Body:
    """Return the body of a cluster; its motion is that of the groups that one motion explains."""
    kept = cluster
    for _ in range(3):
        _, distance = _common(kept)
        usual = np.quantile(distance, _TIMES_EXPLAINED, axis=1)
        heaviest = max(kept, key=lambda group: group.weight)
        kept = [
            group
            for group, value in zip(kept, usual, strict=True)
            if value <= 2 * tolerance or group is heaviest
        ]
    moving = np.sort(np.concatenate([group.index for group in kept]))
    motion = _group(sequence, means, times, torch.from_numpy(moving).to(sequence.device)).motion
    index = np.sort(np.concatenate([group.index for group in cluster]))
    whole = _group(sequence, means, times, torch.from_numpy(index).to(sequence.device))
    own = torch.from_numpy(index).to(means.device)
    canonical = sequence.moving.means[own].double().cpu().numpy()
    apart = motion.apply(canonical[None]) - means[:, own].cpu().numpy()
    share = sequence.moving.opacities[own].double().cpu().numpy()
    error = np.sqrt((apart**2).sum(2) @ share / share.sum())  # [T]
    return Body(index, motion, whole.moments, float(np.sqrt((error**2).mean())), None, None)


def _tree(
    sequence: GaussianSequence, bodies: list[Body], tolerance: float
) -> tuple[tuple[Body, ...], list[int]]:
    """Attach bodies with joints; return them, parents first, and their indices before."""
    canonical = sequence.moving.means.double().cpu().numpy()
    points = [canonical[body.index] for body in bodies]
    trees = [KDTree(cloud) for cloud in points]
    size = max(float(np.ptp(np.concatenate(points), axis=0).max()), 1e-12)
    root = int(np.argmax([len(body.index) for body in bodies]))
    ordered, numbers = [bodies[root]], [root]
    left = [k for k in range(len(bodies)) if k != root]
    joints: dict[tuple[int, int], tuple[float, Joint]] = {}
    while left:
        for child in left:
            for parent in numbers:
                if (parent, child) in joints:
                    continue
                contact, gap = _contact(points[parent], trees[parent], points[child])
                relative = bodies[parent].motion.inverse() @ bodies[child].motion
                joint = fit_joint(relative, bodies[child].moments, contact, tolerance)
                score = FREEDOM[joint.kind] + joint.residual / tolerance + 10 * gap / size
                joints[parent, child] = (score, joint)
        parent, child = min(
            ((p, c) for p in numbers for c in left), key=lambda pair: joints[pair][0]
        )
        body = bodies[child]
        ordered.append(
            Body(
                body.index,
                body.motion,
                body.moments,
                body.error,
                numbers.index(parent),
                joints[parent, child][1],
            )  # fmt: skip
        )
        numbers.append(child)
        left.remove(child)
    return tuple(ordered), numbers


def _contact(
    parent: Float[np.ndarray, "points 3"], tree: KDTree, child: Float[np.ndarray, "others 3"]
) -> tuple[Float[np.ndarray, " 3"], float]:
    """Return the middle of the nearest twentieth of the child's points, and their distance."""
    distance, near = (np.asarray(found) for found in tree.query(child))
    chosen = np.argsort(distance)[: max(1, len(child) // 20)]
    middle = (child[chosen].mean(0) + parent[near[chosen]].mean(0)) / 2
    return middle, float(np.median(distance[chosen]))
