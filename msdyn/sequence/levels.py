"""Contribution of each motion level to the displacement of the objects."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Real

from msdyn.sequence.sequence import GaussianSequence

__all__ = ["motion_by_level"]

# Weights of an object of which no Gaussian exists at a time sum to less.
_LEAST = 1e-12
_FRAMES_AT_A_TIME = 8


@torch.no_grad()
def motion_by_level(
    sequence: GaussianSequence, frames: Real[np.ndarray, " frames"] | None = None
) -> dict[int, Float[np.ndarray, "levels frames"]]:
    """Return the displacement that each motion level adds to the Gaussians of each object.

    The displacement of level l is the distance between the positions under levels 1..l and under
    levels 1..l-1: root mean square over the object's Gaussians, weighted by opacity. Displacements
    add as vectors, so their norms do not sum to that of the total displacement.

    Args:
        sequence: the fit.
        frames: fractional frame indices; all frames of the clip by default.

    Returns:
        By mask index, [L, T] in scene units.
    """
    frames = np.arange(len(sequence.timeline)) if frames is None else np.asarray(frames)
    times = torch.as_tensor(frames, dtype=torch.float32, device=sequence.device)
    parts = [_displacements(sequence, part) for part in times.split(_FRAMES_AT_A_TIME)]
    return {label: np.concatenate([part[label] for part in parts], axis=1) for label in parts[0]}


def _displacements(
    sequence: GaussianSequence, times: Float[torch.Tensor, " times"]
) -> dict[int, Float[np.ndarray, "levels times"]]:
    """Return the displacements at a few times, whose posed Gaussians are in memory."""
    num_static, labels = len(sequence.static), sequence.labels
    displacements = {
        label: np.zeros((sequence.num_levels, len(times))) for label in labels.unique().tolist()
    }
    if not displacements:
        return {}
    opacities = sequence.moving.opacities_at(times).double()  # [T or 1, G]
    coarser = sequence.posed(times, levels=0).means[:, num_static:]
    for level in range(sequence.num_levels):
        finer = sequence.posed(times, levels=level + 1).means[:, num_static:]
        squared = (finer - coarser).double().square().sum(-1)  # [T, G]
        for label, rms in displacements.items():
            weights = opacities * (labels == label)
            mean = (squared * weights).sum(1) / weights.sum(1).clamp_min(_LEAST)
            rms[level] = mean.sqrt().cpu().numpy()
        coarser = finer
    return displacements
