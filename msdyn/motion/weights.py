"""Sparse blend weights of the shared patterns for each Gaussian."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from msdyn.motion.patterns import MAX_PATTERNS

__all__ = ["BlendWeights", "weights_from_votes"]

# Added to normalised votes, so that candidate patterns without votes get gradients.
_FLOOR = 1e-3
# Logit of unused entries, which repeat a Gaussian's first pattern.
_UNUSED = -20.0


@dataclass(frozen=True)
class BlendWeights:
    """Sparse weights of the patterns of one level.

    Attributes:
        index: [G, k] patterns of each Gaussian.
        logits: [G, k]; or [G, k, T] for time-varying weights at key frames, as in Eq. 10.
    """

    index: Int[Tensor, "gaussians patterns"]
    logits: Float[Tensor, "gaussians patterns *keys"]

    @property
    def values(self) -> Float[Tensor, "gaussians patterns *keys"]:
        """The weights: non-negative, with a sum of one over the patterns."""
        return self.logits.softmax(1)

    @property
    def varies(self) -> bool:
        """Whether the weights are time-varying."""
        return self.logits.dim() == 3

    def dense(self, count: int) -> Float[Tensor, "gaussians all_patterns"]:
        """Return the weight of each of `count` patterns, for constant weights."""
        zeros = self.logits.new_zeros(len(self.index), count)
        return zeros.scatter_add(1, self.index, self.values)

    def dominant(self) -> Int[Tensor, " gaussians"]:
        """Return the pattern of the largest weight, averaged over time."""
        values = self.values.mean(-1) if self.varies else self.values
        return self.index.gather(1, values.argmax(1, keepdim=True))[:, 0]


def weights_from_votes(
    votes: Sequence[Float[Tensor, "gaussians _"]],
    parents: Sequence[Int[Tensor, " _"]],
    max_patterns: Sequence[int] = MAX_PATTERNS,
) -> list[BlendWeights]:
    """Convert votes for patterns to sparse weights: the top children of the parents in use.

    Args:
        votes: for each level [G, K_l], non-negative; rows need not be normalised.
        parents: for each level [K_l], index into the level coarser.
        max_patterns: on each level, the number of patterns kept per Gaussian.

    Returns:
        Weights for each level. If a Gaussian has fewer candidates than patterns to keep, the unused
        entries repeat its first pattern with negligible weight.
    """
    levels: list[BlendWeights] = []
    for level, vote in enumerate(votes):
        normalised = vote / vote.sum(-1, keepdim=True).clamp_min(1e-12)
        allowed = torch.ones_like(normalised, dtype=torch.bool)
        if level > 0:
            used = torch.zeros(len(normalised), votes[level - 1].shape[1], dtype=torch.bool)
            coarser = levels[level - 1]
            used.scatter_(1, coarser.index, coarser.values > 1e-3)
            allowed = used[:, parents[level]]
        score = torch.where(allowed, normalised, torch.full_like(normalised, -1.0))
        top, index = score.topk(min(max_patterns[level], normalised.shape[1]), dim=1)
        logits = (top.clamp_min(0) + _FLOOR).log()
        unused = top < 0
        index = torch.where(unused, index[:, :1], index)
        logits = torch.where(unused, torch.full_like(logits, _UNUSED), logits)
        levels.append(BlendWeights(index, logits))
    return levels
