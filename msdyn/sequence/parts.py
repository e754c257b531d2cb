"""The moving Gaussians of a sequence as rigid parts, for programs that move whole groups only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int, Real

from msdyn.geometry import (
    Cameras,
    Rigid,
    depth_in_camera,
    nearest_rotations,
    project,
    rotations_from_quats_wxyz,
    transform_points,
)
from msdyn.indices import evenly_spaced
from msdyn.sequence.sequence import GaussianSequence

__all__ = ["RigidPart", "RigidParts", "rigid_parts"]

Indices: TypeAlias = Int[np.ndarray, " own"]
Groups: TypeAlias = list[tuple[int, Int[np.ndarray, " _"]]]
"""Motion levels and the Gaussians of groups."""

_FRAMES_AT_A_TIME = 8
_ROUNDS = 2
_MOST_PARTS = 128
"""Of an object."""
_MOST_TIMES = 48
"""Times at which Gaussians are compared with the parts of their object."""
_SHARE = 0.95
"""The share of a part's Gaussians, by opacity, that must move within the tolerance."""
_NEAREST = 1e-3
"""Depths below this share of the median one do not count as seen."""


@dataclass(frozen=True)
class RigidPart:
    """Gaussians that move as one body.

    Attributes:
        label: mask index (1..K) of their object.
        level: motion level (0 for the object) of the group that they are, but for exchanged ones.
        index: [N] indices into the moving Gaussians of the sequence, increasing.
        centre: [3] their opacity-weighted mean in the canonical frame, scene units.
        world_from_part: [T, 4, 4] the pose at each time. The part's axes are the world's at the
            canonical frame, its origin is the centre.
        error_px: [T] how far from their true place the Gaussians are drawn in the clip's camera,
            in pixels: the value that 95 % of them, by opacity, do not exceed.
    """

    label: int
    level: int
    index: Int[np.ndarray, " own"]
    centre: Float[np.ndarray, " 3"]
    world_from_part: Float[np.ndarray, "times 4 4"]
    error_px: Float[np.ndarray, " times"]

    @property
    def motion(self) -> Rigid[np.ndarray]:
        """The motion [T] of the part relative to the canonical frame, in the world."""
        return Rigid.from_matrix(self.world_from_part) @ Rigid(np.eye(3), -self.centre)


@dataclass(frozen=True)
class RigidParts:
    """Rigid parts that together are all chosen moving Gaussians.

    Attributes:
        parts: of one object after the other.
        mean_error_px: mean over Gaussians, by opacity, and times of the distance in pixels from
            the true place to the part's, in the clip's cameras.
        error_px: the distance that 95 % of them, by opacity, do not exceed.
    """

    parts: tuple[RigidPart, ...]
    mean_error_px: float
    error_px: float

    def __str__(self) -> str:
        count = len(self.parts)
        return (
            f"{count} rigid part{'s' * (count != 1)}: moving Gaussians are "
            f"{self.mean_error_px:.2f} px off on average, "
            f"95 % of them at most {self.error_px:.2f} px"
        )


@torch.no_grad()
def rigid_parts(
    sequence: GaussianSequence,
    frames: Real[np.ndarray, " times"],
    *,
    levels: int | None = None,
    labels: list[int] | None = None,
    tolerance_px: float = 0.5,
) -> RigidParts:
    """Divide the moving Gaussians into parts that are rigid within a tolerance.

    An object is one part if a rigid motion explains its Gaussians; otherwise it is divided into
    the groups of the next level of its motion, and so on. Gaussians of a divided object then change
    to the part that moves them best: those whose motion is a blend of groups often belong elsewhere
    than the largest weight says. While more than 5 % of an object are off by more than the
    tolerance, the motion of its worst Gaussian becomes a further part, up to 128. They are compared
    at up to 48 of the times. What no part explains stays in one, with its error.

    The motion of a part is the least-squares rigid motion of its Gaussians, each as a distribution,
    not as its centre only, so that it is defined for a single Gaussian too: its rotation is nearest
    to sum w [(m'-c')(m-c)^T + R S], with canonical mean m and covariance S, posed mean m' and
    rotation R, their means c and c', and the opacity w.

    Args:
        sequence: the fit.
        frames: fractional frame indices.
        levels: number of motion levels to apply; all by default.
        labels: mask indices of the objects; all by default.
        tolerance_px: the error, in pixels of the clip's cameras, up to which a group is one part.
    """
    posed = _posed(sequence, frames, levels)
    finest = (sequence.num_levels if levels is None else levels) - 1
    parts: list[RigidPart] = []
    for label in sequence.objects if labels is None else labels:
        divided: Groups = []
        groups = [(0, np.flatnonzero(sequence.labels.cpu().numpy() == label))]
        while groups:
            level, own = groups.pop()
            error = _error(posed, own, _motion(posed, own)).max(initial=0.0)
            if error <= tolerance_px or level >= finest:
                divided.append((level, own))
                continue
            finer = sequence.motion.groups(level + 1).cpu().numpy()[own]
            groups += [(level + 1, own[finer == group]) for group in np.unique(finer)[::-1]]
        parts += [
            _part(posed, own, label, level)
            for level, own in _exchanged(posed, divided, tolerance_px)
        ]
    distances = [_distances(posed, part.index, part.motion).ravel() for part in parts]
    weights = [posed.opacities[:, part.index].ravel() for part in parts]
    if not parts:
        return RigidParts((), 0.0, 0.0)
    everywhere, weight = np.concatenate(distances)[None], np.concatenate(weights)[None]
    mean = float((everywhere * weight).sum() / max(float(weight.sum()), 1e-12))
    return RigidParts(tuple(parts), mean, float(_quantiles(everywhere, weight)[0]))


@dataclass(frozen=True)
class _Posed:
    """The moving Gaussians at all times, and the clip's cameras at these times.

    `turned` are the rotations relative to the canonical frame times the canonical covariances,
    `sizes` the traces of the covariances, `always` the opacities of the Gaussians' lives.
    """

    means: Float[np.ndarray, "times moving 3"]
    turned: Float[np.ndarray, "times moving 3 3"]
    sizes: Float[np.ndarray, " moving"]
    opacities: Float[np.ndarray, "times moving"]
    canonical: Float[np.ndarray, "moving 3"]
    always: Float[np.ndarray, " moving"]
    cameras: Cameras

    def thinned(self) -> _Posed:
        """Return some of the times, evenly, where there are many."""
        count = len(self.means)
        rows = evenly_spaced(count, _MOST_TIMES)
        return replace(
            self,
            means=self.means[rows],
            turned=self.turned[rows],
            opacities=self.opacities[rows],
            cameras=self.cameras[rows],
        )


def _posed(
    sequence: GaussianSequence, frames: Real[np.ndarray, " times"], levels: int | None
) -> _Posed:
    times = torch.as_tensor(np.asarray(frames, float), dtype=torch.float32, device=sequence.device)
    posed = [sequence.posed(part, levels=levels) for part in times.split(_FRAMES_AT_A_TIME)]
    num_static, canonical = len(sequence.static), sequence.canonical()
    axes = rotations_from_quats_wxyz(canonical.quats_wxyz[0, num_static:].double())
    axes = axes * canonical.scales[num_static:].double()[:, None]
    covariances = axes @ axes.mT
    opacities = sequence.moving.opacities_at(times).double()
    return _Posed(
        torch.cat([part.means[:, num_static:] for part in posed]).double().cpu().numpy(),
        torch.cat([part.rotations @ covariances.float() for part in posed]).cpu().numpy(),
        covariances.diagonal(dim1=-2, dim2=-1).sum(-1).cpu().numpy(),
        opacities.expand(len(times), -1).cpu().numpy(),
        canonical.means[0, num_static:].double().cpu().numpy(),
        sequence.moving.opacities.double().cpu().numpy(),
        sequence.cameras.interpolated(np.asarray(frames, float)),
    )


def _motion(posed: _Posed, own: Indices) -> Rigid[np.ndarray]:
    """Return the rigid motion [T] of some Gaussians, relative to the canonical frame."""
    always = posed.always[own]
    weights = posed.opacities[:, own]
    weights = np.where(weights.sum(1, keepdims=True) > 1e-3 * always.max(), weights, always)
    share = weights / weights.sum(1, keepdims=True)
    canonical, means = posed.canonical[own], posed.means[:, own]
    mean, moved = share @ canonical, (share[:, None] @ means)[:, 0]
    turned = (share[:, None] @ posed.turned[:, own].reshape(len(share), -1, 9)).reshape(-1, 3, 3)
    spread = ((means - moved[:, None]) * share[..., None]).swapaxes(1, 2)
    covariance = turned + spread @ (canonical - mean[:, None])
    motion = Rigid(nearest_rotations(covariance), np.zeros((len(mean), 3)))
    return Rigid(motion.rotation, moved - motion.apply(mean[:, None])[:, 0])


def _part(posed: _Posed, own: Indices, label: int, level: int) -> RigidPart:
    motion, weights = _motion(posed, own), posed.always[own]
    centre = weights @ posed.canonical[own] / weights.sum()
    pose = (motion @ Rigid(np.eye(3), centre)).matrix
    return RigidPart(label, level, own, centre, pose, _error(posed, own, motion))


def _exchanged(posed: _Posed, divided: Groups, tolerance_px: float) -> Groups:
    """Return the parts of a divided object after each Gaussian has changed to the best one.

    The best one has the smallest mean squared distance of the Gaussian, as a distribution, from
    its true place, in pixels. While Gaussians are further off than the tolerance, the motion of
    the worst one becomes a part of its own, from which others may be better off, too.
    """
    if len(divided) == 1:
        ((_, own),) = divided
        if _error(posed, own, _motion(posed, own)).max(initial=0.0) <= tolerance_px:
            return divided
    posed = posed.thinned()
    everyone = np.sort(np.concatenate([own for _, own in divided]))
    depth = depth_in_camera(posed.cameras.cam_from_world, posed.means[:, everyone])
    focal = posed.cameras.intrinsics[:, 0, 0, None]
    scale = np.where(depth > 0, focal / np.maximum(depth, 1e-9), 0.0) ** 2
    scale *= posed.opacities[:, everyone]
    weight = np.maximum(posed.opacities[:, everyone].sum(0), 1e-12)

    def cost(own: Indices) -> Float[np.ndarray, " everyone"]:
        return (scale * _squared(posed, everyone, _motion(posed, own))).sum(0)

    def best_of(parts: Groups) -> Groups:
        best = np.stack([cost(own) for _, own in parts]).argmin(0)
        found = [(level, everyone[best == row]) for row, (level, _) in enumerate(parts)]
        return [(level, own) for level, own in found if len(own)]

    for _ in range(_ROUNDS):
        divided = best_of(divided)
    finest = max(level for level, _ in divided)
    least = np.stack([cost(own) for _, own in divided]).min(0)
    while len(divided) < _MOST_PARTS:
        off = np.sqrt(least.clip(0) / weight)
        if _quantiles(off[None], weight[None])[0] <= tolerance_px:
            break
        worst = everyone[[least.argmax()]]
        divided.append((finest, worst))
        least = np.minimum(least, cost(worst))
    for _ in range(_ROUNDS):
        divided = best_of(divided)
    return divided


def _squared(
    posed: _Posed, own: Indices, motion: Rigid[np.ndarray]
) -> Float[np.ndarray, "times own"]:
    """Return the mean squared distance, scene units, between points of each Gaussian moved either
    way: |m' - Rm - t|^2 + 2 tr S - 2 tr R^T R' S."""
    shift = posed.means[:, own] - motion.apply(posed.canonical[own][None])
    turned = posed.turned[:, own].reshape(len(shift), -1, 9) @ motion.rotation.reshape(-1, 9, 1)
    return (shift**2).sum(-1) + 2 * (posed.sizes[own] - turned[..., 0])


def _distances(
    posed: _Posed, own: Indices, motion: Rigid[np.ndarray]
) -> Float[np.ndarray, "times own"]:
    """Return the distances in the images, px; 0 where the true place is not before the camera."""
    seen = transform_points(posed.cameras.cam_from_world, posed.means[:, own])
    depth = seen[..., 2]
    visible = depth > _NEAREST * np.abs(np.median(depth))
    moved = motion.apply(posed.canonical[own][None])
    moved = transform_points(posed.cameras.cam_from_world, moved)
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = project(posed.cameras.intrinsics, moved) - project(posed.cameras.intrinsics, seen)
    return np.where(visible, np.linalg.norm(shift, axis=-1), 0.0)


def _error(posed: _Posed, own: Indices, motion: Rigid[np.ndarray]) -> Float[np.ndarray, " times"]:
    """Return the `error_px` of some Gaussians; 0 where none of them exists."""
    weights = posed.opacities[:, own]
    exists = weights.sum(1) > 1e-3 * posed.always[own].max()
    return np.where(exists, _quantiles(_distances(posed, own, motion), weights), 0.0)


def _quantiles(
    distances: Float[np.ndarray, "rows own"], weights: Float[np.ndarray, "rows own"]
) -> Float[np.ndarray, " rows"]:
    """Return, for each row, the distance that `_SHARE` of the weight does not exceed."""
    order = np.argsort(distances, axis=1)
    reached = np.take_along_axis(weights, order, axis=1).cumsum(1)
    rank = (reached < (_SHARE - 1e-9) * reached[:, -1:]).sum(1, keepdims=True)
    return np.take_along_axis(distances, np.take_along_axis(order, rank, axis=1), axis=1)[:, 0]
