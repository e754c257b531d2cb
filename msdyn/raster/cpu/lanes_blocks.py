"""Operations of `lanes` on blocks of pixels: patterns, masks as bits, sums of several values.

A `Lanes` value holds a block of `BLOCK_SIDE` x `BLOCK_SIDE` pixels, row by row. A tile has as many
blocks as a value has lanes, numbered in the same way: lane l is the pixel of its block, or the
block of its tile, in column `column_of_lane()` and row `row_of_lane()`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from msdyn.jit import kernel
from msdyn.raster.cpu.lanes import LANES, VECTOR, WIDTH, intrinsic_function, select
from msdyn.raster.cpu.lanes_memory import vector_pointer

__all__ = [
    "BLOCK_SIDE",
    "PAIR_BITS",
    "append_pairs",
    "clamp",
    "column_of_lane",
    "lowest_bit",
    "mask_bits",
    "row_of_lane",
    "store_sums",
    "transpose_quads",
]

BLOCK_SIDE = 4
# A pair of a number below 16 and a block is a byte: the block is in the lower bits.
PAIR_BITS = 4

_PAIRS_OF_BYTE = np.array(
    [int.from_bytes([bit for bit in range(8) if bits >> bit & 1], "little") for bits in range(256)],
    np.uint64,
)


@intrinsic_function
def column_of_lane(typing_context):
    """Return the lanes 0, 1, 2, 3, 0, 1, 2, 3, ..., the column of each pixel in its block."""
    lanes = ir.Constant(VECTOR, [float(i % BLOCK_SIDE) for i in range(WIDTH)])
    return LANES(), lambda context, builder, signature, values: lanes


@intrinsic_function
def row_of_lane(typing_context):
    """Return the lanes 0, 0, 0, 0, 1, 1, 1, 1, ..., the row of each pixel in its block."""
    lanes = ir.Constant(VECTOR, [float(i // BLOCK_SIDE) for i in range(WIDTH)])
    return LANES(), lambda context, builder, signature, values: lanes


@kernel()
def clamp(lanes, low, high):
    """Return lanes limited to [low, high]."""
    raised = select(lanes > low, lanes, low)
    return select(raised < high, raised, high)


@intrinsic_function
def mask_bits(typing_context, mask):
    """Return a mask as an integer, lane l in bit l."""

    def generate(context, builder, signature, values):
        bits = builder.bitcast(values[0], ir.IntType(WIDTH))
        return builder.zext(bits, ir.IntType(64))

    return types.int64(mask), generate


@intrinsic_function
def lowest_bit(typing_context, bits):
    """Return the index of the lowest bit that is set; `bits` must not be zero."""

    def generate(context, builder, signature, values):
        integer = ir.IntType(64)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(integer, [integer, ir.IntType(1)]), "llvm.cttz.i64"
        )
        return builder.call(function, [values[0], ir.IntType(1)(1)])

    return types.int64(types.int64), generate


@intrinsic_function
def append_pairs(typing_context, pairs, count, blocks, number):
    """Append a byte `number << PAIR_BITS | block` for each block whose bit is set.

    Without branches, eight bits at a time by a table: how many bits are set is unpredictable.

    Args:
        pairs: a buffer of bytes, of which eight beyond the last pair may be overwritten.
        count: of the pairs before, int64.
        blocks: bits of the 16 blocks, int64.
        number: below 16, int64.

    Returns:
        The number of pairs.
    """

    def generate(context, builder, signature, values):
        buffer, count, blocks, number = values
        word = ir.IntType(64)
        numbers = [ir.Constant(word, int(value)) for value in _PAIRS_OF_BYTE]
        table = cgutils.global_constant(
            builder, "pairs_of_byte", ir.Constant(ir.ArrayType(word, 256), numbers)
        )
        bit_count = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(word, [word]), "llvm.ctpop.i64"
        )
        in_all_bytes = 0x0101010101010101
        base = builder.mul(builder.shl(number, word(PAIR_BITS)), word(in_all_bytes))
        for first in (0, 8):
            byte = builder.and_(builder.lshr(blocks, word(first)), word(255))
            entry = builder.load(builder.gep(table, [word(0), byte]), typ=word)
            entry = builder.add(entry, builder.add(base, word(first * in_all_bytes)))
            pointer = builder.bitcast(builder.gep(buffer, [count]), word.as_pointer())
            builder.store(entry, pointer, align=1)
            count = builder.add(count, builder.call(bit_count, [byte]))
        return count

    return types.int64(pairs, types.int64, types.int64, types.int64), generate


@intrinsic_function
def transpose_quads(typing_context, a, b, c, d):
    """Return four lanes values, of which value j has the j-th four lanes of a, b, c and d.

    It makes four rows of 16 pixels of four neighbouring blocks, and the other way round.
    """

    def generate(context, builder, signature, values):
        indices = ir.VectorType(ir.IntType(32), WIDTH)
        both = ir.Constant(indices, [*range(8), *range(WIDTH, WIDTH + 8)])
        rows = []
        for start in range(0, WIDTH, BLOCK_SIDE):
            quad = [*range(start, start + BLOCK_SIDE)]
            quads = ir.Constant(indices, [*quad, *(WIDTH + i for i in quad)] * 2)
            rows.append(
                builder.shuffle_vector(
                    builder.shuffle_vector(values[0], values[1], quads),
                    builder.shuffle_vector(values[2], values[3], quads),
                    both,
                )
            )
        return context.make_tuple(builder, signature.return_type, rows)

    return types.UniTuple(LANES, BLOCK_SIDE)(LANES, LANES, LANES, LANES), generate


def _halves(lanes: int) -> tuple[list[int], list[int]]:
    """Return the lanes of two vectors, numbered 0 to 31, whose sums halve groups of `lanes` lanes.

    The first list has the lower half of each group, the groups of the first vector before those of
    the second, and the other list the upper half.
    """
    half = lanes // 2
    groups = range(0, 2 * WIDTH, lanes)
    low = [start + i for start in groups for i in range(half)]
    return low, [lane + half for lane in low]


def _sum_of_each(builder: Any, vectors: list[ir.Value]) -> ir.Value:
    """Return a vector whose lane j is the sum of the lanes of vector j, for up to 16 vectors.

    Neighbouring vectors are merged, and the groups of lanes that belong to one vector halved, until
    each group is one lane: 15 additions for 16 vectors instead of 4 for each.
    """
    undefined = ir.Constant(VECTOR, ir.Undefined)
    indices = ir.VectorType(ir.IntType(32), WIDTH)
    lanes = WIDTH
    while lanes > 1:
        low, high = (ir.Constant(indices, part) for part in _halves(lanes))
        merged = []
        for i in range(0, len(vectors), 2):
            pair = vectors[i], (vectors[i + 1] if i + 1 < len(vectors) else undefined)
            merged.append(
                builder.fadd(
                    builder.shuffle_vector(*pair, low), builder.shuffle_vector(*pair, high)
                )
            )
        vectors, lanes = merged, lanes // 2
    return vectors[0]


@intrinsic_function
def store_sums(typing_context, buffer, start, count, target, index):
    """Write the sum over the lanes of each of some values of a `scratch` buffer to an array.

    Args:
        buffer: of lanes.
        start: of the first value.
        count: a tuple whose length is the number of values.
        target: a float32 array, whose elements are written from `index` on, 16 at a time.
        index: of the first element.
    """

    def generate(context, builder, signature, values):
        source, start, _, array, index = values
        number = signature.args[2].count
        for first in range(0, number, WIDTH):
            vectors = []
            for i in range(first, min(first + WIDTH, number)):
                element = builder.add(start, ir.IntType(64)(i * WIDTH))
                pointer = vector_pointer(context, builder, signature.args[0], source, element)
                vectors.append(builder.load(pointer, align=4 * WIDTH, typ=VECTOR))
            position = builder.add(index, ir.IntType(64)(first))
            pointer = vector_pointer(context, builder, signature.args[3], array, position)
            builder.store(_sum_of_each(builder, vectors), pointer, align=4)
        return context.get_dummy_value()

    return types.void(buffer, types.intp, count, target, types.intp), generate
