"""How objects turn and move as a whole: the rigid motion of a sequence's objects."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.geometry import procrustes
from msdyn.sequence.sequence import GaussianSequence

__all__ = ["fit_motion", "object_centres", "object_motions", "object_poses"]


@torch.no_grad()
def object_motions(
    sequence: GaussianSequence, frames: np.ndarray, *, levels: int | None = None
) -> dict[int, np.ndarray]:
    """Return how each object has moved since the canonical frame, as a rigid whole.

    It is the rigid motion that fits the object's Gaussians best, weighted by opacity, so that it
    holds all motion levels and does not depend on how they share the motion among them.

    Args:
        sequence: the fit.
        frames: [T] frame indices, fractional ones too.
        levels: use only the first so many motion levels.

    Returns:
        By mask index, [T, 4, 4], in the world of the sequence.
    """
    times = torch.as_tensor(np.asarray(frames, float), dtype=torch.float32, device=sequence.device)
    means = sequence.posed(times, levels=levels).means[:, len(sequence.static) :].double()
    rest, opacities = sequence.moving.means.double(), sequence.moving.opacities.double()
    motions = {}
    for label in sequence.instances.unique().tolist():
        own = sequence.instances == label
        motions[label] = fit_motion(rest[own].expand(len(times), -1, -1), means[:, own],
                                 opacities[own].expand(len(times), -1))  # fmt: skip
    return motions


def object_centres(sequence: GaussianSequence) -> dict[int, np.ndarray]:
    """Return the centre [3] of each object in the canonical frame: its mean, by opacity."""
    rest = sequence.moving.means.detach().double().cpu().numpy()
    weight = sequence.moving.opacities.detach().double().cpu().numpy()
    label = sequence.instances.cpu().numpy()
    return {
        int(k): np.average(rest[label == k], axis=0, weights=weight[label == k])
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
        at_rest = np.eye(4)
        at_rest[:3, 3] = centres[label]
        poses[label] = motion @ at_rest
    return poses


def fit_motion(
    source: Float[Tensor, "times points 3"],
    target: Float[Tensor, "times points 3"],
    weights: Float[Tensor, "times points"],
) -> np.ndarray:
    """Return the rigid motions [T, 4, 4] that carry weighted points best from source to target."""
    rotation, translation, _ = procrustes(source, target, weights)
    motion = np.tile(np.eye(4), (len(source), 1, 1))
    motion[:, :3, :3] = rotation.cpu().numpy()
    motion[:, :3, 3] = translation.cpu().numpy()
    return motion
