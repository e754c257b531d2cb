"""CPU kernels of the motion field: blend, orthonormalise and compose all levels in one pass.

They compute the same as `PatternField` does in torch, with hand-written gradients, for 16 Gaussians
at a time. Gaussians are divided into a fixed number of chunks with separate sums of the pattern
gradients, so that the result does not depend on the number of threads.
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
    gram_schmidt,
    identity,
    level_back,
    move_point,
    multiply_quats,
    orientation_back,
    quaternion_of,
    softmax,
    softmax_back,
)
from msdyn.raster.cpu.lanes import WIDTH, iota, reduce_sum
from msdyn.raster.cpu.lanes_memory import load, load_rows, store, store_column, store_rows
from msdyn.raster.cpu.lanes_vectors import lincomb, load_vector, multiply
from msdyn.threads import on_ranges, thread_count

__all__ = ["pose_cpu"]

_CHUNKS = 64
_GRAIN = 8192  # minimum work per thread, in Gaussians times frames: about a millisecond
_KEPT = 12  # vectors that the backward pass keeps of each level


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
        rows = np.zeros((*table.shape[:2], WIDTH), np.float32)
        rows[..., :9], rows[..., 9:12] = table.detach().numpy(), centres[:, None]
        arrays = [t.detach().contiguous().numpy() for t in (points, quats, logits)]
        results = rotations.view(times, count, 9).numpy(), moved.numpy(), posed_quats.numpy()
        threads = thread_count(count * times, _GRAIN)
        on_ranges(threads, _CHUNKS, _forward, *arrays, rows, index, starts, *results)
        ctx.save_for_backward(points, quats, logits)
        ctx.constants = rows, index, starts
        return rotations, moved, posed_quats

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Any, ...]:
        points, quats, logits = (t.detach().contiguous().numpy() for t in ctx.saved_tensors)
        rows, index, starts = ctx.constants
        patterns, times, _ = rows.shape
        grads = [g.contiguous().numpy() for g in upstream]
        grads[0] = grads[0].reshape(times, -1, 9)
        out = [np.empty_like(points), np.empty_like(quats), np.empty_like(logits)]
        partial = np.zeros((_CHUNKS, patterns, times, WIDTH), np.float32)
        threads = thread_count(len(points) * times, _GRAIN)
        inputs = points, quats, logits, rows, index, starts
        on_ranges(threads, _CHUNKS, _backward, *inputs, *grads, *out, partial)
        by_table = partial.sum(0)[..., :9]
        return (*map(torch.from_numpy, (*out, by_table)), None, None, None)


@kernel()
def _chunk(chunk, count):
    """Return the range of the Gaussians of a chunk, which begins at a multiple of the lanes."""
    size = (count + _CHUNKS * WIDTH - 1) // (_CHUNKS * WIDTH) * WIDTH
    return min(chunk * size, count), min((chunk + 1) * size, count)


@kernel()
def _store_columns(matrix, row, column, values):
    """Write `Lanes` values to consecutive columns of 16 rows of a matrix, from `column` on."""
    for i in range(len(values)):
        store_column(matrix, row, column + i, values[i])


@kernel()
def _keep(memory, at, vectors):
    """Write vectors to scratch memory [_, 3, 16], from vector `at` on."""
    for i in range(len(vectors)):
        for j in range(3):
            store(memory, ((at + i) * 3 + j) * WIDTH, vectors[i][j])


@kernel()
def _kept(memory, at):
    """Return a vector that `_keep` wrote."""
    first = at * 3 * WIDTH
    return load(memory, first), load(memory, first + WIDTH), load(memory, first + 2 * WIDTH)


@kernel()
def _three_kept(memory, at):
    """Return three vectors that `_keep` wrote, as the rows of a matrix."""
    return _kept(memory, at), _kept(memory, at + 1), _kept(memory, at + 2)


@kernel()
def _forward(
    first_chunk,
    end_chunk,
    points,
    quats,
    logits,
    rows,
    index,
    starts,
    rotations,
    moved,
    posed_quats,
):
    count, times, levels = points.shape[0], rows.shape[1], starts.size - 1
    weights = np.empty(starts[-1] * WIDTH, np.float32)
    mixed = np.zeros((WIDTH, WIDTH), np.float32)
    for chunk in range(first_chunk, end_chunk):
        first, end_row = _chunk(chunk, count)
        for g in range(first, end_row, WIDTH):
            for level in range(levels):
                softmax(logits, g, starts[level], starts[level + 1], weights)
            for b in range(times):
                x, total = load_rows(points, g, 3), identity()
                for back in range(levels):
                    level = levels - 1 - back
                    start, end = starts[level], starts[level + 1]
                    m = blend_level(index, weights, rows, g, count, b, times, start, end, mixed)
                    r, _ = gram_schmidt(m)
                    x, total = move_point(r, m, x), multiply(r, total)
                quat = multiply_quats(quaternion_of(total), load_rows(quats, g, 4))
                _store_columns(rotations[b], g, 0, total[0] + total[1] + total[2])
                store_rows(moved[b], g, x, iota() >= 0)
                store_rows(posed_quats[b], g, quat, iota() >= 0)


@kernel()
def _add_by_entry(index, weights, rows, g, count, b, times, start, end, mixed, by_weight, partial):
    """Add the gradients of what a level blended, `mixed` [16, 16], to those of its entries."""
    for lane in range(min(WIDTH, count - g)):
        grad = load(mixed, lane * WIDTH)
        for j in range(start, end):
            row, entry = (index[g + lane, j] * times + b) * WIDTH, j * WIDTH + lane
            by_weight[entry] += reduce_sum(grad * load(rows, row))
            store(partial, row, load(partial, row) + weights[entry] * grad)


@kernel()
def _backward(
    first_chunk,
    end_chunk,
    points,
    quats,
    logits,
    rows,
    index,
    starts,
    grad_rotations,
    grad_moved,
    grad_posed_quats,
    grad_points,
    grad_quats,
    grad_logits,
    partial,
):
    count, times, levels = points.shape[0], rows.shape[1], starts.size - 1
    weights = np.empty(starts[-1] * WIDTH, np.float32)
    by_weight = np.empty(starts[-1] * WIDTH, np.float32)
    mixed = np.zeros((WIDTH, WIDTH), np.float32)
    kept = np.empty(levels * _KEPT * 3 * WIDTH, np.float32)
    for chunk in range(first_chunk, end_chunk):
        first, end_row = _chunk(chunk, count)
        for g in range(first, end_row, WIDTH):
            by_weight[:] = 0
            for level in range(levels):
                softmax(logits, g, starts[level], starts[level + 1], weights)
            quat = load_rows(quats, g, 4)
            zero = identity()[0][1]
            sum_points, sum_quats = (zero, zero, zero), (zero, zero, zero, zero)
            for b in range(times):
                # Recompute the forward pass and keep the input of each level.
                x, total = load_rows(points, g, 3), identity()
                for back in range(levels):
                    level = levels - 1 - back
                    start, end = starts[level], starts[level + 1]
                    m = blend_level(index, weights, rows, g, count, b, times, start, end, mixed)
                    r, norms = gram_schmidt(m)
                    _keep(kept, level * _KEPT, m + r + total + (x, norms))
                    x, total = move_point(r, m, x), multiply(r, total)
                gq, gr = orientation_back(total, quat, load_rows(grad_posed_quats[b], g, 4))
                gr = (
                    lincomb(1, gr[0], 1, load_vector(grad_rotations[b], g, 0)),
                    lincomb(1, gr[1], 1, load_vector(grad_rotations[b], g, 3)),
                    lincomb(1, gr[2], 1, load_vector(grad_rotations[b], g, 6)),
                )
                gx = load_rows(grad_moved[b], g, 3)
                for level in range(levels):
                    at, start, end = level * _KEPT, starts[level], starts[level + 1]
                    m = _three_kept(kept, at) + (_kept(kept, at + 3),)
                    r, before = _three_kept(kept, at + 4), _three_kept(kept, at + 7)
                    x, norms = _kept(kept, at + 10), _kept(kept, at + 11)
                    gr, gx, gm = level_back(r, norms, m, before, x, gr, gx)
                    _store_columns(mixed, 0, 0, gm[0] + gm[1] + gm[2] + gm[3])
                    _add_by_entry(
                        index, weights, rows, g, count, b, times, start, end, mixed, by_weight,
                        partial[chunk],
                    )  # fmt: skip
                sum_points = lincomb(1, sum_points, 1, gx)
                sum_quats = (
                    sum_quats[0] + gq[0],
                    sum_quats[1] + gq[1],
                    sum_quats[2] + gq[2],
                    sum_quats[3] + gq[3],
                )
            store_rows(grad_points, g, sum_points, iota() >= 0)
            store_rows(grad_quats, g, sum_quats, iota() >= 0)
            for level in range(levels):
                softmax_back(weights, by_weight, g, starts[level], starts[level + 1], grad_logits)
