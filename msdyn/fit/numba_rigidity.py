"""CPU kernel: the local rigidity loss and its gradients in one pass.

The kernel is serial, so that the order of its sums is deterministic. For a few thousand Gaussians
with eight neighbours each it takes about a millisecond.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from msdyn.jit import kernel

__all__ = ["rigidity_cpu"]

_F = np.float32


def rigidity_cpu(
    canonical: Float[Tensor, "gaussians 3"],
    moved: Float[Tensor, "frames gaussians 3"],
    rotations: Float[Tensor, "frames gaussians 3 3"],
    chosen: Int[Tensor, " chosen"],
    neighbours: Int[Tensor, "chosen near"],
    weights: Float[Tensor, "chosen near"],
) -> Float[Tensor, ""]:
    """Return the local rigidity loss, differentiable in the first three arguments.

    All tensors are on the CPU, in float32 and int64; see `msdyn.fit.losses.rigidity_loss`.
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
    edge, residual = np.empty(3, np.float32), np.empty(3, np.float32)
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
            rotation, grad_rotation = rotations[b, here], grad_rotations[b, here]
            for k in range(neighbours.shape[1]):
                there = neighbours[n, k]
                share = weights[n, k] / (total_weight * _F(moved.shape[0]))
                if share == 0:
                    continue
                strain, twist = tiny, tiny
                for i in range(3):
                    edge[i] = canonical[there, i] - canonical[here, i]
                for i in range(3):
                    residual[i] = moved[b, there, i] - moved[b, here, i]
                    for j in range(3):
                        residual[i] -= rotation[i, j] * edge[j]
                        difference = rotations[b, there, i, j] - rotation[i, j]
                        twist += difference * difference
                    strain += residual[i] * residual[i]
                strain, twist = np.sqrt(strain), np.sqrt(twist)
                value += share * (strain / spacing + twist)
                strain_factor, twist_factor = share / (strain * spacing), share / twist
                for i in range(3):
                    grad_residual = strain_factor * residual[i]
                    grad_moved[b, there, i] += grad_residual
                    grad_moved[b, here, i] -= grad_residual
                    for j in range(3):
                        grad_edge = grad_residual * rotation[i, j]
                        grad_canonical[there, j] -= grad_edge
                        grad_canonical[here, j] += grad_edge
                        grad_twist = twist_factor * (rotations[b, there, i, j] - rotation[i, j])
                        grad_rotations[b, there, i, j] += grad_twist
                        grad_rotation[i, j] -= grad_twist + grad_residual * edge[j]
    return value
