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
    sequence: GaussianSequence, count: int, frame: float, objects: Sequence[int] | None = None
) -> Int[np.ndarray, " chosen"]:
    """Return indices of at most `count` moving Gaussians that are opaque at a frame.

    They are drawn with a fixed seed, so that those of other frames are mostly the same.

    Args:
        sequence: the fit.
        count: maximum number.
        frame: fractional frame index.
        objects: mask indices of the objects they are on; all by default.
    """
    time = torch.tensor([float(frame)], device=sequence.device)
    opaque = (sequence.moving.opacities_at(time)[0] > _OPAQUE).detach().cpu().numpy()
    if objects is not None:
        opaque &= np.isin(sequence.labels.cpu().numpy(), objects)
    order = np.random.default_rng(0).permutation(len(opaque))
    return order[opaque[order]][:count]


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

    A path begins with the life span of its Gaussian; earlier points are the first one, repeated.

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
    paths = sequence.paths(index, times, levels=levels).double().cpu().numpy()
    spans = sequence.moving.life_spans
    if spans is not None:
        begin = spans.detach().cpu().numpy()[chosen, 0]
        first = np.searchsorted(steps, begin).clip(0, points - 1)  # [chosen]
        shown = np.maximum(np.arange(points)[:, None], first)
        paths = np.take_along_axis(paths, shown[..., None], axis=0)
    return paths
