"""CPU kernels of one Gaussian at one time: a level of the motion field, rotations, their gradients.

`numba_field.py` calls them for all Gaussians, times and levels. Rotations [9] are row-major.
"""

from __future__ import annotations

import numpy as np

from msdyn.jit import kernel

__all__ = [
    "blend_level",
    "copy",
    "gram_schmidt",
    "level_back",
    "move_point",
    "multiply_quats",
    "multiply_rotations",
    "orientation_back",
    "quaternion_of",
    "set_zero",
    "softmax",
]

_F = np.float32


@kernel()
def set_zero(out):
    """Set all entries to zero; an assignment to a slice is slower, as is one of a slice."""
    for i in range(out.size):
        out[i] = _F(0)


@kernel()
def copy(source, out):
    for i in range(out.size):
        out[i] = source[i]


@kernel()
def softmax(logits, start, end, weights):
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
def blend_level(index, weights, table, centres, b, start, end, mixed):
    """Blend 6D rotation, translation and pivot of a level into mixed [12]."""
    set_zero(mixed)
    mixed[0] = mixed[4] = _F(1)  # rotations of the table are differences from the identity
    for j in range(start, end):
        k, w = index[j], weights[j]
        for i in range(9):
            mixed[i] += w * table[k, b, i]
        for i in range(3):
            mixed[9 + i] += w * centres[k, i]


@kernel()
def gram_schmidt(m, r, norms):
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
def quaternion_of(r, q):
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
def multiply_quats(a, b, out):
    """Hamilton product of quaternions wxyz."""
    out[0] = a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3]
    out[1] = a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2]
    out[2] = a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1]
    out[3] = a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0]


@kernel()
def move_point(r, m, x, out):
    """x + (R - I)(x - c) + t: exactly x where R is the identity and t zero."""
    u, v, w = x[0] - m[9], x[1] - m[10], x[2] - m[11]
    one = _F(1)
    out[0] = x[0] + ((r[0] - one) * u + r[1] * v + r[2] * w) + m[6]
    out[1] = x[1] + (r[3] * u + (r[4] - one) * v + r[5] * w) + m[7]
    out[2] = x[2] + (r[6] * u + r[7] * v + (r[8] - one) * w) + m[8]


@kernel()
def multiply_rotations(a, b, out):
    for i in range(3):
        for j in range(3):
            out[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j]


@kernel()
def orientation_back(r, quat, grad, grad_quat, gr, p, c, t):
    """Gradient of quat(R) q: add to that of q, and set gr [9] to that of R.

    A small rotation vector d applied to R changes its quaternion p by (0, d) p / 2. The gradient
    with respect to R is only defined along such rotations; gr is the tangent one, [g]x R / 4. `p`,
    `c`, `t` [4] are scratch memory.
    """
    quaternion_of(r, p)
    c[0], c[1], c[2], c[3] = p[0], -p[1], -p[2], -p[3]
    multiply_quats(c, grad, t)
    for i in range(4):
        grad_quat[i] += t[i]
    c[0], c[1], c[2], c[3] = quat[0], -quat[1], -quat[2], -quat[3]
    multiply_quats(grad, c, t)  # gradient of p
    c[0], c[1], c[2], c[3] = p[0], -p[1], -p[2], -p[3]
    multiply_quats(t, c, p)
    quarter = _F(0.25)
    x, y, z = quarter * p[1], quarter * p[2], quarter * p[3]
    for j in range(3):
        gr[j] = y * r[6 + j] - z * r[3 + j]
        gr[3 + j] = z * r[j] - x * r[6 + j]
        gr[6 + j] = x * r[3 + j] - y * r[j]


@kernel()
def level_back(r, norms, m, before, x, gr, gx, gm, own, inner):
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
    copy(inner, gr)
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
