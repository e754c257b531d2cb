"""How objects turn and move as a whole: the rigid motion of a sequence's objects, and its error."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.geometry import procrustes
from msdyn.sequence import GaussianSequence

__all__ = ["object_motions", "pose_errors", "rigid_motion"]


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
    for label in sequence.objects.unique().tolist():
        own = sequence.objects == label
        motions[label] = _motion(rest[own].expand(len(times), -1, -1), means[:, own],
                                 opacities[own].expand(len(times), -1))  # fmt: skip
    return motions


def rigid_motion(points: np.ndarray, reference: int) -> tuple[np.ndarray, float]:
    """Return the rigid motion of tracked points since a reference frame, and how rigid they are.

    Args:
        points: [N, T, 3], exact in every frame.
        reference: frame index.

    Returns:
        [T, 4, 4], and the root mean square distance of the points from where it carries them:
        0 for a rigid object.
    """
    target = torch.from_numpy(np.ascontiguousarray(points.swapaxes(0, 1), np.float64))  # [T, N, 3]
    source = target[reference].expand_as(target)
    motion = _motion(source, target, torch.ones(target.shape[:2], dtype=torch.float64))
    carried = source.numpy() @ motion[:, :3, :3].swapaxes(1, 2) + motion[:, None, :3, 3]
    return motion, float(np.sqrt(((carried - target.numpy()) ** 2).sum(-1).mean()))


def pose_errors(
    motion: np.ndarray, truth: np.ndarray, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the errors of a rigid motion in angle and place.

    Neither depends on the frame that an object's pose is expressed in: the angle is that of the
    rotation between the two motions, the distance is between where they carry the object's centre.

    Args:
        motion, truth: [T, 4, 4] motions since the same frame.
        centre: [3] the object's centre in that frame.

    Returns:
        [T] degrees, and [T] scene units.
    """
    relative = motion[:, :3, :3].swapaxes(1, 2) @ truth[:, :3, :3]
    # From both sine and cosine: exact for small angles and for half turns.
    axis = relative - relative.swapaxes(1, 2)
    sine = np.sqrt((axis[:, [2, 0, 1], [1, 2, 0]] ** 2).sum(-1)) / 2
    cosine = (np.trace(relative, axis1=1, axis2=2) - 1) / 2
    apart = (motion - truth)[:, :3] @ np.append(centre, 1)
    return np.degrees(np.arctan2(sine, cosine)), np.linalg.norm(apart, axis=-1)


def _motion(
    source: Float[Tensor, "times points 3"],
    target: Float[Tensor, "times points 3"],
    weights: Float[Tensor, "times points"],
) -> np.ndarray:
    rotation, translation, _ = procrustes(source, target, weights)
    motion = np.tile(np.eye(4), (len(source), 1, 1))
    motion[:, :3, :3] = rotation.cpu().numpy()
    motion[:, :3, 3] = translation.cpu().numpy()
    return motion
