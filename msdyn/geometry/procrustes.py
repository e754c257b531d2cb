"""Weighted Procrustes alignment: the rigid motion, or similarity, between two point sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.geometry.cameras import Cameras
from msdyn.geometry.rigid import Rigid, Similarity

__all__ = [
    "Alignment",
    "align_camera_paths",
    "nearest_rotations",
    "procrustes",
    "similarity_from_points",
]


Array = TypeVar("Array", np.ndarray, Tensor)


@dataclass(frozen=True)
class Alignment(Generic[Array]):
    """What `procrustes` found.

    Attributes:
        rigid: `target_from_source`.
        rank: [...] of the weighted spread, as floats: 3 or 2 for a determined rotation, 1 for
            points on a line, 0 for one point, -1 where all weights are zero.
    """

    rigid: Rigid[Array]
    rank: Array


def procrustes(
    source: Array, target: Array, weights: Array, prior: Array | None = None
) -> Alignment[Array]:
    """Find the rotation R and translation t that minimise sum_j w_j |R source_j + t - target_j|^2.

    Degenerate input is decided: where all weights are zero the result is the identity; where the
    weighted points span less than a plane, the rotation is the smallest one that fits (so a single
    point gives a pure translation, and points on a line never spin about it).

    Args:
        source: [..., P, 3] points in scene units; values of zero weight are ignored, even NaN.
        target: [..., P, 3] corresponding points.
        weights: [..., P] non-negative confidence of each pair.
        prior: [...] optional pull of the rotation to the identity, scene units squared: adds
            prior * |R - I|^2 / 2 to the weighted mean of the squared distances. For points of
            noise sigma (effective number n) and rotations expected within theta radians,
            Bayes' rule gives sigma^2 / (n theta^2).

    All arguments are numpy arrays, or all are tensors, in which it is differentiable; the result
    is of the same kind.

    Reference: Kabsch 1976, Umeyama 1991; Eq. 11 of Gaussian Sequences with Multi-Scale Dynamics.
    """
    if isinstance(source, np.ndarray):
        given = (source, target, weights, *(() if prior is None else (prior,)))
        found = _procrustes(*(torch.from_numpy(np.array(v, np.float64)) for v in given))
        return cast(Alignment[Array], Alignment(found.rigid.arrays(), found.rank.numpy()))
    return cast(Alignment[Array], _procrustes(source, target, weights, prior))  # pyright: ignore


def _procrustes(
    source: Float[Tensor, "*#batch points 3"],
    target: Float[Tensor, "*#batch points 3"],
    weights: Float[Tensor, "*#batch points"],
    prior: Float[Tensor, "*#batch"] | None = None,
) -> Alignment[Tensor]:
    source, target = torch.broadcast_tensors(source, target)
    keep = (weights > 0).unsqueeze(-1)
    source = torch.where(keep, source, 0.0)
    target = torch.where(keep, target, 0.0)
    total = weights.sum(-1)
    share = (weights / total.clamp_min(torch.finfo(weights.dtype).tiny).unsqueeze(-1)).unsqueeze(-1)
    source_mean = (share * source).sum(-2)
    target_mean = (share * target).sum(-2)
    source_centred = source - source_mean.unsqueeze(-2)
    target_centred = target - target_mean.unsqueeze(-2)
    covariance = target_centred.mT @ (share * source_centred)  # [..., 3, 3]
    identity = torch.eye(3, dtype=covariance.dtype, device=covariance.device)
    if prior is not None:
        covariance = covariance + prior[..., None, None] * identity

    u, singular, vh = torch.linalg.svd(covariance)
    sign = torch.linalg.det(u @ vh)
    ones = torch.ones_like(sign)
    full = u @ (torch.stack([ones, ones, sign], dim=-1).unsqueeze(-1) * vh)

    # The rank is that of the spread of the points, not of noise below float precision.
    spread = (share * (source_centred**2 + target_centred**2)).sum((-2, -1))
    floor = 1e3 * torch.finfo(weights.dtype).eps
    rank = (singular > floor * spread.unsqueeze(-1)).sum(-1)
    swing = _smallest_rotation(vh[..., 0, :], u[..., :, 0])
    degrees_of_freedom = rank.unsqueeze(-1).unsqueeze(-1)
    rotation = torch.where(
        degrees_of_freedom >= 2, full, torch.where(degrees_of_freedom == 1, swing, identity)
    )
    translation = target_mean - (rotation @ source_mean.unsqueeze(-1)).squeeze(-1)
    empty = total <= 0
    translation = torch.where(empty.unsqueeze(-1), torch.zeros_like(translation), translation)
    rank = torch.where(empty, torch.full_like(rank, -1), rank)
    return Alignment(Rigid(rotation, translation), rank.to(weights.dtype))


def _smallest_rotation(start: Tensor, end: Tensor) -> Tensor:
    """Return the smallest rotation [..., 3, 3] that takes unit vectors `start` to `end`."""
    axis = torch.linalg.cross(start, end)
    cosine = (start * end).sum(-1)[..., None, None]
    zero = torch.zeros_like(axis[..., 0])
    x, y, z = axis.unbind(-1)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=start.dtype, device=start.device)
    rotation = identity + skew + skew @ skew / (1 + cosine).clamp_min(1e-12)
    # Opposite vectors: half a turn about any axis orthogonal to both.
    least = torch.nn.functional.one_hot(start.abs().argmin(-1), 3).to(start.dtype)
    normal = torch.nn.functional.normalize(torch.linalg.cross(start, least), dim=-1)
    half_turn = 2 * normal.unsqueeze(-1) * normal.unsqueeze(-2) - identity
    return torch.where(cosine < -1 + 1e-9, half_turn, rotation)


def nearest_rotations(matrices: np.ndarray) -> np.ndarray:
    """Return the rotations [*batch, 3, 3] nearest to matrices, such as means of rotations are.

    Nearest by the Frobenius norm, so that for a weighted mean they are the chordal mean (Hartley et
    al. 2013, Rotation Averaging).
    """
    u, _, vh = np.linalg.svd(matrices)
    u[..., :, 2] *= np.linalg.det(u @ vh)[..., None]
    return u @ vh


def similarity_from_points(
    source: Float[np.ndarray, "points 3"], target: Float[np.ndarray, "points 3"]
) -> Similarity:
    """Return the least-squares similarity `target_from_source` between two point sets.

    Reference: Umeyama 1991.
    """
    source = np.asarray(source, np.float64)
    target = np.asarray(target, np.float64)
    rotation = procrustes(source, target, np.ones(len(source))).rigid.rotation
    source_centred = source - source.mean(0)
    target_centred = target - target.mean(0)
    variance = (source_centred**2).sum()
    scale = float((target_centred * (source_centred @ rotation.T)).sum() / variance)
    translation = target.mean(0) - scale * rotation @ source.mean(0)
    return Similarity(scale, Rigid(rotation, translation))


def align_camera_paths(source: Cameras, target: Cameras) -> Similarity:
    """Return the similarity `target_from_source` of two worlds with the same cameras in both.

    The rotation comes from the orientations of the cameras as well as their centres, so a short or
    straight path, where centres alone leave a rotation free, still aligns.
    """
    relative = target.cam_from_world[:, :3, :3].swapaxes(1, 2) @ source.cam_from_world[:, :3, :3]
    rotation = nearest_rotations(relative.sum(0))
    source_centred = (source.centres - source.centres.mean(0)) @ rotation.T
    target_centred = target.centres - target.centres.mean(0)
    variance = (source_centred**2).sum()
    scale = float((target_centred * source_centred).sum() / variance) if variance > 0 else 1.0
    translation = target.centres.mean(0) - scale * rotation @ source.centres.mean(0)
    return Similarity(scale, Rigid(rotation, translation))
