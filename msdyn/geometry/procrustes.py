"""Weighted Procrustes alignment: the rigid motion, or similarity, between two point sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, cast

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor

from msdyn.geometry.cameras import Cameras
from msdyn.geometry.rigid import Array, Rigid, Similarity

__all__ = [
    "Alignment",
    "align_camera_paths",
    "nearest_rotations",
    "procrustes",
    "similarity_from_points",
]


@dataclass(frozen=True)
class Alignment(Generic[Array]):
    """The result of `procrustes`.

    Attributes:
        rigid: `target_from_source`.
        rank: [...] of the weighted covariance, as floats: 3 or 2 if the rotation is determined, 1
            for points on a line, 0 for a single point, -1 if all weights are zero.
    """

    rigid: Rigid[Array]
    rank: Float[Array, "*batch"]


def procrustes(
    source: Float[Array, "*#batch points 3"],
    target: Float[Array, "*#batch points 3"],
    weights: Real[Array, "*#batch points"],
    prior: Float[Array, "*#batch"] | None = None,
) -> Alignment[Array]:
    """Find the rotation R and translation t that minimise sum_j w_j |R source_j + t - target_j|^2.

    Degenerate input has a defined result: the identity if all weights are zero; the smallest
    rotation that fits if the weighted points do not span a plane (so a single point gives a pure
    translation, and collinear points are not rotated about their line).

    Args:
        source: [..., P, 3] points in scene units; values of zero weight are ignored, even NaN.
        target: [..., P, 3] corresponding points.
        weights: [..., P] non-negative confidence of each pair.
        prior: [...] optional weight of a prior on the rotation, scene units squared: adds
            prior * |R - I|^2 / 2 to the weighted mean of the squared distances. For points with
            noise of standard deviation sigma (effective number n) and rotations with a prior
            standard deviation of theta radians, Bayes' rule gives sigma^2 / (n theta^2).

    All arguments are numpy arrays, or all are tensors, for which the result is differentiable; the
    result has the same type.

    Reference: Kabsch 1976, Umeyama 1991; Eq. 11 of Gaussian Sequences with Multi-Scale Dynamics.
    """
    if isinstance(source, np.ndarray):
        arguments = (source, target, weights, *(() if prior is None else (prior,)))
        found = _procrustes(*(torch.from_numpy(np.array(v, np.float64)) for v in arguments))
        return cast(Alignment[Array], Alignment(found.rigid.arrays(), found.rank.numpy()))
    return cast(Alignment[Array], _procrustes(source, target, weights, prior))  # pyright: ignore


def _procrustes(
    source: Float[Tensor, "*#batch points 3"],
    target: Float[Tensor, "*#batch points 3"],
    weights: Float[Tensor, "*#batch points"],
    prior: Float[Tensor, "*#batch"] | None = None,
) -> Alignment[Tensor]:
    source, target = torch.broadcast_tensors(source, target)
    used = (weights > 0).unsqueeze(-1)
    source = torch.where(used, source, 0.0)
    target = torch.where(used, target, 0.0)
    total = weights.sum(-1)
    share = weights / total.clamp_min(torch.finfo(weights.dtype).tiny).unsqueeze(-1)
    row = share.unsqueeze(-2)  # [..., 1, P]: means as products of matrices
    source_mean, target_mean = row @ source, row @ target
    source_centred, target_centred = source - source_mean, target - target_mean
    covariance = (target_centred.mT * row) @ source_centred  # [..., 3, 3]
    identity = torch.eye(3, dtype=covariance.dtype, device=covariance.device)
    if prior is not None:
        covariance = covariance + prior[..., None, None] * identity

    u, singular, vh = torch.linalg.svd(covariance)
    sign = torch.linalg.det(u @ vh)
    ones = torch.ones_like(sign)
    full = u @ (torch.stack([ones, ones, sign], dim=-1).unsqueeze(-1) * vh)

    # Singular values below float precision do not count towards the rank.
    spread = (row @ (source_centred**2 + target_centred**2)).sum((-2, -1))
    floor = 1e3 * torch.finfo(weights.dtype).eps
    rank = (singular > floor * spread.unsqueeze(-1)).sum(-1)
    freedom = rank[..., None, None]
    rotation = torch.where(freedom >= 2, full, identity)
    if (rank == 1).any():
        smallest = _smallest_rotation(vh[..., 0, :], u[..., :, 0])
        rotation = torch.where(freedom == 1, smallest, rotation)
    translation = (target_mean.mT - rotation @ source_mean.mT).squeeze(-1)
    empty = total <= 0
    translation = torch.where(empty.unsqueeze(-1), torch.zeros_like(translation), translation)
    rank = torch.where(empty, torch.full_like(rank, -1), rank)
    return Alignment(Rigid(rotation, translation), rank.to(weights.dtype))


def _smallest_rotation(
    start: Float[Tensor, "*batch 3"], end: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3 3"]:
    """Return the smallest rotation that maps unit vectors `start` to `end`."""
    axis = torch.linalg.cross(start, end)
    cosine = (start * end).sum(-1)[..., None, None]
    zero = torch.zeros_like(axis[..., 0])
    x, y, z = axis.unbind(-1)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=start.dtype, device=start.device)
    rotation = identity + skew + skew @ skew / (1 + cosine).clamp_min(1e-12)
    # Opposite vectors: a rotation by pi about any orthogonal axis.
    least = torch.nn.functional.one_hot(start.abs().argmin(-1), 3).to(start.dtype)
    normal = torch.nn.functional.normalize(torch.linalg.cross(start, least), dim=-1)
    opposite = 2 * normal.unsqueeze(-1) * normal.unsqueeze(-2) - identity
    return torch.where(cosine < -1 + 1e-9, opposite, rotation)


def nearest_rotations(
    matrices: Float[np.ndarray, "*batch 3 3"],
) -> Float[np.ndarray, "*batch 3 3"]:
    """Return the rotations nearest to matrices in the Frobenius norm.

    For a weighted mean of rotations it is their chordal mean.

    Reference: Hartley et al., "Rotation Averaging", 2013.
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
    """Return the similarity `target_from_source` between two reconstructions of the same cameras.

    The rotation is estimated from the camera orientations, so it is determined also for straight
    paths, for which the centres leave the rotation about the path undetermined.
    """
    relative = target.cam_from_world[:, :3, :3].swapaxes(1, 2) @ source.cam_from_world[:, :3, :3]
    rotation = nearest_rotations(relative.sum(0))
    source_centred = (source.centres - source.centres.mean(0)) @ rotation.T
    target_centred = target.centres - target.centres.mean(0)
    variance = (source_centred**2).sum()
    scale = float((target_centred * source_centred).sum() / variance) if variance > 0 else 1.0
    translation = target.centres.mean(0) - scale * rotation @ source.centres.mean(0)
    return Similarity(scale, Rigid(rotation, translation))
