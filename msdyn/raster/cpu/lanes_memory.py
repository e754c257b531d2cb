"""Memory access of `lanes`: arrays, matrix columns, scratch buffers, prefetch, atomic counter.

No index is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.base import BaseContext

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
    "fetch_increment",
    "load",
    "load_column",
    "load_rows",
    "prefetch",
    "prefetch_row",
    "prefetch_to_write",
    "scratch",
    "scratch_bytes",
    "scratch_integers",
    "store",
    "store_column",
    "store_rows",
    "vector_pointer",
]

_INT64S = ir.VectorType(ir.IntType(64), WIDTH)
_INTEGERS = ir.VectorType(ir.IntType(32), WIDTH)


# Below, `builder` is `Any`: for llvmlite's casts the type checker infers None.


def vector_pointer(
    context: BaseContext, builder: Any, kind: types.Type, value: ir.Value, index: ir.Value
) -> ir.NamedValue:
    """Return the pointer to the vector that starts at `index` of an array or scratch buffer."""
    if isinstance(kind, types.Array):
        value = context.make_array(kind)(context, builder, value).data
    return builder.bitcast(builder.gep(value, [index]), VECTOR.as_pointer())


def _alignment(kind: types.Type) -> int:
    """Return the alignment in bytes that `load` and `store` may assume."""
    return 4 if isinstance(kind, types.Array) else 4 * WIDTH


@intrinsic_function
def load(typing_context, memory, index):
    """Return elements `index` to `index + 15` of a contiguous float32 array or a `scratch` buffer.

    In a `scratch` buffer the index must be a multiple of 16.
    """

    def generate(context, builder, signature, values):
        kind = signature.args[0]
        return builder.load(
            vector_pointer(context, builder, kind, *values), align=_alignment(kind), typ=VECTOR
        )

    return LANES(memory, types.intp), generate


@intrinsic_function
def store(typing_context, memory, index, lanes):
    """Write lanes to elements `index` to `index + 15`; the same conditions as for `load`."""

    def generate(context, builder, signature, values):
        kind = signature.args[0]
        pointer = vector_pointer(context, builder, kind, *values[:2])
        builder.store(values[2], pointer, align=_alignment(kind))
        return context.get_dummy_value()

    return types.void(memory, types.intp, LANES), generate


def _column_pointers(
    context: BaseContext, builder: Any, kind: types.Type, values: Sequence[ir.Value]
) -> tuple[ir.NamedValue, ir.NamedValue]:
    """Return pointers to 16 consecutive rows of a matrix column, and the mask of existing rows.

    Args:
        context: Numba's target context.
        builder: of the function that is compiled.
        kind: the Numba type of the matrix.
        values: matrix, first row and column.
    """
    matrix, row, column = values
    array = context.make_array(kind)(context, builder, matrix)
    rows, columns = cgutils.unpack_tuple(builder, array.shape)
    # Addresses are computed as integers, in bytes: llvmlite has no `gep` for vectors of pointers.
    steps = ir.Constant(_INT64S, [4 * lane for lane in range(WIDTH)])
    first = builder.gep(array.data, [builder.add(builder.mul(row, columns), column)])
    address = splat(builder, _INT64S, builder.ptrtoint(first, columns.type))
    offsets = builder.mul(steps, splat(builder, _INT64S, columns))
    pointers = builder.inttoptr(builder.add(address, offsets), ir.VectorType(first.type, WIDTH))
    left = splat(builder, _INT64S, builder.mul(builder.sub(rows, row), columns.type(4)))
    return pointers, builder.icmp_signed("<", steps, left)


@intrinsic_function
def load_column(typing_context, matrix, row, column):
    """Return rows `row` to `row + 15` of a matrix column, zero for rows beyond the last one.

    The matrix must be contiguous float32.
    """

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
    """Write lanes to rows `row` to `row + 15` of a matrix column, skipping rows beyond the last.

    The matrix must be contiguous float32.
    """

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


def _row_parts(
    context: BaseContext,
    builder: Any,
    kind: types.Type,
    matrix: ir.Value,
    row: ir.Value,
    columns: int,
) -> list[tuple[Any, Any]]:
    """Return pointers to every 16 elements of 16 rows of a matrix, with masks of existing ones."""
    array = context.make_array(kind)(context, builder, matrix)
    rows, _ = cgutils.unpack_tuple(builder, array.shape)
    width, limit = ir.Constant(rows.type, columns), ir.Constant(rows.type, WIDTH * columns)
    start = builder.mul(row, width)
    left = builder.sub(builder.mul(rows, width), start)
    left = builder.select(builder.icmp_signed("<", left, limit), left, limit)
    left = splat(builder, _INTEGERS, builder.trunc(left, ir.IntType(32)))
    parts: list[tuple[Any, Any]] = []
    for first in range(0, WIDTH * columns, WIDTH):
        pointer = builder.gep(array.data, [builder.add(start, ir.Constant(start.type, first))])
        numbers = ir.Constant(_INTEGERS, list(range(first, first + WIDTH)))
        inside = builder.icmp_signed("<", numbers, left)
        parts.append((builder.bitcast(pointer, VECTOR.as_pointer()), inside))
    return parts


def _picked(builder: Any, vectors: Sequence[ir.Value], sources: Sequence[tuple[int, int]]) -> Any:
    """Return the elements (vector, lane) of some vectors, by one permutation less than vectors."""
    found = vectors[0]
    for number, vector in enumerate(vectors[1:], 1):
        order = [
            WIDTH + lane if source == number else (k if number > 1 else lane * (source == 0))
            for k, (source, lane) in enumerate(sources)
        ]
        found = builder.shuffle_vector(found, vector, ir.Constant(_INTEGERS, order))
    return found


@intrinsic_function(prefer_literal=True)
def load_rows(typing_context, matrix, row, columns):
    """Return the columns of rows `row` to `row + 15`, a tuple; zero for rows beyond the last one.

    The matrix must be contiguous float32 and have exactly `columns`, a literal. The elements are
    read as they lie in memory and sorted in registers, which takes less than `load_column` does.
    """
    number = columns.literal_value

    def generate(context, builder, signature, values):
        kind = signature.args[0]
        read: list[Any] = []
        for pointer, inside in _row_parts(context, builder, kind, values[0], values[1], number):
            function = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(VECTOR, [pointer.type, ir.IntType(32), inside.type, VECTOR]),
                f"llvm.masked.load.v{WIDTH}f32.p0",
            )
            arguments = [pointer, ir.IntType(32)(4), inside, constant(0.0)]
            read.append(builder.call(function, arguments))
        found = [
            _picked(builder, read, [divmod(lane * number + column, WIDTH) for lane in range(WIDTH)])
            for column in range(number)
        ]
        return context.make_tuple(builder, signature.return_type, found)

    return types.UniTuple(LANES, number)(matrix, types.intp, columns), generate


@intrinsic_function
def store_rows(typing_context, matrix, row, lanes, kept):
    """Write a tuple of lanes to the columns of rows `row` to `row + 15`, but none beyond the last.

    Rows of lanes that the mask `kept` does not have are set to zero. The matrix must be contiguous
    float32 and have as many columns. See `load_rows`.
    """
    number = len(lanes)

    def generate(context, builder, signature, values):
        columns = [
            builder.select(values[3], column, constant(0.0))
            for column in cgutils.unpack_tuple(builder, values[2], number)
        ]
        kind = signature.args[0]
        parts = _row_parts(context, builder, kind, values[0], values[1], number)
        for part, (pointer, inside) in enumerate(parts):
            elements = range(part * WIDTH, (part + 1) * WIDTH)
            sources = [(element % number, element // number) for element in elements]
            mixed = _picked(builder, columns, sources)
            function = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(ir.VoidType(), [VECTOR, pointer.type, ir.IntType(32), inside.type]),
                f"llvm.masked.store.v{WIDTH}f32.p0",
            )
            builder.call(function, [mixed, pointer, ir.IntType(32)(4), inside])
        return context.get_dummy_value()

    return types.void(matrix, types.intp, lanes, kept), generate


@intrinsic_function
def fetch_increment(typing_context, counter):
    """Atomically add one to the first element of an int64 array and return its previous value."""

    def generate(context, builder, signature, values):
        pointer = context.make_array(signature.args[0])(context, builder, values[0]).data
        return builder.atomic_rmw("add", pointer, ir.IntType(64)(1), "monotonic")

    return types.int64(counter), generate


def _prefetching(write: bool) -> Callable[..., Any]:
    """Return the code generator of LLVM's intrinsic `llvm.prefetch` for an element of memory."""

    def generate(context, builder, signature, values):
        pointer = vector_pointer(context, builder, signature.args[0], *values)
        pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        integer = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [pointer.type, integer, integer, integer]),
            "llvm.prefetch.p0",
        )
        # The last arguments: 3 for all cache levels, 1 for the data cache.
        builder.call(function, [pointer, integer(int(write)), integer(3), integer(1)])
        return context.get_dummy_value()

    return generate


@intrinsic_function
def prefetch(typing_context, memory, index):
    """Prefetch the cache line of one element for reading."""
    return types.void(memory, types.intp), _prefetching(False)


@intrinsic_function
def prefetch_to_write(typing_context, memory, index):
    """Prefetch the cache line of one element for writing.

    The processor writes lines in order, and waits for each that is not in the cache.
    """
    return types.void(memory, types.intp), _prefetching(True)


@kernel()
def prefetch_row(matrix, row):
    """Prefetch a row of a matrix whose rows are whole cache lines, 16 elements each."""
    for column in range(0, matrix.shape[1], WIDTH):
        prefetch(matrix, row * matrix.shape[1] + column)


@intrinsic_function(prefer_literal=True)
def scratch(typing_context, rows, channels):
    """Return an uninitialised buffer on the stack for `rows * len(channels)` lanes.

    `load` and `store` access it by lanes, `buffer[i]` by scalars. It is valid until the function
    that allocated it returns.

    Args:
        rows: an integer literal.
        channels: a tuple, whose length is part of its type and so known to the compiler.
    """
    count = rows.literal_value * channels.count

    def generate(context, builder, signature, values):
        buffer = cgutils.alloca_once(builder, VECTOR, size=count)
        buffer.align = 4 * WIDTH
        return builder.bitcast(buffer, FLOAT.as_pointer())

    return types.CPointer(types.float32)(rows, channels), generate


def _scratch_numbers(kind: Any) -> Any:
    """Return an intrinsic that allocates `count` integers of a type on the stack, uninitialised."""

    @intrinsic_function(prefer_literal=True)
    def allocate(typing_context, count):
        """Return a buffer for `count`, a literal, integers; valid as that of `scratch` is."""
        number = count.literal_value

        def generate(context, builder, signature, values):
            buffer = cgutils.alloca_once(builder, ir.IntType(kind.bitwidth), size=number)
            buffer.align = 4 * WIDTH
            return buffer

        return types.CPointer(kind)(count), generate

    return allocate


scratch_bytes = _scratch_numbers(types.uint8)
scratch_integers = _scratch_numbers(types.int64)
