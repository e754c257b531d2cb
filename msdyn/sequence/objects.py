"""Rigid motion of whole objects, fitted to the motion of their Gaussians."""

from __future__ import annotations

import numpy as np
import torch

from msdyn.geometry import Rigid, procrustes
from msdyn.sequence.sequence import GaussianSequence

__all__ = ["object_centres", "object_motions", "object_poses"]


@torch.no_grad()
def object_motions(
    sequence: GaussianSequence, frames: np.ndarray, *, levels: int | None = None
) -> dict[int, Rigid[np.ndarray]]:
    """Return the rigid motion of each object since the canonical frame.

    It is the rigid motion that fits the object's Gaussians best, weighted by opacity, so that it
    comprises all motion levels and does not depend on how they share the motion among them.

    Args:
        sequence: the fit.
        frames: [T] frame indices, fractional ones too.
        levels: use only the first so many motion levels.

    Returns:
        By mask index, [T] motions in the world of the sequence.
    """
    times = torch.as_tensor(np.asarray(frames, float), dtype=torch.float32, device=sequence.device)
    means = sequence.posed(times, levels=levels).means[:, len(sequence.static) :].double()
    canonical, opacities = sequence.moving.means.double(), sequence.moving.opacities.double()
    motions = {}
    for label in sequence.objects:
        own = sequence.labels == label
        weights = opacities[own].expand(len(times), -1)
        motions[label] = procrustes(canonical[own][None], means[:, own], weights).rigid.arrays()
    return motions


def object_centres(sequence: GaussianSequence) -> dict[int, np.ndarray]:
    """Return the centre [3] of each object in the canonical frame: its mean, by opacity."""
    canonical = sequence.moving.means.detach().double().cpu().numpy()
    weight = sequence.moving.opacities.detach().double().cpu().numpy()
    label = sequence.labels.cpu().numpy()
    return {
        int(k): np.average(canonical[label == k], axis=0, weights=weight[label == k])
        for k in np.unique(label)
    }


def object_poses(
    sequence: GaussianSequence, frames: np.ndarray, *, levels: int | None = None
) -> dict[int, np.ndarray]:
    """Return the 6-DoF pose of each object, `world_from_object`, in the world of the input cameras.

    An object's own frame has its origin in the object's centre and, in the canonical frame, the
    axes of the world; the translation of a pose is therefore where the centre is.

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
