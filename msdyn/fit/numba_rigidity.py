"""CPU kernel: the local rigidity loss and its gradients in one go.

A few thousand Gaussians with eight neighbours each are done within a millisecond, so the kernel is
serial, and its sums are in the same order each run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from msdyn.jit import kernel

__all__ = ["rigidity_cpu"]

_F = np.float32


def rigidity_cpu(
    canonical: Tensor,
    moved: Tensor,
    rotations: Tensor,
    chosen: Tensor,
    neighbours: Tensor,
    weights: Tensor,
) -> Tensor:
    """Return the local rigidity loss, differentiably in the first three arguments.

    Args:
        canonical: [G, 3] float32 on the CPU, as everything here but the indices.
        moved: [B, G, 3].
        rotations: [B, G, 3, 3].
        chosen: [n] int64.
        neighbours: [n, k] int64.
        weights: [n, k].
    """
    pairs = chosen, neighbours, weights.to(canonical)
    return _Rigidity.apply(canonical, moved, rotations, *pairs)  # pyright: ignore[reportReturnType]


class _Rigidity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        arrays = [t.detach().contiguous().numpy() for t in inputs]
        gradients = [np.zeros_like(array) for array in arrays[:3]]
        value = _rigidity(*arrays, *gradients)
        ctx.save_for_backward(*map(torch.from_numpy, gradients))
        return inputs[0].new_tensor(value)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return (*(upstream[0] * gradient for gradient in ctx.saved_tensors), None, None, None)


@kernel()
def _rigidity(
    canonical,
    moved,
    rotations,
    chosen,
    neighbours,
    weights,
    grad_canonical,
    grad_moved,
    grad_rotations,
):
    tiny, small = _F(1e-12), _F(1e-6)
    total_weight, distance = _F(0), _F(0)
    edge, turned = np.empty(3, np.float32), np.empty(3, np.float32)
    for n in range(chosen.size):
        for k in range(neighbours.shape[1]):
            square = _F(0)
            for i in range(3):
                edge[i] = canonical[neighbours[n, k], i] - canonical[chosen[n], i]
                square += edge[i] * edge[i]
            total_weight += weights[n, k]
            distance += weights[n, k] * np.sqrt(square)
    total_weight = max(total_weight, small)
    spacing = max(distance / total_weight, small)
    value = 0.0
    for b in range(moved.shape[0]):
        for n in range(chosen.size):
            here = chosen[n]
            turn, grad_turn = rotations[b, here], grad_rotations[b, here]
            for k in range(neighbours.shape[1]):
                there = neighbours[n, k]
                share = weights[n, k] / (total_weight * _F(moved.shape[0]))
                if share == 0:
                    continue
                strain, twist = tiny, tiny
                for i in range(3):
                    edge[i] = canonical[there, i] - canonical[here, i]
                for i in range(3):
                    turned[i] = moved[b, there, i] - moved[b, here, i]
                    for j in range(3):
                        turned[i] -= turn[i, j] * edge[j]
                        apart = rotations[b, there, i, j] - turn[i, j]
                        twist += apart * apart
                    strain += turned[i] * turned[i]
                strain, twist = np.sqrt(strain), np.sqrt(twist)
                value += share * (strain / spacing + twist)
                along, across = share / (strain * spacing), share / twist
                for i in range(3):
                    pull = along * turned[i]
                    grad_moved[b, there, i] += pull
                    grad_moved[b, here, i] -= pull
                    for j in range(3):
                        back = pull * turn[i, j]
                        grad_canonical[there, j] -= back
                        grad_canonical[here, j] += back
                        twisting = across * (rotations[b, there, i, j] - turn[i, j])
                        grad_rotations[b, there, i, j] += twisting
                        grad_turn[i, j] -= twisting + pull * edge[j]
    return value
