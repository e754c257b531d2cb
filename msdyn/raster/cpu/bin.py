"""CPU kernels that sort Gaussians by depth and list the Gaussians that intersect each tile.

A Gaussian in a camera is an instance with index c * G + g. The visible instances of all cameras are
sorted by depth once; the position in that order is the rank of an instance. All later steps index
by rank, and the list of a tile is in ascending rank, so that no tile needs a sort of its own. Tiles
are square, `TILE` pixels wide, and numbered by camera, row and column.

`pack_records` gathers what blending needs of an instance into one row of float32, by rank:

    0, 1  projected mean, px         2, 3, 4  a, b, c, px^-2         5  log2 of the opacity
    6, 7  half the width and height of the box outside of which alpha is below the cut, px
    8...  the features, followed by the depth if it is blended

With (dx, dy) = mean - pixel centre, log2(alpha) = record[5] - (a dx^2 + b dx dy + c dy^2).
"""

from __future__ import annotations

import math

import numpy as np

from msdyn.jit import kernel
from msdyn.raster.contract import ALPHA_CUT
from msdyn.raster.cpu.lanes import WIDTH
from msdyn.raster.cpu.lanes_memory import prefetch_row
from msdyn.threads import on_ranges, on_threads

__all__ = ["HEADER", "LOG2_CUT", "TILE", "bin_tiles", "order_by_depth", "pack_records"]

# Pixels along the side of a tile: one `Lanes` value per row.
TILE = WIDTH
# Numbers of a record before its features.
HEADER = 8
LOG2_CUT = math.log2(ALPHA_CUT)

# Three passes of the radix sort cover the 32 bits of a depth.
_DIGIT_BITS = 11
# The blending kernel applies the exact alpha cut. Binning uses bounds that are larger by these
# margins, in px and in log2(alpha), so that no pixel depends on how a bound is rounded.
_MARGIN_PX = 2e-3
_MARGIN_LOG2 = 1e-3
# Ranks between prefetching an instance and using it: sorted by depth, instances are scattered in
# memory.
_PREFETCH_DISTANCE = 16


def order_by_depth(depths: np.ndarray, extents: np.ndarray, chunks: int) -> np.ndarray:
    """Return the visible instances, nearest first, [ranks] int32.

    A stable radix sort, least significant digit first: instances of equal depth stay in ascending
    order. It sorts the bits of the depths, whose order as integers is that of positive floats.

    Args:
        depths: [instances, 1] float32, positive for visible instances.
        extents: [instances, 2] px, zero for culled instances.
        chunks: number of parts processed in parallel; it has no effect on the result.
    """
    bits = depths.reshape(-1).view(np.uint32)
    bounds = _chunk_bounds(bits.size, chunks)
    starts = np.zeros(chunks + 1, np.int64)
    on_threads(chunks, _count_visible, bounds, extents, starts)
    starts = np.cumsum(starts)
    keys = np.empty(starts[-1], np.uint64)
    on_threads(chunks, _write_keys, bounds, bits, extents, starts, keys)

    buffer = np.empty_like(keys)
    bounds = _chunk_bounds(keys.size, chunks)
    positions = np.empty((chunks, 1 << _DIGIT_BITS), np.int64)
    for shift in range(32, 64, _DIGIT_BITS):
        on_threads(chunks, _count_digits, bounds, keys, shift, positions)
        _counts_to_starts(positions)
        on_threads(chunks, _sort_by_digit, bounds, keys, shift, positions, buffer)
        keys, buffer = buffer, keys
    return keys.astype(np.uint32).view(np.int32)


def _chunk_bounds(count: int, chunks: int) -> np.ndarray:
    """Return the bounds, [chunks + 1], that split `range(count)` into chunks of equal length."""
    return np.arange(chunks + 1) * count // chunks


@kernel()
def _count_visible(chunk, bounds, extents, starts):
    """Set `starts[chunk + 1]` to the number of visible instances of a chunk."""
    visible = 0
    for i in range(bounds[chunk], bounds[chunk + 1]):
        visible += extents[i, 0] > 0
    starts[chunk + 1] = visible


@kernel()
def _write_keys(chunk, bounds, bits, extents, starts, keys):
    """Write the keys of a chunk's visible instances: depth in the high half, instance in the low.

    Args:
        chunk: index of the chunk.
        bounds: [chunks + 1] of instances.
        bits: [instances] uint32 of the depths.
        extents: [instances, 2] px.
        starts: [chunks + 1] where the keys of each chunk start.
        keys: [ranks] uint64 to fill.
    """
    position = starts[chunk]
    for i in range(bounds[chunk], bounds[chunk + 1]):
        if extents[i, 0] > 0:
            keys[position] = (np.uint64(bits[i]) << np.uint64(32)) | np.uint64(i)
            position += 1


@kernel()
def _digit(key, shift):
    return (key >> np.uint64(shift)) & np.uint64((1 << _DIGIT_BITS) - 1)


@kernel()
def _count_digits(chunk, bounds, keys, shift, positions):
    """Set `positions[chunk]` to how often each digit, of the bits from `shift`, is in a chunk."""
    counts = positions[chunk]
    counts[:] = 0
    for i in range(bounds[chunk], bounds[chunk + 1]):
        counts[_digit(keys[i], shift)] += 1


@kernel()
def _sort_by_digit(chunk, bounds, keys, shift, positions, buffer):
    """Move the keys of a chunk to where `positions[chunk]` says that each digit comes next."""
    for i in range(bounds[chunk], bounds[chunk + 1]):
        digit = _digit(keys[i], shift)
        buffer[positions[chunk, digit]] = keys[i]
        positions[chunk, digit] += 1


@kernel()
def _counts_to_starts(counts):
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


def pack_records(
    order: np.ndarray,
    means2d: np.ndarray,
    conics: np.ndarray,
    opacities: np.ndarray,
    features: np.ndarray,
    depths: np.ndarray,
    extents: np.ndarray,
    *,
    with_depth: bool,
    size: tuple[int, int],
    threads: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the records of the visible instances, and the number of tiles in each bounding box.

    Args:
        order: [ranks] visible instances, from `order_by_depth`.
        means2d: [instances, 2] px.
        conics: [instances, 3] px^-2.
        opacities: [instances, 1], or [G, 1] if all cameras share them.
        features: [instances, D], or [G, D] if all cameras share them.
        depths: [instances, 1] scene units.
        extents: [instances, 2] px.
        with_depth: append the depth to the features as a further channel.
        size: (width, height) px.
        threads: to use.

    Returns:
        records: [ranks, 8 + D + with_depth] float32, see the module docstring.
        box_tiles: [ranks] int32.
    """
    box_tiles = np.empty(order.size, np.int32)
    records = np.empty((order.size, HEADER + features.shape[1] + with_depth), np.float32)
    inputs = (means2d, conics, opacities, features, depths, with_depth, extents, size)
    on_ranges(threads, order.size, _pack, order, *inputs, records, box_tiles)
    return records, box_tiles


@kernel()
def _pack(
    first,
    end,
    order,
    means2d,
    conics,
    opacities,
    features,
    depths,
    with_depth,
    extents,
    size,
    records,
    box_tiles,
):
    """Fill the results of `pack_records` for the ranks `range(first, end)`."""
    channels = features.shape[1]
    log2_e = 1 / math.log(2)
    for rank in range(first, end):
        i = order[rank]
        record = records[rank]
        later = order[min(rank + _PREFETCH_DISTANCE, order.size - 1)]
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
        record[6], record[7] = extents[i, 0] + _MARGIN_PX, extents[i, 1] + _MARGIN_PX
        source = features[i % features.shape[0]]
        for d in range(channels):
            record[HEADER + d] = source[d]
        if with_depth:
            record[HEADER + channels] = depths[i, 0]
        left, right, top, bottom = _box(record, size)
        box_tiles[rank] = (right - left) * (bottom - top)


@kernel()
def _box(record, size):
    """Return the tiles of a bounding box: first and end column, first and end row (exclusive)."""
    left, right = _tile_range(record[0] - record[6], record[0] + record[6], size[0])
    top, bottom = _tile_range(record[1] - record[7], record[1] + record[7], size[1])
    return left, right, top, bottom


@kernel()
def _tile_range(low, high, size):
    """Return the first and end tile along an axis with a pixel centre in [low, high] px.

    They are (0, 0) if no pixel centre of the image, `size` pixels long, is in the interval.
    """
    first, last = max(0, int(np.ceil(low - 0.5))), min(size - 1, int(np.floor(high - 0.5)))
    return (first // TILE, last // TILE + 1) if first <= last else (0, 0)


@kernel()
def _min_quadratic(a, b, c, x, y):
    """Return the minimum of a dx^2 + b dx dy + c dy^2 over the square of a tile's pixel centres.

    It is zero if the mean is inside the square. Otherwise it lies on a side that faces the mean, at
    the point closest to where the derivative along that side is zero.

    Args:
        a: first coefficient, px^-2, of the record.
        b: second coefficient.
        c: third coefficient.
        x: left side of the square relative to the mean, px.
        y: top side of the square relative to the mean, px.
    """
    right, bottom = x + (TILE - 1), y + (TILE - 1)
    near_x, near_y = min(max(0.0, x), right), min(max(0.0, y), bottom)
    free_x = min(max(-0.5 * b / a * near_y, x), right)
    free_y = min(max(-0.5 * b / c * near_x, y), bottom)
    return min(
        a * near_x * near_x + b * near_x * free_y + c * free_y * free_y,
        a * free_x * free_x + b * free_x * near_y + c * near_y * near_y,
    )


def bin_tiles(
    order: np.ndarray,
    records: np.ndarray,
    box_tiles: np.ndarray,
    instances_per_camera: int,
    cameras: int,
    size: tuple[int, int],
    chunks: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """List the ranks of the Gaussians whose alpha reaches the cut in each tile.

    An intersection is a pair of a tile and a rank.

    Args:
        order: [ranks] instances.
        records: [ranks, 8 + channels].
        box_tiles: [ranks] number of tiles in each bounding box.
        instances_per_camera: G.
        cameras: C.
        size: (width, height) px.
        chunks: number of parts processed in parallel; it has no effect on the result.

    Returns:
        offsets: [tiles + 1] where the list of each tile starts in `ranks`.
        ranks: [intersections] int32, the lists of all tiles, one after another.
        starts: [ranks + 1] where the intersections of each rank start in `slots`.
        ends: [ranks] where they end; the entries up to the next start are unused.
        slots: [sum of box_tiles] int32, the positions in `ranks` of each rank's intersections.
    """
    grid = tuple((side + TILE - 1) // TILE for side in size)
    bounds = _chunk_bounds(order.size, chunks)
    starts = np.zeros(order.size + 1, np.int64)
    np.cumsum(box_tiles, out=starts[1:])
    ends = np.empty(order.size, np.int64)
    slots = np.empty(starts[-1], np.int32)
    positions = np.empty((chunks, grid[0] * grid[1] * cameras), np.int64)
    inputs = (order, records, box_tiles, instances_per_camera, size, grid)
    on_threads(chunks, _count_hits, bounds, *inputs, starts, positions, ends, slots)
    offsets = _counts_to_starts(positions)
    ranks = np.empty(offsets[-1], np.int32)
    on_threads(chunks, _write_ranks, bounds, starts, ends, positions, ranks, slots)
    return offsets, ranks, starts, ends, slots


@kernel()
def _count_hits(
    chunk,
    bounds,
    order,
    records,
    box_tiles,
    instances_per_camera,
    size,
    grid,
    starts,
    positions,
    ends,
    slots,
):
    """Write the tiles that the Gaussians of a chunk reach into `slots`, and count them.

    Args:
        chunk: index of the chunk.
        bounds: [chunks + 1] of ranks.
        order: `order`, `records`, `box_tiles`, `instances_per_camera` and `size` are those of
            `bin_tiles`.
        grid: number of columns and rows of tiles of an image.
        starts: [ranks + 1] as returned by `bin_tiles`.
        positions: [chunks, tiles] to fill, the number of hits of the chunk in each tile.
        ends: [ranks] to fill, as returned by `bin_tiles`.
        slots: to fill with the numbers of tiles.
    """
    tiles_x, tiles_y = grid
    counts = positions[chunk]
    counts[:] = 0
    for rank in range(bounds[chunk], bounds[chunk + 1]):
        record = records[rank]
        x, y = np.float64(record[0]), np.float64(record[1])
        a, b, c = np.float64(record[2]), np.float64(record[3]), np.float64(record[4])
        limit = record[5] - LOG2_CUT + _MARGIN_LOG2
        first_row = order[rank] // instances_per_camera * tiles_y
        left, right, row, _ = _box(record, size)
        column, slot = left, starts[rank]
        # Without branches: whether a Gaussian reaches a tile of its box is unpredictable.
        for _ in range(box_tiles[rank]):
            tile = (first_row + row) * tiles_x + column
            minimum = _min_quadratic(a, b, c, column * TILE + 0.5 - x, row * TILE + 0.5 - y)
            hit = np.int64(minimum <= limit)
            slots[slot] = tile
            counts[tile] += hit
            slot += hit
            column += 1
            wrapped = column == right
            column = left if wrapped else column
            row += wrapped
        ends[rank] = slot


@kernel()
def _write_ranks(chunk, bounds, starts, ends, positions, ranks, slots):
    """Write the ranks of a chunk into the lists, and their positions there into `slots`.

    Args:
        chunk: index of the chunk.
        bounds: [chunks + 1] of ranks.
        starts: [ranks + 1], as returned by `bin_tiles`.
        ends: [ranks], as returned by `bin_tiles`.
        positions: [chunks, tiles] where the next rank of the chunk goes in each tile's list.
        ranks: [intersections] to fill.
        slots: the numbers of tiles, to be replaced by positions in `ranks`.
    """
    counts = positions[chunk]
    for rank in range(bounds[chunk], bounds[chunk + 1]):
        for slot in range(starts[rank], ends[rank]):
            position = counts[slots[slot]]
            counts[slots[slot]] = position + 1
            ranks[position] = rank
            slots[slot] = position
