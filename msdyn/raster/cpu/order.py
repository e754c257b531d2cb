"""CPU kernels that sort the visible instances by depth.

A Gaussian in a camera is an instance with index c * G + g. The visible instances of all cameras are
sorted by depth once; lists of tiles are written in that order, so that no tile needs a sort of its
own.
"""

from __future__ import annotations

import numpy as np

from msdyn.jit import kernel
from msdyn.threads import on_threads

__all__ = ["chunk_bounds", "counts_to_starts", "order_by_depth", "order_in_one_thread"]

# A table of this many digits, of 8 bytes each, fits the first cache. Depths within a factor of four
# of the nearest one take two passes, any others three.
_MAX_DIGIT_BITS = 12


def order_by_depth(depths: np.ndarray, extents: np.ndarray, chunks: int) -> np.ndarray:
    """Return the visible instances, nearest first, [visible instances] int64.

    A stable radix sort, least significant digit first: instances of equal depth stay in ascending
    order. It sorts the bits of the depths, whose order as integers is that of positive floats, less
    those of the nearest one.

    Args:
        depths: [instances, 1] float32, positive for visible instances.
        extents: [instances, 2] px, zero for culled instances.
        chunks: number of parts processed in parallel; it has no effect on the result.
    """
    bits = depths.reshape(-1).view(np.uint32)
    if chunks == 1:
        return order_in_one_thread(bits, extents)
    bounds = chunk_bounds(bits.size, chunks)
    starts, limits = np.zeros(chunks + 1, np.int64), np.zeros((chunks, 2), np.uint32)
    on_threads(chunks, _count_visible, bounds, bits, extents, starts, limits)
    starts = np.cumsum(starts)
    low = limits[:, 0].min()
    keys = np.empty(starts[-1], np.uint64)
    on_threads(chunks, _write_keys, bounds, bits, extents, starts, low, keys)

    buffer = np.empty_like(keys)
    bounds = chunk_bounds(keys.size, chunks)
    width, passes = _digits(low, limits[:, 1].max())
    positions = np.empty((chunks, 1 << width), np.int64)
    for i in range(passes):
        shift = 32 + i * width
        on_threads(chunks, _count_digits, bounds, keys, shift, positions)
        counts_to_starts(positions)
        on_threads(chunks, _sort_by_digit, bounds, keys, shift, positions, buffer)
        keys, buffer = buffer, keys
    return keys.astype(np.uint32).astype(np.int64)


@kernel()
def order_in_one_thread(bits, extents):
    """Return what `order_by_depth` does, in one call: that costs less than the sort of a few."""
    bounds = np.array([0, bits.size])
    starts, limits = np.zeros(2, np.int64), np.zeros((1, 2), np.uint32)
    _count_visible(0, bounds, bits, extents, starts, limits)
    keys = np.empty(starts[1], np.uint64)
    _write_keys(0, bounds, bits, extents, starts, limits[0, 0], keys)
    width, passes = _digits(limits[0, 0], limits[0, 1])
    bounds[1] = keys.size
    # The counts of all digits in one pass over the keys: they do not depend on the order.
    positions = np.zeros((max(passes, 1), 1, 1 << width), np.int64)
    for k in range(keys.size):
        key = keys[np.uintp(k)] >> np.uint64(32)
        for i in range(passes):
            positions[i, 0, np.uintp(_digit(key, i * width, 1 << width))] += 1
    buffer = np.empty(keys.size, np.uint64)
    for i in range(passes):
        counts_to_starts(positions[i])
        _sort_by_digit(0, bounds, keys, 32 + i * width, positions[i], buffer)
        keys, buffer = buffer, keys
    order = np.empty(keys.size, np.int64)
    for k in range(keys.size):
        order[np.uintp(k)] = np.int64(keys[np.uintp(k)] & np.uint64(0xFFFFFFFF))
    return order


def chunk_bounds(count: int, chunks: int) -> np.ndarray:
    """Return the bounds, [chunks + 1], that split `range(count)` into chunks of equal length."""
    return np.arange(chunks + 1) * count // chunks


@kernel()
def _digits(low, high):
    """Return the bits of a digit, and how many digits the integers in [0, high - low] have."""
    bits = 0
    # None is visible if the limits are those of an empty set.
    while high > low and (np.int64(high) - np.int64(low)) >> bits:
        bits += 1
    passes = (bits + _MAX_DIGIT_BITS - 1) // _MAX_DIGIT_BITS
    return (bits + passes - 1) // passes if passes else 0, passes


@kernel()
def _count_visible(chunk, bounds, bits, extents, starts, limits):
    """Set `starts[chunk + 1]` to the number of visible instances of a chunk.

    Also sets `limits[chunk]` to the least and the greatest bits of their depths.
    """
    visible = 0
    low, high = np.uint32(0xFFFFFFFF), np.uint32(0)
    for k in range(bounds[chunk], bounds[chunk + 1]):
        i = np.uintp(k)
        if extents[i, 0] > 0:
            visible += 1
            low, high = min(low, bits[i]), max(high, bits[i])
    starts[chunk + 1] = visible
    limits[chunk, 0], limits[chunk, 1] = low, high


@kernel()
def _write_keys(chunk, bounds, bits, extents, starts, low, keys):
    """Write the keys of a chunk's visible instances: depth in the high half, instance in the low.

    Args:
        chunk: index of the chunk.
        bounds: [chunks + 1] of instances.
        bits: [instances] uint32 of the depths.
        extents: [instances, 2] px.
        starts: [chunks + 1] where the keys of each chunk start.
        low: bits that are subtracted.
        keys: [visible instances] uint64 to fill.
    """
    position = starts[chunk]
    for k in range(bounds[chunk], bounds[chunk + 1]):
        i = np.uintp(k)
        if extents[i, 0] > 0:
            keys[np.uintp(position)] = (np.uint64(bits[i] - low) << np.uint64(32)) | np.uint64(i)
            position += 1


@kernel()
def _digit(key, shift, digits):
    return (key >> np.uint64(shift)) & np.uint64(digits - 1)


@kernel()
def _count_digits(chunk, bounds, keys, shift, positions):
    """Set `positions[chunk]` to how often each digit, of the bits from `shift`, is in a chunk."""
    counts = positions[chunk]
    counts[:] = 0
    for i in range(bounds[chunk], bounds[chunk + 1]):
        counts[np.uintp(_digit(keys[np.uintp(i)], shift, counts.size))] += 1


@kernel()
def _sort_by_digit(chunk, bounds, keys, shift, positions, buffer):
    """Move the keys of a chunk to where `positions[chunk]` says that each digit comes next."""
    nexts = positions[chunk]
    for i in range(bounds[chunk], bounds[chunk + 1]):
        key = keys[np.uintp(i)]
        digit = np.uintp(_digit(key, shift, nexts.size))
        buffer[np.uintp(nexts[digit])] = key
        nexts[digit] += 1


@kernel()
def counts_to_starts(counts):
    """Replace counts by start positions in the sorted output, in place: an exclusive prefix sum.

    Args:
        counts: [chunks, bins] number of entries of each chunk in each bin; afterwards the position
            of the first of them in the output, which is sorted by bin and, within a bin, by chunk.

    Returns:
        [bins + 1] the start of each bin, and the end of the last one.
    """
    starts = np.empty(counts.shape[1] + 1, np.int64)
    position = 0
    for column in range(counts.shape[1]):
        starts[column] = position
        for row in range(counts.shape[0]):
            count = counts[row, column]
            counts[row, column] = position
            position += count
    starts[-1] = position
    return starts
