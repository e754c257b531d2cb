"""Neighbouring Gaussians for the local rigidity loss."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from torch import Tensor

from msdyn.devices import upload

__all__ = ["Neighbours"]

_NEIGHBOURS = 8
# Number of Gaussians sampled per step.
_SAMPLED = 2048
# Steps between updates of the neighbours, as the canonical positions change slowly.
_UPDATE_EVERY = 100


class Neighbours:
    """Nearest neighbours of the moving Gaussians in the canonical frame, updated periodically."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.index: Tensor | None = None
        self.weight: Tensor | None = None

    def invalidate(self) -> None:
        """Update the neighbours at the next use, because the number of Gaussians changed."""
        self.index = self.weight = None

    def sample(
        self, means: Float[Tensor, "gaussians 3"], objects: Int[Tensor, " gaussians"], step: int
    ) -> tuple[Int[Tensor, " chosen"], Int[Tensor, "chosen near"], Float[Tensor, "chosen near"]]:
        """Sample Gaussians.

        Args:
            means: canonical positions.
            objects: mask index of each Gaussian.
            step: number of the step, which seeds the sample.

        Returns:
            Indices, those of their neighbours, and weights. A weight is a Gaussian of the distance,
            of twice the median distance of neighbours as standard deviation; it is 0 for pairs of
            different objects.
        """
        if self.index is None or self.weight is None or step % _UPDATE_EVERY == 0:
            self.index, self.weight = _nearest(means, objects)
        rng = np.random.default_rng([self.seed, step, 2])
        count = min(_SAMPLED, len(means))
        chosen = upload(rng.choice(len(means), count, replace=False), means.device)
        return chosen, self.index[chosen], self.weight[chosen]


def _nearest(
    means: Float[Tensor, "gaussians 3"], objects: Int[Tensor, " gaussians"]
) -> tuple[Int[Tensor, "gaussians near"], Float[Tensor, "gaussians near"]]:
    """Return the nearest neighbours of each Gaussian and their weights."""
    points = means.detach().cpu().numpy()
    label = objects.cpu().numpy()
    count = min(_NEIGHBOURS + 1, len(points))
    distance, index = KDTree(points).query(points, k=count)
    distance, index = distance.reshape(-1, count)[:, 1:], index.reshape(-1, count)[:, 1:]
    width = max(float(np.median(distance)) if distance.size else 1.0, 1e-9)
    weight = np.exp(-0.5 * (distance / (2 * width)) ** 2) * (label[index] == label[:, None])
    return torch.from_numpy(index).to(means.device), torch.from_numpy(weight).to(means)
