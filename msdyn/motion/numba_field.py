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
def _zero(out):
    """Set all entries to zero; an assignment to a slice is slower, as is one of a slice."""
    for i in range(out.size):
        out[i] = _F(0)


@kernel()
def _copy(source, out):
    for i in range(out.size):
        out[i] = source[i]


@kernel()
def _softmax(logits, start, end, weights):
    """Fill weights[start:end] with the softmax of logits[start:end]."""
    top = logits[start]
    for j in range(start + 1, end):
        top = max(top, logits[j])
    total = _F(0)
    for j in range(start, end):
        weights[j] = np.exp(logits[j] - top)
        total += weights[j]
    for j in range(start, end):
        weights[j] /= total


@kernel()
def _blend(index, weights, table, centres, b, start, end, mixed):
    """Blend 6D rotation, translation and pivot of a level into mixed [12]."""
    _zero(mixed)
    mixed[0] = mixed[4] = _F(1)  # rotations of the table are differences from the identity
    for j in range(start, end):
        k, w = index[j], weights[j]
        for i in range(9):
            mixed[i] += w * table[k, b, i]
        for i in range(3):
            mixed[9 + i] += w * centres[k, i]


@kernel()
def _gram_schmidt(m, r, norms):
    """Orthonormalise the two vectors m[0:3], m[3:6] into the columns of r [9], row-major."""
    n1 = np.sqrt(m[0] * m[0] + m[1] * m[1] + m[2] * m[2])
    n1 = max(n1, _F(1e-12))
    x1, y1, z1 = m[0] / n1, m[1] / n1, m[2] / n1
    dot = x1 * m[3] + y1 * m[4] + z1 * m[5]
    x2, y2, z2 = m[3] - dot * x1, m[4] - dot * y1, m[5] - dot * z1
    n2 = max(np.sqrt(x2 * x2 + y2 * y2 + z2 * z2), _F(1e-12))
    x2, y2, z2 = x2 / n2, y2 / n2, z2 / n2
    r[0], r[3], r[6] = x1, y1, z1
    r[1], r[4], r[7] = x2, y2, z2
    r[2], r[5], r[8] = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
    norms[0], norms[1], norms[2] = n1, n2, dot


@kernel()
def _quaternion(r, q):
    """Fill q [4] with the quaternion wxyz of a rotation r [9], by its largest component."""
    trace = r[0] + r[4] + r[8]
    one = _F(1)
    if trace > 0:
        s = np.sqrt(trace + one) * _F(2)
        q[0] = _F(0.25) * s
        q[1], q[2], q[3] = (r[7] - r[5]) / s, (r[2] - r[6]) / s, (r[3] - r[1]) / s
    elif r[0] >= r[4] and r[0] >= r[8]:
        s = np.sqrt(one + r[0] - r[4] - r[8]) * _F(2)
        q[1] = _F(0.25) * s
        q[0], q[2], q[3] = (r[7] - r[5]) / s, (r[1] + r[3]) / s, (r[2] + r[6]) / s
    elif r[4] >= r[8]:
        s = np.sqrt(one + r[4] - r[0] - r[8]) * _F(2)
        q[2] = _F(0.25) * s
        q[0], q[1], q[3] = (r[2] - r[6]) / s, (r[1] + r[3]) / s, (r[5] + r[7]) / s
    else:
        s = np.sqrt(one + r[8] - r[0] - r[4]) * _F(2)
        q[3] = _F(0.25) * s
        q[0], q[1], q[2] = (r[3] - r[1]) / s, (r[2] + r[6]) / s, (r[5] + r[7]) / s


@kernel()
def _product(a, b, out):
    """Hamilton product of quaternions wxyz."""
    out[0] = a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3]
    out[1] = a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2]
    out[2] = a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1]
    out[3] = a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0]


@kernel()
def _step(r, m, x, out):
    """x + (R - I)(x - c) + t: exactly x where R is the identity and t zero."""
    u, v, w = x[0] - m[9], x[1] - m[10], x[2] - m[11]
    one = _F(1)
    out[0] = x[0] + ((r[0] - one) * u + r[1] * v + r[2] * w) + m[6]
    out[1] = x[1] + (r[3] * u + (r[4] - one) * v + r[5] * w) + m[7]
    out[2] = x[2] + (r[6] * u + r[7] * v + (r[8] - one) * w) + m[8]


@kernel()
def _matmul(a, b, out):
    for i in range(3):
        for j in range(3):
            out[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j]


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
                _softmax(logits[g], starts[level], starts[level + 1], weights)
            for b in range(times):
                _copy(points[g], x)
                _zero(total)
                total[0] = total[4] = total[8] = _F(1)
                for back in range(levels):
                    level = levels - 1 - back
                    start, end = starts[level], starts[level + 1]
                    _blend(index[g], weights, table, centres, b, start, end, mixed)
                    _gram_schmidt(mixed, r, norms)
                    _step(r, mixed, x, y)
                    _copy(y, x)
                    _matmul(r, total, product)
                    _copy(product, total)
                _copy(x, moved[b, g])
                for i in range(9):
                    rotations[b, g, i // 3, i % 3] = total[i]
                _quaternion(total, q)
                _product(q, quats[g], posed_quats[b, g])


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
            _zero(by_weight)
            for level in range(levels):
                _softmax(logits[g], starts[level], starts[level + 1], weights)
            for b in range(times):
                # Recompute the forward pass and keep the input of each level.
                _copy(points[g], xs[levels])
                _zero(total)
                total[0] = total[4] = total[8] = _F(1)
                for back in range(levels):
                    level = levels - 1 - back
                    start, end = starts[level], starts[level + 1]
                    _blend(index[g], weights, table, centres, b, start, end, mixes[level])
                    _gram_schmidt(mixes[level], steps[level], norms[level])
                    _step(steps[level], mixes[level], xs[level + 1], xs[level])
                    _copy(total, before[level])
                    _matmul(steps[level], total, product)
                    _copy(product, total)
                _orientation_back(
                    total, quats[g], grad_posed_quats[b, g], grad_quats[g], gr, q1, q2, q3
                )
                for i in range(9):
                    gr[i] += grad_rotations[b, g, i // 3, i % 3]
                _copy(grad_moved[b, g], gx)
                for level in range(levels):
                    _level_back(
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


@kernel()
def _orientation_back(r, quat, grad, grad_quat, gr, p, c, t):
    """Gradient of quat(R) q: add to that of q, and set gr [9] to that of R.

    A small rotation vector d applied to R changes its quaternion p by (0, d) p / 2. The gradient
    with respect to R is only defined along such rotations; gr is the tangent one, [g]x R / 4. `p`,
    `c`, `t` [4] are scratch memory.
    """
    _quaternion(r, p)
    c[0], c[1], c[2], c[3] = p[0], -p[1], -p[2], -p[3]
    _product(c, grad, t)
    for i in range(4):
        grad_quat[i] += t[i]
    c[0], c[1], c[2], c[3] = quat[0], -quat[1], -quat[2], -quat[3]
    _product(grad, c, t)  # gradient of p
    c[0], c[1], c[2], c[3] = p[0], -p[1], -p[2], -p[3]
    _product(t, c, p)
    quarter = _F(0.25)
    x, y, z = quarter * p[1], quarter * p[2], quarter * p[3]
    for j in range(3):
        gr[j] = y * r[6 + j] - z * r[3 + j]
        gr[3 + j] = z * r[j] - x * r[6 + j]
        gr[6 + j] = x * r[3 + j] - y * r[j]


@kernel()
def _level_back(r, norms, m, before, x, gr, gx, gm, own, inner):
    """Backpropagate the gradients of accumulated rotation and position through a level.

    On entry gr [9] and gx [3] are those of its output, on return those of its input; gm [12] is
    that of the blended 6D rotation, translation and pivot. `own` and `inner` [9] are scratch.
    """
    u = (x[0] - m[9], x[1] - m[10], x[2] - m[11])
    for i in range(3):
        for j in range(3):
            # The level's rotation acts on the rotation of the finer levels and on the point.
            own[3 * i + j] = (
                gr[3 * i] * before[3 * j]
                + gr[3 * i + 1] * before[3 * j + 1]
                + gr[3 * i + 2] * before[3 * j + 2]
                + gx[i] * u[j]
            )
            inner[3 * i + j] = r[i] * gr[j] + r[3 + i] * gr[3 + j] + r[6 + i] * gr[6 + j]
    _copy(inner, gr)
    for i in range(3):
        gm[6 + i] = gx[i]
    a = r[0] * gx[0] + r[3] * gx[1] + r[6] * gx[2]
    b = r[1] * gx[0] + r[4] * gx[1] + r[7] * gx[2]
    c = r[2] * gx[0] + r[5] * gx[1] + r[8] * gx[2]
    gm[9], gm[10], gm[11] = gx[0] - a, gx[1] - b, gx[2] - c
    gx[0], gx[1], gx[2] = a, b, c
    # Gram-Schmidt: columns b1, b2 and b3 = b1 x b2 of the rotation.
    x1, y1, z1 = r[0], r[3], r[6]
    x2, y2, z2 = r[1], r[4], r[7]
    x3, y3, z3 = own[2], own[5], own[8]
    p1 = own[0] + y2 * z3 - z2 * y3
    q1 = own[3] + z2 * x3 - x2 * z3
    s1 = own[6] + x2 * y3 - y2 * x3
    p2 = own[1] + y3 * z1 - z3 * y1
    q2 = own[4] + z3 * x1 - x3 * z1
    s2 = own[7] + x3 * y1 - y3 * x1
    along = p2 * x2 + q2 * y2 + s2 * z2
    ux, uy, uz = (
        (p2 - along * x2) / norms[1],
        (q2 - along * y2) / norms[1],
        (s2 - along * z2) / norms[1],
    )
    dot = ux * x1 + uy * y1 + uz * z1
    gm[3], gm[4], gm[5] = ux - dot * x1, uy - dot * y1, uz - dot * z1
    p1 -= norms[2] * ux + dot * m[3]
    q1 -= norms[2] * uy + dot * m[4]
    s1 -= norms[2] * uz + dot * m[5]
    along = p1 * x1 + q1 * y1 + s1 * z1
    gm[0], gm[1], gm[2] = (
        (p1 - along * x1) / norms[0],
        (q1 - along * y1) / norms[0],
        (s1 - along * z1) / norms[0],
    )
