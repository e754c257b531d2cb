"""Memory for `lanes`: arrays, columns of matrices, scratch on the stack, and what is shared.

No index is checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from msdyn.jit import kernel
from msdyn.raster.cpu.lanes import (
    BITS,
    FLOAT,
    LANES,
    VECTOR,
    WIDTH,
    constant,
    intrinsic_function,
    splat,
)

__all__ = [
    "claim",
    "load",
    "load_column",
    "prefetch_row",
    "scratch",
    "store",
    "store_column",
]

_WIDE_INTEGERS = ir.VectorType(ir.IntType(64), WIDTH)


def _address(context: Any, builder: Any, kind: types.Type, value: Any, index: Any) -> Any:
    """Return the pointer to `WIDTH` numbers from `index` on in an array or scratch memory."""
    if isinstance(kind, types.Array):
        value = context.make_array(kind)(context, builder, value).data
    return builder.bitcast(builder.gep(value, [index]), VECTOR.as_pointer())


def _alignment(kind: types.Type) -> int:
    return 4 if isinstance(kind, types.Array) else 4 * WIDTH


@intrinsic_function
def load(typing_context, memory, index):
    """Return the 16 numbers from `index` on in a contiguous float32 array or in `scratch`.

    In `scratch` the index must be a multiple of 16.
    """

    def generate(context, builder, signature, values):
        kind = signature.args[0]
        return builder.load(
            _address(context, builder, kind, *values), align=_alignment(kind), typ=VECTOR
        )

    return LANES(memory, types.intp), generate


@intrinsic_function
def store(typing_context, memory, index, lanes):
    """Write 16 numbers to where `load` would read them."""

    def generate(context, builder, signature, values):
        kind = signature.args[0]
        pointer = _address(context, builder, kind, *values[:2])
        builder.store(values[2], pointer, align=_alignment(kind))
        return context.get_dummy_value()

    return types.void(memory, types.intp, LANES), generate


def _column_pointers(context: Any, builder: Any, kind: types.Type, values: Any) -> tuple[Any, Any]:
    """Return the pointers to 16 rows of a column of a matrix, and which of them lie inside."""
    matrix, row, column = values
    array = context.make_array(kind)(context, builder, matrix)
    rows, columns = cgutils.unpack_tuple(builder, array.shape)
    # In bytes, as integers: llvmlite knows no vector of pointers but the type.
    steps = ir.Constant(_WIDE_INTEGERS, [4 * lane for lane in range(WIDTH)])
    first = builder.gep(array.data, [builder.add(builder.mul(row, columns), column)])
    address = splat(builder, _WIDE_INTEGERS, builder.ptrtoint(first, columns.type))
    offsets = builder.mul(steps, splat(builder, _WIDE_INTEGERS, columns))
    pointers = builder.inttoptr(builder.add(address, offsets), ir.VectorType(first.type, WIDTH))
    left = splat(builder, _WIDE_INTEGERS, builder.mul(builder.sub(rows, row), columns.type(4)))
    return pointers, builder.icmp_signed("<", steps, left)


@intrinsic_function
def load_column(typing_context, matrix, row, column):
    """Return 16 rows of a column of a float32 matrix from `row` on, zero beyond the last row."""

    def generate(context, builder, signature, values):
        pointers, inside = _column_pointers(context, builder, signature.args[0], values)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(VECTOR, [pointers.type, ir.IntType(32), BITS, VECTOR]),
            f"llvm.masked.gather.v{WIDTH}f32.v{WIDTH}p0",
        )
        return builder.call(function, [pointers, ir.IntType(32)(4), inside, constant(0.0)])

    return LANES(matrix, types.intp, types.intp), generate


@intrinsic_function
def store_column(typing_context, matrix, row, column, lanes):
    """Write 16 rows of a column of a float32 matrix from `row` on, nothing beyond the last row."""

    def generate(context, builder, signature, values):
        pointers, inside = _column_pointers(context, builder, signature.args[0], values[:3])
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [VECTOR, pointers.type, ir.IntType(32), BITS]),
            f"llvm.masked.scatter.v{WIDTH}f32.v{WIDTH}p0",
        )
        builder.call(function, [values[3], pointers, ir.IntType(32)(4), inside])
        return context.get_dummy_value()

    return types.void(matrix, types.intp, types.intp, LANES), generate


@intrinsic_function
def claim(typing_context, counter):
    """Return the first entry of an int64 array and add one to it, as one step among threads."""

    def generate(context, builder, signature, values):
        pointer = context.make_array(signature.args[0])(context, builder, values[0]).data
        return builder.atomic_rmw("add", pointer, ir.IntType(64)(1), "monotonic")

    return types.int64(counter), generate


@intrinsic_function
def _prefetch(typing_context, memory, index):
    def generate(context, builder, signature, values):
        pointer = _address(context, builder, signature.args[0], *values)
        pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        integer = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [pointer.type, integer, integer, integer]),
            "llvm.prefetch.p0",
        )
        # For reading, to be kept in all caches, data.
        builder.call(function, [pointer, integer(0), integer(3), integer(1)])
        return context.get_dummy_value()

    return types.void(memory, types.intp), generate


@kernel()
def prefetch_row(matrix, row):
    """Ask for a row of a matrix, of up to 16 numbers, that is needed a little later."""
    _prefetch(matrix, row * matrix.shape[1])
    _prefetch(matrix, (row + 1) * matrix.shape[1] - 1)


@intrinsic_function(prefer_literal=True)
def scratch(typing_context, rows, channels):
    """Return room on the stack for `rows * len(channels)` lanes, not cleared; scalars by `room[i]`.

    Args:
        rows: a constant.
        channels: a tuple: its length is part of its type and so known to the compiler.
    """
    count = rows.literal_value * channels.count

    def generate(context, builder, signature, values):
        room = cgutils.alloca_once(builder, VECTOR, size=count)
        room.align = 4 * WIDTH
        return builder.bitcast(room, FLOAT.as_pointer())

    return types.CPointer(types.float32)(rows, channels), generate
