"""Rigid motion of whole objects, fitted to the motion of their Gaussians."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Real
from torch import Tensor

from msdyn.geometry import Rigid, procrustes
from msdyn.sequence.sequence import GaussianSequence

__all__ = ["living_weights", "object_centres", "object_motions", "object_poses"]

_FRAMES_AT_A_TIME = 8


@torch.no_grad()
def object_motions(
    sequence: GaussianSequence,
    frames: Real[np.ndarray, " frames"],
    *,
    levels: int | None = None,
) -> dict[int, Rigid[np.ndarray]]:
    """Return the rigid motion of each object relative to the canonical frame.

    It is the least-squares rigid motion of the object's Gaussians, weighted by their opacity at
    each frame (of their lives where none exists at that frame). So it includes all motion levels
    and does not depend on how the motion is distributed among them.

    Args:
        sequence: the fit.
        frames: fractional frame indices.
        levels: number of motion levels to apply; all by default.

    Returns:
        By mask index, [T] motions in the world of the sequence.
    """
    times = torch.as_tensor(np.asarray(frames, float), dtype=torch.float32, device=sequence.device)
    found = [_motions_at(sequence, part, levels) for part in times.split(_FRAMES_AT_A_TIME)]
    return {
        label: Rigid(
            np.concatenate([part[label].rotation for part in found]),
            np.concatenate([part[label].translation for part in found]),
        )
        for label in sequence.objects
    }


def _motions_at(
    sequence: GaussianSequence, times: Float[Tensor, " times"], levels: int | None
) -> dict[int, Rigid[np.ndarray]]:
    """Return the motions of all objects at a few times, whose posed Gaussians are in memory."""
    means = sequence.posed(times, levels=levels).means[:, len(sequence.static) :].double()
    canonical = sequence.moving.means.double()
    motions = {}
    for label in sequence.objects:
        own = sequence.labels == label
        weights = living_weights(sequence, own, times)
        motions[label] = procrustes(canonical[own][None], means[:, own], weights).rigid.arrays()
    return motions


@torch.no_grad()
def object_centres(sequence: GaussianSequence) -> dict[int, Float[np.ndarray, " 3"]]:
    """Return the opacity-weighted mean of each object's Gaussians in the canonical frame."""
    canonical = sequence.moving.means.double()
    time = torch.tensor([float(sequence.canonical_frame)], device=sequence.device)
    centres = {}
    for label in sequence.objects:
        own = sequence.labels == label
        weights = living_weights(sequence, own, time)[0, :, None]
        centres[label] = ((canonical[own] * weights).sum(0) / weights.sum()).cpu().numpy()
    return centres


@torch.no_grad()
def living_weights(
    sequence: GaussianSequence,
    own: Bool[Tensor, " moving"] | Int[Tensor, " own"],
    times: Float[Tensor, " times"],
) -> Float64[Tensor, "times own"]:
    """Return the opacities of some moving Gaussians as weights, positive at every time.

    At a time at which none of them exists, they are the opacities of their lives.

    Args:
        sequence: the fit.
        own: mask or indices of moving Gaussians.
        times: fractional frame indices.
    """
    always = sequence.moving.opacities.double()[own]
    weights = sequence.moving.opacities_at(times).double()[:, own].expand(len(times), -1)
    return torch.where(weights.sum(1, keepdim=True) > 1e-3 * always.max(), weights, always)


def object_poses(
    sequence: GaussianSequence,
    frames: Real[np.ndarray, " frames"],
    *,
    levels: int | None = None,
) -> dict[int, Float[np.ndarray, "frames 4 4"]]:
    """Return the 6-DoF pose of each object, `world_from_object`, in the world of the input cameras.

    The object's coordinate system has its origin at the object's centre, and its axes are those of
    the world at the canonical frame. So the translation of a pose is the position of the centre.

    Args:
        sequence, frames, levels: as for `object_motions`.

    Returns:
        By mask index, [T, 4, 4].
    """
    centres = object_centres(sequence)
    poses = {}
    for label, motion in object_motions(sequence, frames, levels=levels).items():
        world_from_object = motion @ Rigid(np.eye(3), centres[label])
        poses[label] = world_from_object.matrix
    return poses
