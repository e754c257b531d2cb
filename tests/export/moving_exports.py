"""Sequences for the tests of formats that move Gaussians as rigid parts."""

from copy import deepcopy

import numpy as np
import torch
from evaluate.exact_fits import moving_points

from msdyn.sequence import Gaussians


def with_harmonics(sequence, degree):
    """Return a copy whose colours depend on the view."""
    sequence = deepcopy(sequence)
    generator = torch.Generator().manual_seed(0)
    for name in ("static", "moving"):
        old = getattr(sequence, name)
        high = 0.2 * torch.randn(len(old), (degree + 1) ** 2 - 1, 3, generator=generator)
        harmonics = torch.cat([old.harmonics, high], 1)
        new = Gaussians(
            old.means, old.log_scales, old.quats_wxyz, old.opacity_logits, harmonics,
            old.life_spans,
        )  # fmt: skip
        setattr(sequence, name, new)
    return sequence


def half_lives(sequence):
    """Return a copy of which half of the moving Gaussians live until the middle, half from it."""
    middle = 0.5 * (len(sequence.timeline) - 1)
    even = torch.arange(len(sequence.moving)) % 2 == 0
    infinity = torch.full((len(sequence.moving),), float("inf"))
    spans = torch.stack(
        [torch.where(even, -infinity, middle), torch.where(even, middle, infinity)], 1
    )
    return sequence.replaced(moving=sequence.moving.with_life_spans(spans))


def bending():
    """Return one object of nine Gaussians of which the last moves by itself, 5 frames."""
    x, y = np.meshgrid([-0.4, 0.0, 0.4], [-0.3, 0.0, 0.3])
    points = np.stack([x.ravel(), y.ravel(), np.full(9, 2.0)], axis=1)
    translations = np.zeros((9, 5, 3))
    translations[:, :, 0] = np.linspace(0, 0.1, 5)
    translations[8, :, 1] = 0.06 * np.linspace(0, 1, 5) ** 2
    sequence = moving_points(points, translations, scale=0.05)
    return sequence.replaced(labels=torch.ones(9, dtype=torch.long))
