"""CPU kernels of the motion field for 16 Gaussians at one time: a level, rotations, gradients.

`numba_field.py` calls them for all Gaussians, times and levels. Vectors and matrices are those of
`lanes_vectors.py`. What a level blends is four vectors: the two of the 6D rotation, translation and
pivot.
"""

from __future__ import annotations

from msdyn.jit import kernel
from msdyn.raster.cpu.lanes import WIDTH, exp2, iota, select, sqrt
from msdyn.raster.cpu.lanes_memory import load, load_column, store, store_column
from msdyn.raster.cpu.lanes_vectors import (
    combine,
    cross,
    dot,
    lincomb,
    load_vector,
    multiply,
    times,
    transpose,
)

__all__ = [
    "blend_level",
    "gram_schmidt",
    "identity",
    "level_back",
    "move_point",
    "multiply_quats",
    "orientation_back",
    "quaternion_of",
    "softmax",
    "softmax_back",
]

_LOG2_E = 1.4426950408889634


@kernel()
def identity():
    """Return the identity matrix."""
    zero = 0 * iota()
    one = zero + 1
    return (one, zero, zero), (zero, one, zero), (zero, zero, one)


@kernel()
def softmax(logits, g, start, end, weights):
    """Fill rows start to end of `weights` [_, 16] with the softmax of 16 rows of the logits."""
    top = load_column(logits, g, start)
    for j in range(start + 1, end):
        value = load_column(logits, g, j)
        top = select(value > top, value, top)
    total = 0 * iota()
    for j in range(start, end):
        exponent = (load_column(logits, g, j) - top) * _LOG2_E
        power = select(exponent < -125, 0, exp2(exponent))
        store(weights, j * WIDTH, power)
        total = total + power
    for j in range(start, end):
        store(weights, j * WIDTH, load(weights, j * WIDTH) / total)


@kernel()
def softmax_back(weights, by_weight, g, start, end, grad_logits):
    """Write the gradient of the logits, from that of their softmax [_, 16]."""
    mean = 0 * iota()
    for j in range(start, end):
        mean = mean + load(weights, j * WIDTH) * load(by_weight, j * WIDTH)
    for j in range(start, end):
        own = load(weights, j * WIDTH) * (load(by_weight, j * WIDTH) - mean)
        store_column(grad_logits, g, j, own)


@kernel()
def blend_level(index, weights, rows, g, count, b, steps, start, end, mixed):
    """Return what a level blends, from `rows` [K, times, 16]; `mixed` [16, 16] is scratch memory.

    A pattern's row is one `Lanes` value, so that the sum over patterns takes one Gaussian at a
    time; reading columns of `mixed` transposes it.
    """
    for lane in range(min(WIDTH, count - g)):
        total = 0 * iota()
        for j in range(start, end):
            row = load(rows, (index[g + lane, j] * steps + b) * WIDTH)
            total = total + weights[j * WIDTH + lane] * row
        store(mixed, lane * WIDTH, total)
    first, second = load_vector(mixed, 0, 0), load_vector(mixed, 0, 3)
    # Rotations of the table are differences from the identity.
    first, second = (1 + first[0], first[1], first[2]), (second[0], 1 + second[1], second[2])
    return first, second, load_vector(mixed, 0, 6), load_vector(mixed, 0, 9)


@kernel()
def _divided(v, scale):
    return v[0] / scale, v[1] / scale, v[2] / scale


@kernel()
def _norm(v):
    norm = sqrt(dot(v, v))
    return select(norm < 1e-12, 1e-12, norm)


@kernel()
def gram_schmidt(m):
    """Orthonormalise the first two vectors of m into the columns of a rotation.

    Returns:
        The rotation; the norms of the first vector and of the rest of the second, and the scalar
        product of the first column and the second vector.
    """
    norm = _norm(m[0])
    first = _divided(m[0], norm)
    along = dot(first, m[1])
    rest = lincomb(1, m[1], 0 - along, first)
    rest_norm = _norm(rest)
    second = _divided(rest, rest_norm)
    return transpose((first, second, cross(first, second))), (norm, rest_norm, along)


@kernel()
def quaternion_of(r):
    """Return the quaternion wxyz of a rotation, by its largest component."""
    xx, yy, zz = r[0][0], r[1][1], r[2][2]
    by_w = xx + yy + zz > 0
    by_x = (xx >= yy) & (xx >= zz)
    by_y = yy >= zz
    square = select(by_y, 1 + yy - xx - zz, 1 + zz - xx - yy)
    square = select(by_w, 1 + xx + yy + zz, select(by_x, 1 + xx - yy - zz, square))
    wx, wy, wz = r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1]
    xy, xz, yz = r[0][1] + r[1][0], r[0][2] + r[2][0], r[1][2] + r[2][1]
    # The row of 4 q q^T of the largest component, divided by 4 times this component.
    size = 2 * sqrt(square)
    return (
        select(by_w, square, select(by_x, wx, select(by_y, wy, wz))) / size,
        select(by_w, wx, select(by_x, square, select(by_y, xy, xz))) / size,
        select(by_w, wy, select(by_x, xy, select(by_y, square, yz))) / size,
        select(by_w, wz, select(by_x, xz, select(by_y, yz, square))) / size,
    )


@kernel()
def multiply_quats(a, b):
    """Return the Hamilton product of quaternions wxyz."""
    return (
        a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
        a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
        a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
        a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
    )


@kernel()
def _conjugate(q):
    return q[0], 0 - q[1], 0 - q[2], 0 - q[3]


@kernel()
def move_point(r, m, x):
    """Return x + (R - I)(x - c) + t: exactly x where R is the identity and t zero."""
    u = lincomb(1, x, -1, m[3])
    return (
        x[0] + ((r[0][0] - 1) * u[0] + r[0][1] * u[1] + r[0][2] * u[2]) + m[2][0],
        x[1] + (r[1][0] * u[0] + (r[1][1] - 1) * u[1] + r[1][2] * u[2]) + m[2][1],
        x[2] + (r[2][0] * u[0] + r[2][1] * u[1] + (r[2][2] - 1) * u[2]) + m[2][2],
    )


@kernel()
def orientation_back(r, quat, grad):
    """Return the gradients of q and of R, from that of quat(R) q.

    A small rotation vector d applied to R changes its quaternion p by (0, d) p / 2. The gradient
    with respect to R is only defined along such rotations; it is the tangent one, [g]x R / 4.
    """
    p = quaternion_of(r)
    grad_quat = multiply_quats(_conjugate(p), grad)
    grad_p = multiply_quats(grad, _conjugate(quat))
    full = multiply_quats(grad_p, _conjugate(p))
    x, y, z = 0.25 * full[1], 0.25 * full[2], 0.25 * full[3]
    grad_rotation = (
        lincomb(y, r[2], 0 - z, r[1]),
        lincomb(z, r[0], 0 - x, r[2]),
        lincomb(x, r[1], 0 - y, r[0]),
    )
    return grad_quat, grad_rotation


@kernel()
def level_back(r, norms, m, before, x, gr, gx):
    """Backpropagate the gradients of accumulated rotation and position through a level.

    Args:
        r, norms: of `gram_schmidt`.
        m: what the level blended.
        before: rotation of the finer levels.
        x: the position that the level moved.
        gr, gx: gradients of its output, rotation and position.

    Returns:
        Gradients of its input, rotation and position, and of m.
    """
    u = lincomb(1, x, -1, m[3])
    # The level's rotation acts on the rotation of the finer levels and on the point.
    own = (
        lincomb(1, times(before, gr[0]), gx[0], u),
        lincomb(1, times(before, gr[1]), gx[1], u),
        lincomb(1, times(before, gr[2]), gx[2], u),
    )
    inner = combine(gx, r)
    columns, by_column = transpose(r), transpose(own)
    first, second = columns[0], columns[1]
    # Gram-Schmidt: the third column is the vector product of the first two.
    grad_first = lincomb(1, by_column[0], 1, cross(second, by_column[2]))
    grad_second = lincomb(1, by_column[1], 1, cross(by_column[2], first))
    along = dot(grad_second, second)
    rest = _divided(lincomb(1, grad_second, 0 - along, second), norms[1])
    along = dot(rest, first)
    grad_first = lincomb(1, grad_first, -1, lincomb(norms[2], rest, along, m[1]))
    grad_m = (
        _divided(lincomb(1, grad_first, 0 - dot(grad_first, first), first), norms[0]),
        lincomb(1, rest, 0 - along, first),
        gx,
        lincomb(1, gx, -1, inner),
    )
    return multiply(columns, gr), inner, grad_m
