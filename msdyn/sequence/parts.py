"""The moving Gaussians of a sequence as rigid parts, for programs that move whole groups only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from msdyn.geometry import (
    Cameras,
    Rigid,
    nearest_rotations,
    project,
    rotations_from_quats_wxyz,
    transform_points,
)
from msdyn.sequence.objects import living_weights
from msdyn.sequence.sequence import GaussianSequence

__all__ = ["RigidPart", "RigidParts", "rigid_parts"]

_FRAMES_AT_A_TIME = 8
_SHARE = 0.95
"""The share of a part's Gaussians, by opacity, that must move within the tolerance."""
_NEAREST = 1e-3
"""Depths below this share of the median one do not count as seen."""


@dataclass(frozen=True)
class RigidPart:
    """Gaussians that move as one body.

    Attributes:
        label: mask index (1..K) of their object.
        level: motion level (0 for the object) of the group that they are.
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


@dataclass(frozen=True)
class RigidParts:
    """Rigid parts that together are all chosen moving Gaussians.

    Attributes:
        parts: of one object after the other.
        mean_error_px: mean over Gaussians, by opacity, and times of the distance in pixels from
            the true place to the part's, in the clip's cameras.
        error_px: the largest `error_px` of a part at any time; 95 % of each part are below.
    """

    parts: tuple[RigidPart, ...]
    mean_error_px: float
    error_px: float

    def __str__(self) -> str:
        return (
            f"{len(self.parts)} rigid parts: moving Gaussians are {self.mean_error_px:.2f} px off "
            f"on average, 95 % of each part at most {self.error_px:.2f} px"
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
    the groups of the next level of its motion, and so on. What is not rigid in the finest groups
    either stays in these, with its error. The motion of a part is the least-squares rigid motion
    of its Gaussians, each as a distribution, not as its centre only, so that it is defined for a
    single Gaussian too: the nearest rotation to sum w [(m'-c')(m-c)^T + R S], with canonical mean m
    and covariance S, posed mean m' and rotation R, and weight w, the opacity.

    Args:
        sequence: the fit.
        frames: fractional frame indices.
        levels: number of motion levels to apply; all by default.
        labels: mask indices of the objects; all by default.
        tolerance_px: the error, in pixels of the clip's cameras, up to which a group is one part.
    """
    posed = _posed(sequence, frames, levels)
    parts: list[tuple[RigidPart, float, float]] = []
    finest = (sequence.num_levels if levels is None else levels) - 1
    for label in sequence.objects if labels is None else labels:
        groups = [(0, torch.nonzero(sequence.labels == label)[:, 0])]
        while groups:
            level, index = groups.pop()
            found = _part(sequence, posed, index, label, level)
            if found[0].error_px.max(initial=0.0) <= tolerance_px or level >= finest:
                parts.append(found)
                continue
            own = sequence.motion.groups(level + 1)[index]
            groups += [(level + 1, index[own == group]) for group in own.unique().flip(0)]
    weight = sum(weight for _, _, weight in parts)
    return RigidParts(
        tuple(part for part, _, _ in parts),
        sum(error * weight for _, error, weight in parts) / max(weight, 1e-12),
        max((float(part.error_px.max(initial=0.0)) for part, _, _ in parts), default=0.0),
    )


@dataclass(frozen=True)
class _Posed:
    """The moving Gaussians at all times, and the clip's cameras at these times."""

    frames: Float[Tensor, " times"]
    means: Float[np.ndarray, "times moving 3"]
    rotations: Float[np.ndarray, "times moving 3 3"]
    canonical: Float[np.ndarray, "moving 3"]
    covariances: Float[np.ndarray, "moving 3 3"]
    cameras: Cameras


def _posed(
    sequence: GaussianSequence, frames: Real[np.ndarray, " times"], levels: int | None
) -> _Posed:
    times = torch.as_tensor(np.asarray(frames, float), dtype=torch.float32, device=sequence.device)
    posed = [sequence.posed(part, levels=levels) for part in times.split(_FRAMES_AT_A_TIME)]
    num_static, canonical = len(sequence.static), sequence.canonical()
    axes = rotations_from_quats_wxyz(canonical.quats_wxyz[0, num_static:].double())
    axes = axes * canonical.scales[num_static:].double()[:, None]
    return _Posed(
        times,
        torch.cat([part.means[:, num_static:] for part in posed]).double().cpu().numpy(),
        torch.cat([part.rotations for part in posed]).double().cpu().numpy(),
        canonical.means[0, num_static:].double().cpu().numpy(),
        (axes @ axes.mT).cpu().numpy(),
        sequence.cameras.interpolated(np.asarray(frames, float)),
    )


def _part(
    sequence: GaussianSequence, posed: _Posed, index: Int[Tensor, " own"], label: int, level: int
) -> tuple[RigidPart, float, float]:
    """Return a part, its mean error in pixels and its weight."""
    own = index.cpu().numpy()
    weights = living_weights(sequence, index, posed.frames).cpu().numpy()  # [T, N]
    share = weights / weights.sum(1, keepdims=True)
    canonical, means = posed.canonical[own], posed.means[:, own]
    mean, moved = share @ canonical, np.einsum("tn,tnd->td", share, means)
    turned = np.einsum("tn,tnij,njk->tik", share, posed.rotations[:, own], posed.covariances[own])
    covariance = turned + np.einsum(
        "tn,tni,tnj->tij", share, means - moved[:, None], canonical - mean[:, None]
    )
    motion = Rigid(nearest_rotations(covariance), np.zeros((len(mean), 3)))
    motion = Rigid(motion.rotation, moved - motion.apply(mean[:, None])[:, 0])
    distance = _pixels(posed.cameras, means, motion.apply(canonical[None]))
    always = sequence.moving.opacities.double()[index].cpu().numpy()
    centre = always @ canonical / always.sum()
    part = RigidPart(
        label,
        level,
        own,
        centre,
        (motion @ Rigid(np.eye(3), centre)).matrix,
        np.array([_quantile(*row) for row in zip(distance, share, strict=True)]),
    )
    return part, float((distance * share).sum(1).mean()), float(always.sum())


def _pixels(
    cameras: Cameras,
    true: Float[np.ndarray, "times own 3"],
    found: Float[np.ndarray, "times own 3"],
) -> Float[np.ndarray, "times own"]:
    """Return the distances in the images; 0 where the true place is not before the camera."""
    seen = transform_points(cameras.cam_from_world, true)
    depth = seen[..., 2]
    visible = depth > _NEAREST * np.abs(np.median(depth))
    moved = transform_points(cameras.cam_from_world, found)
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = project(cameras.intrinsics, moved) - project(cameras.intrinsics, seen)
    return np.where(visible, np.linalg.norm(shift, axis=-1), 0.0)


def _quantile(values: Float[np.ndarray, " own"], share: Float[np.ndarray, " own"]) -> float:
    """Return the smallest value that at least `_SHARE` of the weight does not exceed."""
    order = np.argsort(values)
    rank = int(np.searchsorted(np.cumsum(share[order]), _SHARE - 1e-9))
    return float(values[order[min(rank, len(order) - 1)]])
