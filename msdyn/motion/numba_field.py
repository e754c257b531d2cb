"""CPU kernels of the motion field: blend, orthonormalise and compose all levels in one pass.

They compute the same as `PatternField` does in torch, with hand-written gradients. Gaussians are
divided into a fixed number of chunks with separate sums of the pattern gradients, so that the
result does not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from msdyn.jit import kernel
from msdyn.motion.numba_levels import (
    blend_level,
    copy,
    gram_schmidt,
    level_back,
    move_point,
    multiply_quats,
    multiply_rotations,
    orientation_back,
    quaternion_of,
    set_zero,
    softmax,
)
from msdyn.threads import on_ranges, thread_count

__all__ = ["pose_cpu"]

_CHUNKS = 64
_GRAIN = 2048  # minimum work per thread, in Gaussians times frames: about a millisecond
_F = np.float32


def pose_cpu(
    points: Float[Tensor, "gaussians 3"],
    quats_wxyz: Float[Tensor, "gaussians 4"],
    indices: list[Int[Tensor, "gaussians _"]],
    logits: list[Float[Tensor, "gaussians _"]],
    tables: list[Float[Tensor, "_ times 9"]],
    centres: list[Float[Tensor, "_ 3"]],
) -> tuple[
    Float[Tensor, "times gaussians 3 3"],
    Float[Tensor, "times gaussians 3"],
    Float[Tensor, "times gaussians 4"],
]:
    """Pose Gaussians by composed levels, differentiably in all but `indices` and `centres`.

    All tensors are on the CPU, those of real numbers in float32.

    Args:
        points: canonical positions.
        quats_wxyz: canonical orientations.
        indices: for each level, outermost first, the patterns [G, k] of each Gaussian.
        logits: for each level, of the blend weights [G, k].
        tables: for each level, 6D rotations minus the identity's, and translations [K, B, 9].
        centres: for each level, pivots [K, 3].

    Returns:
        Rotations, positions and orientations.
    """
    offsets = np.cumsum([0, *(len(t) for t in tables)])
    shifted = [index + int(start) for index, start in zip(indices, offsets, strict=False)]
    starts = np.cumsum([0, *(index.shape[1] for index in indices)])  # of each level in a row
    return _Pose.apply(
        points,
        quats_wxyz,
        torch.cat(logits, dim=1),
        torch.cat(tables),
        torch.cat(shifted, dim=1).numpy(),
        torch.cat(centres).numpy(),
        starts,
    )  # pyright: ignore[reportReturnType]


class _Pose(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        points: Tensor,
        quats: Tensor,
        logits: Tensor,
        table: Tensor,
        index: np.ndarray,
        centres: np.ndarray,
        starts: np.ndarray,
    ) -> tuple[Tensor, Tensor, Tensor]:
        count, times = len(points), table.shape[1]
        rotations = torch.empty(times, count, 3, 3)
        moved = torch.empty(times, count, 3)
        posed_quats = torch.empty(times, count, 4)
        arrays = [t.detach().contiguous().numpy() for t in (points, quats, logits, table)]
        results = rotations.numpy(), moved.numpy(), posed_quats.numpy()
        threads = thread_count(count * times, _GRAIN)
        on_ranges(threads, _CHUNKS, _forward, *arrays, index, centres, starts, *results)
        ctx.save_for_backward(points, quats, logits, table, rotations)
        ctx.constants = index, centres, starts
        return rotations, moved, posed_quats

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Any, ...]:
        points, quats, logits, table, rotations = (
            t.detach().contiguous().numpy() for t in ctx.saved_tensors
        )
        grads = [g.contiguous().numpy() for g in upstream]
        out = [np.zeros_like(points), np.zeros_like(quats), np.zeros_like(logits)]
        partial = np.zeros((_CHUNKS, *table.shape), np.float32)
        inputs = (points, quats, logits, table, *ctx.constants, rotations)
        threads = thread_count(len(points) * table.shape[1], _GRAIN)
        on_ranges(threads, _CHUNKS, _backward, *inputs, *grads, *out, partial)
        return (*map(torch.from_numpy, (*out, partial.sum(0))), None, None, None)


@kernel()
def _forward(
    first_chunk,
    end_chunk,
    points,
    quats,
    logits,
    table,
    index,
    centres,
    starts,
    rotations,
    moved,
    posed_quats,
):
    count, times, levels = points.shape[0], table.shape[1], starts.size - 1
    size = (count + _CHUNKS - 1) // _CHUNKS
    for chunk in range(first_chunk, end_chunk):
        weights = np.empty(starts[-1], np.float32)
        mixed = np.empty(12, np.float32)
        r, norms, q = np.empty(9, np.float32), np.empty(3, np.float32), np.empty(4, np.float32)
        total, product = np.empty(9, np.float32), np.empty(9, np.float32)
        x, y = np.empty(3, np.float32), np.empty(3, np.float32)
        for g in range(chunk * size, min((chunk + 1) * size, count)):
            for level in range(levels):
                softmax(logits[g], starts[level], starts[level + 1], weights)
            for b in range(times):
                copy(points[g], x)
                set_zero(total)
                total[0] = total[4] = total[8] = _F(1)
                for back in range(levels):
                    level = levels - 1 - back
                    start, end = starts[level], starts[level + 1]
                    blend_level(index[g], weights, table, centres, b, start, end, mixed)
                    gram_schmidt(mixed, r, norms)
                    move_point(r, mixed, x, y)
                    copy(y, x)
                    multiply_rotations(r, total, product)
                    copy(product, total)
                copy(x, moved[b, g])
                for i in range(9):
                    rotations[b, g, i // 3, i % 3] = total[i]
                quaternion_of(total, q)
                multiply_quats(q, quats[g], posed_quats[b, g])


@kernel()
def _backward(
    first_chunk,
    end_chunk,
    points,
    quats,
    logits,
    table,
    index,
    centres,
    starts,
    rotations,
    grad_rotations,
    grad_moved,
    grad_posed_quats,
    grad_points,
    grad_quats,
    grad_logits,
    partial,
):
    count, times, levels = points.shape[0], table.shape[1], starts.size - 1
    size = (count + _CHUNKS - 1) // _CHUNKS
    for chunk in range(first_chunk, end_chunk):
        weights = np.empty(starts[-1], np.float32)
        by_weight = np.empty(starts[-1], np.float32)
        norms, steps = np.empty((levels, 3), np.float32), np.empty((levels, 9), np.float32)
        before = np.empty((levels, 9), np.float32)  # rotation of the finer levels
        mixes, xs = np.empty((levels, 12), np.float32), np.empty((levels + 1, 3), np.float32)
        total, product = np.empty(9, np.float32), np.empty(9, np.float32)
        gr, gx, gm = np.empty(9, np.float32), np.empty(3, np.float32), np.empty(12, np.float32)
        q1, q2, q3 = np.empty(4, np.float32), np.empty(4, np.float32), np.empty(4, np.float32)
        own, inner = np.empty(9, np.float32), np.empty(9, np.float32)
        for g in range(chunk * size, min((chunk + 1) * size, count)):
            set_zero(by_weight)
            for level in range(levels):
                softmax(logits[g], starts[level], starts[level + 1], weights)
            for b in range(times):
                # Recompute the forward pass and keep the input of each level.
                copy(points[g], xs[levels])
                set_zero(total)
                total[0] = total[4] = total[8] = _F(1)
                for back in range(levels):
                    level = levels - 1 - back
                    start, end = starts[level], starts[level + 1]
                    blend_level(index[g], weights, table, centres, b, start, end, mixes[level])
                    gram_schmidt(mixes[level], steps[level], norms[level])
                    move_point(steps[level], mixes[level], xs[level + 1], xs[level])
                    copy(total, before[level])
                    multiply_rotations(steps[level], total, product)
                    copy(product, total)
                orientation_back(
                    total, quats[g], grad_posed_quats[b, g], grad_quats[g], gr, q1, q2, q3
                )
                for i in range(9):
                    gr[i] += grad_rotations[b, g, i // 3, i % 3]
                copy(grad_moved[b, g], gx)
                for level in range(levels):
                    level_back(
                        steps[level], norms[level], mixes[level], before[level], xs[level + 1],
                        gr, gx, gm, own, inner,
                    )  # fmt: skip
                    for j in range(starts[level], starts[level + 1]):
                        k, w = index[g, j], weights[j]
                        dot = _F(0)
                        for i in range(9):
                            dot += gm[i] * table[k, b, i]
                            partial[chunk, k, b, i] += w * gm[i]
                        for i in range(3):
                            dot += gm[9 + i] * centres[k, i]
                        by_weight[j] += dot
                for i in range(3):
                    grad_points[g, i] += gx[i]
            for level in range(levels):
                mean = _F(0)
                for j in range(starts[level], starts[level + 1]):
                    mean += weights[j] * by_weight[j]
                for j in range(starts[level], starts[level + 1]):
                    grad_logits[g, j] = weights[j] * (by_weight[j] - mean)
