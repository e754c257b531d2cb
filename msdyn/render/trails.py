"""Trails: the paths of some moving Gaussians over the last frames, for pictures and the viewer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from msdyn.sequence import GaussianSequence

__all__ = ["gaussian_trails", "trail_gaussians"]

_OPAQUE = 0.5


def trail_gaussians(
    sequence: GaussianSequence, count: int, objects: Sequence[int] | None = None
) -> Int[np.ndarray, " chosen"]:
    """Return indices of at most `count` opaque moving Gaussians, drawn with a fixed seed.

    Args:
        sequence: the fit.
        count: maximum number.
        objects: mask indices of the objects they are on; all by default.
    """
    opaque = (sequence.moving.opacities > _OPAQUE).cpu().numpy()
    if objects is not None:
        opaque &= np.isin(sequence.labels.cpu().numpy(), objects)
    return np.random.default_rng(0).permutation(np.flatnonzero(opaque))[:count]


def gaussian_trails(
    sequence: GaussianSequence,
    chosen: Int[np.ndarray, " chosen"],
    frame: float,
    *,
    frames: float,
    points: int,
    levels: int | None = None,
) -> Float[np.ndarray, "points chosen 3"]:
    """Return the paths of moving Gaussians over the last frames, oldest point first.

    Args:
        sequence: the fit.
        chosen: indices of moving Gaussians.
        frame: fractional frame index at which the trails end.
        frames: their length; shorter at the beginning of the clip.
        points: number of points of each.
        levels: use only the first so many motion levels.
    """
    steps = np.linspace(max(frame - frames, 0), frame, points)
    index = torch.as_tensor(chosen, device=sequence.device)
    times = torch.as_tensor(steps, dtype=torch.float32, device=sequence.device)
    return sequence.paths(index, times, levels=levels).double().cpu().numpy()
