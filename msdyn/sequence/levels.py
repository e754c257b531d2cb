"""How much of the motion each level explains."""

from __future__ import annotations

import numpy as np
import torch

from msdyn.sequence.sequence import GaussianSequence

__all__ = ["motion_by_level"]


@torch.no_grad()
def motion_by_level(
    sequence: GaussianSequence, frames: np.ndarray | None = None
) -> dict[int, np.ndarray]:
    """Return how far each motion level carries the Gaussians of each object.

    A level's share is the distance between where the Gaussians are with it and the levels above it,
    and where they are with those above it alone: root mean square over the object's Gaussians,
    weighted by opacity. Displacements of levels add as vectors, so their sizes do not add up.

    Args:
        sequence: the fit.
        frames: [T] frame indices, fractional ones too; all frames of the clip by default.

    Returns:
        By mask index, [L, T] in scene units.
    """
    frames = np.arange(len(sequence.timeline)) if frames is None else np.asarray(frames)
    times = torch.as_tensor(frames, dtype=torch.float32, device=sequence.device)
    first, labels = len(sequence.static), sequence.labels
    shares = {
        label: np.zeros((sequence.num_levels, len(times))) for label in labels.unique().tolist()
    }
    if not shares:
        return {}
    opacities = sequence.moving.opacities.double()
    before = sequence.posed(times, levels=0).means[:, first:]
    for level in range(sequence.num_levels):
        here = sequence.posed(times, levels=level + 1).means[:, first:]
        squared = (here - before).double().square().sum(-1)  # [T, G]
        for label, rows in shares.items():
            weights = opacities * (labels == label)
            rows[level] = (squared @ weights / weights.sum()).sqrt().cpu().numpy()
        before = here
    return shares
