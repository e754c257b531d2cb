"""Which Gaussians the local rigidity loss looks at."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from torch import Tensor

__all__ = ["Neighbours"]

_NEIGHBOURS = 8
_CHOSEN = 2048
_RENEW_EVERY = 100


class Neighbours:
    """Nearest neighbours of the moving Gaussians in the canonical frame, renewed now and then."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.index: Tensor | None = None
        self.weight: Tensor | None = None

    def forget(self) -> None:
        """Find the neighbours anew at the next use: the Gaussians have changed in number."""
        self.index = self.weight = None

    def of(
        self, means: Float[Tensor, "gaussians 3"], objects: Int[Tensor, " gaussians"], step: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return a random choice of Gaussians [n], their neighbours [n, k] and weights [n, k].

        Weights fall off with distance as a Gaussian of the mean distance; pairs across objects have
        none.
        """
        if self.index is None or self.weight is None or step % _RENEW_EVERY == 0:
            self.index, self.weight = _nearest(means, objects)
        rng = np.random.default_rng([self.seed, step, 2])
        count = min(_CHOSEN, len(means))
        chosen = torch.from_numpy(rng.choice(len(means), count, replace=False))
        chosen = chosen.to(means.device)
        return chosen, self.index[chosen], self.weight[chosen]


def _nearest(means: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
    points = means.detach().cpu().numpy()
    label = objects.cpu().numpy()
    near = min(_NEIGHBOURS + 1, len(points))
    distance, index = KDTree(points).query(points, k=near)
    distance, index = distance.reshape(-1, near)[:, 1:], index.reshape(-1, near)[:, 1:]
    width = max(float(np.median(distance)) if distance.size else 1.0, 1e-9)
    weight = np.exp(-0.5 * (distance / (2 * width)) ** 2) * (label[index] == label[:, None])
    return torch.from_numpy(index).to(means.device), torch.from_numpy(weight).to(means)
