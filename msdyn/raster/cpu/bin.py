"""CPU kernels that sort Gaussians by depth and list, for every tile, those that reach it.

A Gaussian in a camera is an instance, numbered c * G + g. The instances that are drawn are sorted
by depth once; their place in that order is their rank. Everything after goes by rank, and a tile's
list is in ascending rank, so that no tile is sorted by itself. Tiles are numbered by camera, row
and column.

What a tile's blending needs of a Gaussian is packed by rank into one record of float32:

    0, 1  mean px                    2, 3, 4  a, b, c px^-2          5  log2 of the opacity
    6, 7  half the width and height of the box where alpha reaches the cut, px
    8...  the features, and the depth where it is asked for

so that log2(alpha) = record[5] - (a dx^2 + b dx dy + c dy^2), with (dx, dy) = mean - pixel centre.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from msdyn.jit import kernel
from msdyn.raster.contract import ALPHA_CUT
from msdyn.raster.cpu.lanes import WIDTH
from msdyn.raster.cpu.lanes_memory import prefetch_row

__all__ = ["HEADER", "LOG2_CUT", "TILE", "bin_tiles", "order_by_depth", "pack_records"]

TILE = WIDTH
HEADER = 8
LOG2_CUT = math.log2(ALPHA_CUT)

_DIGIT_BITS = 11
# The blending kernel makes the exact cut. What is listed for it is wider by this much, in px and in
# log2(alpha), so that no pixel hangs on the rounding of a box.
_SLACK_PX = 2e-3
_SLACK = 1e-3
# Instances asked for before their turn, since sorting scattered them.
_AHEAD = 16


@kernel(parallel=True)
def order_by_depth(depths, extents, chunks):
    """Return the instances that are drawn, nearest first, as int32.

    Equal depths keep the order of their numbers: a radix sort, least significant digit first. A
    positive float32 sorts as its bits do.

    Args:
        depths: [instances, 1] float32, positive where drawn.
        extents: [instances, 2], zero where not drawn.
        chunks: how many parts to work on at once; it has no effect on the result.
    """
    count = depths.size
    bits = depths.ravel().view(np.uint32)
    bounds = _chunk_bounds(count, chunks)
    starts = np.empty(chunks + 1, np.int64)
    starts[0] = 0
    for chunk in prange(chunks):
        drawn = 0
        for i in range(bounds[chunk], bounds[chunk + 1]):
            drawn += extents[i, 0] > 0
        starts[chunk + 1] = drawn
    starts = np.cumsum(starts)
    # The depth in the high half, the instance in the low one.
    keys = np.empty(starts[chunks], np.uint64)
    for chunk in prange(chunks):
        place = starts[chunk]
        for i in range(bounds[chunk], bounds[chunk + 1]):
            if extents[i, 0] > 0:
                keys[place] = (np.uint64(bits[i]) << np.uint64(32)) | np.uint64(i)
                place += 1

    others = np.empty_like(keys)
    digits = 1 << _DIGIT_BITS
    places = np.empty((chunks, digits), np.int64)
    bounds = _chunk_bounds(keys.size, chunks)
    for shift in range(32, 64, _DIGIT_BITS):
        for chunk in prange(chunks):
            places[chunk] = 0
            for i in range(bounds[chunk], bounds[chunk + 1]):
                places[chunk, (keys[i] >> np.uint64(shift)) & np.uint64(digits - 1)] += 1
        _counts_to_starts(places)
        for chunk in prange(chunks):
            for i in range(bounds[chunk], bounds[chunk + 1]):
                digit = (keys[i] >> np.uint64(shift)) & np.uint64(digits - 1)
                others[places[chunk, digit]] = keys[i]
                places[chunk, digit] += 1
        keys, others = others, keys

    order = np.empty(keys.size, np.int32)
    for i in prange(keys.size):
        order[i] = np.int32(keys[i] & np.uint64(0xFFFFFFFF))
    return order


@kernel()
def _chunk_bounds(count, chunks):
    """Return where each of `chunks` equal parts of `count` starts, and where the last one ends."""
    return np.arange(chunks + 1) * count // chunks


@kernel()
def _counts_to_starts(counts):
    """Turn counts [chunks, bins] into where each chunk starts in each bin, in place.

    Returns:
        [bins + 1] where each bin starts, and where the last one ends.
    """
    starts = np.empty(counts.shape[1] + 1, np.int64)
    place = 0
    for column in range(counts.shape[1]):
        starts[column] = place
        for row in range(counts.shape[0]):
            count = counts[row, column]
            counts[row, column] = place
            place += count
    starts[-1] = place
    return starts


@kernel(parallel=True)
def pack_records(order, means2d, conics, opacities, features, depths, with_depth, extents, size):
    """Return the records of the drawn instances, and how many tiles their bounding boxes reach.

    Args:
        order: [ranks], from `order_by_depth`.
        means2d: [instances, 2].
        conics: [instances, 3].
        opacities: [G, 1].
        features: [instances or G, D].
        depths: [instances, 1].
        with_depth: append the depth to the features.
        extents: [instances, 2].
        size: (width, height) px.

    Returns:
        records: [ranks, 8 + channels].
        reached: [ranks] int32.
    """
    channels = features.shape[1]
    reached = np.empty(order.size, np.int32)
    records = np.empty((order.size, HEADER + channels + with_depth), np.float32)
    log2_e = 1 / math.log(2)
    for rank in prange(order.size):
        i = order[rank]
        record = records[rank]
        later = order[min(rank + _AHEAD, order.size - 1)]
        prefetch_row(means2d, later)
        prefetch_row(conics, later)
        prefetch_row(opacities, later % opacities.shape[0])
        prefetch_row(features, later % features.shape[0])
        prefetch_row(depths, later)
        prefetch_row(extents, later)
        record[0], record[1] = means2d[i, 0], means2d[i, 1]
        record[2] = 0.5 * log2_e * conics[i, 0]
        record[3] = log2_e * conics[i, 1]
        record[4] = 0.5 * log2_e * conics[i, 2]
        record[5] = math.log2(opacities[i % opacities.shape[0], 0])
        record[6], record[7] = extents[i, 0] + _SLACK_PX, extents[i, 1] + _SLACK_PX
        source = features[i % features.shape[0]]
        for d in range(channels):
            record[HEADER + d] = source[d]
        if with_depth:
            record[HEADER + channels] = depths[i, 0]
        left, right, top, bottom = _box(record, size)
        reached[rank] = (right - left) * (bottom - top)
    return records, reached


@kernel()
def _box(record, size):
    """Return the tiles of a record's bounding box: columns [first, end) and rows [first, end)."""
    left, right = _tile_range(record[0] - record[6], record[0] + record[6], size[0])
    top, bottom = _tile_range(record[1] - record[7], record[1] + record[7], size[1])
    return left, right, top, bottom


@kernel()
def _tile_range(low, high, size):
    """Return the first tile with a pixel centre between two coordinates, and one after the last."""
    first, last = max(0, int(np.ceil(low - 0.5))), min(size - 1, int(np.floor(high - 0.5)))
    return (first // TILE, last // TILE + 1) if first <= last else (0, 0)


@kernel()
def _least(a, b, c, x, y):
    """Return the least a dx^2 + b dx dy + c dy^2 over the pixel centres' square of a tile.

    Unless the mean is in the square, the least lies on one of the two sides that face it, and along
    a side where the slope is zero, or as near as the side goes.

    Args:
        a: and `b` and `c` of the record.
        x: the square's left side, from the mean, px.
        y: its top side.
    """
    right, bottom = x + (TILE - 1), y + (TILE - 1)
    near_x, near_y = min(max(0.0, x), right), min(max(0.0, y), bottom)
    free_x = min(max(-0.5 * b / a * near_y, x), right)
    free_y = min(max(-0.5 * b / c * near_x, y), bottom)
    return min(
        a * near_x * near_x + b * near_x * free_y + c * free_y * free_y,
        a * free_x * free_x + b * free_x * near_y + c * near_y * near_y,
    )


@kernel()
def _running_sums(counts):
    """Return [ranks + 1] zero and the sums of the first counts."""
    sums = np.zeros(counts.size + 1, np.int64)
    sums[1:] = np.cumsum(counts)
    return sums


@kernel(parallel=True)
def bin_tiles(order, records, reached, instances_per_camera, cameras, size, chunks):
    """List the ranks that reach each tile.

    Args:
        order: [ranks] instances.
        records: [ranks, 8 + channels].
        reached: [ranks] tiles of each bounding box.
        instances_per_camera: G.
        cameras: C.
        size: (width, height) px.
        chunks: as in `order_by_depth`.

    Returns:
        offsets: [tiles + 1] where each tile's list starts.
        ranks: [intersections] int32, the lists, one tile after another.
        starts: [ranks + 1] where each rank's intersections start in `slots`.
        ends: [ranks] and where they end, which may be before the next start.
        slots: int32, the places in `ranks` of each rank's intersections.
    """
    tiles_x, tiles_y = (size[0] + TILE - 1) // TILE, (size[1] + TILE - 1) // TILE
    tiles = tiles_x * tiles_y * cameras
    bounds = _chunk_bounds(order.size, chunks)
    starts = _running_sums(reached)
    ends = np.empty(order.size, np.int64)
    slots = np.empty(starts[-1], np.int32)
    places = np.empty((chunks, tiles), np.int64)
    # First each slot holds the number of a tile, then the place in that tile's list.
    for chunk in prange(chunks):
        counts = places[chunk]
        counts[:] = 0
        for rank in range(bounds[chunk], bounds[chunk + 1]):
            record = records[rank]
            x, y = np.float64(record[0]), np.float64(record[1])
            a, b, c = np.float64(record[2]), np.float64(record[3]), np.float64(record[4])
            reach = record[5] - LOG2_CUT + _SLACK
            above = order[rank] // instances_per_camera * tiles_y
            left, right, row, _ = _box(record, size)
            column, slot = left, starts[rank]
            # No branch depends on a test: whether a tile is reached is as good as random.
            for _ in range(reached[rank]):
                tile = (above + row) * tiles_x + column
                least = _least(a, b, c, column * TILE + 0.5 - x, row * TILE + 0.5 - y)
                hit = np.int64(least <= reach)
                slots[slot] = tile
                counts[tile] += hit
                slot += hit
                column += 1
                wrapped = column == right
                column = left if wrapped else column
                row += wrapped
            ends[rank] = slot
    offsets = _counts_to_starts(places)

    ranks = np.empty(offsets[-1], np.int32)
    for chunk in prange(chunks):
        counts = places[chunk]
        for rank in range(bounds[chunk], bounds[chunk + 1]):
            for slot in range(starts[rank], ends[rank]):
                place = counts[slots[slot]]
                counts[slots[slot]] = place + 1
                ranks[place] = rank
                slots[slot] = place
    return offsets, ranks, starts, ends, slots
