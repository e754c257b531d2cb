"""Vectors, 3x3 matrices and quaternions of `lanes`: 16 of them at a time, as tuples.

A vector is a tuple of three, a matrix a tuple of its rows, a quaternion wxyz a tuple of four. Their
entries are `Lanes` values, one lane for each of 16 vectors, or scalars that all of them share.
"""

from __future__ import annotations

from msdyn.jit import kernel
from msdyn.raster.cpu.lanes_memory import load_column

__all__ = [
    "combine",
    "cross",
    "dot",
    "lincomb",
    "load_vector",
    "multiply",
    "times",
    "transpose",
]


@kernel()
def dot(a, b):
    """Return the scalar product of two vectors."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@kernel()
def cross(a, b):
    """Return the vector product of two vectors."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@kernel()
def lincomb(s, a, t, b):
    """Return the linear combination s a + t b of two vectors."""
    return s * a[0] + t * b[0], s * a[1] + t * b[1], s * a[2] + t * b[2]


@kernel()
def combine(v, m):
    """Return the product v M of a row vector and a matrix, M^T v."""
    return (
        v[0] * m[0][0] + v[1] * m[1][0] + v[2] * m[2][0],
        v[0] * m[0][1] + v[1] * m[1][1] + v[2] * m[2][1],
        v[0] * m[0][2] + v[1] * m[1][2] + v[2] * m[2][2],
    )


@kernel()
def times(m, v):
    """Return the product M v of a matrix and a vector."""
    return dot(m[0], v), dot(m[1], v), dot(m[2], v)


@kernel()
def multiply(a, b):
    """Return the product of two matrices."""
    return combine(a[0], b), combine(a[1], b), combine(a[2], b)


@kernel()
def transpose(m):
    """Return the transposed matrix."""
    return (
        (m[0][0], m[1][0], m[2][0]),
        (m[0][1], m[1][1], m[2][1]),
        (m[0][2], m[1][2], m[2][2]),
    )


@kernel()
def load_vector(matrix, row, column):
    """Return three columns of a matrix, from `column` on, for 16 rows from `row` on."""
    return (
        load_column(matrix, row, column),
        load_column(matrix, row, column + 1),
        load_column(matrix, row, column + 2),
    )
