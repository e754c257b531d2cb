"""CPU kernels that list the Gaussians that intersect each tile, and the blocks they reach in it.

Instances are those of `order`. Tiles are square, `TILE` pixels wide, and numbered by camera, row
and column; a tile has 16 blocks of 4 x 4 pixels, see `lanes_blocks`.

`pack_records` writes what binning and blending need of an instance into one row of float32, which
is padded to whole cache lines:

    0, 1  projected mean, px         2, 3, 4  p, q, r, px^-1         5  log2 of the opacity
    6, 7  half the width and height of the box outside of which alpha is below the cut, px
    8...  the features, followed by the depth if it is blended

With (dx, dy) = mean - pixel centre, log2(alpha) = record[5] - (p dx + q dy)^2 - (r dy)^2: the
Cholesky factor of half the conic, over ln 2.
"""

from __future__ import annotations

import math

import numpy as np

from msdyn.jit import kernel
from msdyn.raster.contract import ALPHA_CUT
from msdyn.raster.cpu.arrays import aligned
from msdyn.raster.cpu.lanes import WIDTH, ceil, log2, select, sqrt
from msdyn.raster.cpu.lanes_blocks import (
    BLOCK_SIDE,
    clamp,
    column_of_lane,
    mask_bits,
    row_of_lane,
)
from msdyn.raster.cpu.lanes_memory import load_rows, prefetch, scratch, store, store_column
from msdyn.raster.cpu.order import chunk_bounds, counts_to_starts
from msdyn.raster.cpu.tile_pixels import TILE
from msdyn.threads import on_ranges, on_threads

__all__ = [
    "HEADER",
    "LOG2_CUT",
    "MASK_BITS",
    "TILE",
    "bin_tiles",
    "pack_records",
]

# Numbers of a record before its features.
HEADER = 8
LOG2_CUT = math.log2(ALPHA_CUT)
# An entry of a list is an instance, shifted by this many bits, and the mask of the blocks.
MASK_BITS = WIDTH

# The blending kernel applies the exact alpha cut. Binning uses bounds that are larger by these
# margins, in px and in log2(alpha), so that no pixel depends on how a bound is rounded.
_MARGIN_PX = 2e-3
_MARGIN_LOG2 = 4e-3
_HALF_LOG2_E = np.float32(0.5 / math.log(2))
# Instances between prefetching and use.
_PREFETCH_DISTANCE = 16
_TINY = np.float32(1e-30)
_HALF = np.float32(0.5)


def pack_records(
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
    """Return the records of the instances, and the tiles in each bounding box.

    Args:
        means2d: [instances, 2] px.
        conics: [instances, 3] px^-2.
        opacities: [instances, 1].
        features: [instances, D], or [G, D] if all cameras share them.
        depths: [instances, 1] scene units.
        extents: [instances, 2] px, zero for culled instances.
        with_depth: append the depth to the features as a further channel.
        size: (width, height) px.
        threads: to use.

    Returns:
        records: [instances, n] float32, see the module docstring; undefined for culled instances.
        boxes: [instances, 4] int32: first and end column, first row, number of tiles.
    """
    count = len(means2d)
    needed = HEADER + features.shape[1] + with_depth
    records = aligned(count, -(-needed // WIDTH) * WIDTH)
    boxes = np.empty((count, 4), np.int32)
    inputs = (means2d, conics, opacities, features, depths, extents, with_depth, size)
    on_ranges(threads, -(-count // WIDTH), _pack, *inputs, records, boxes)
    return records, boxes


@kernel()
def _pack(
    first_job,
    end_job,
    means2d,
    conics,
    opacities,
    features,
    depths,
    extents,
    with_depth,
    size,
    records,
    boxes,
):
    """Fill the results of `pack_records` for some jobs, each of 16 instances."""
    count, channels = len(records), features.shape[1]
    tiles = scratch(4, (0,))
    for job in range(first_job, end_job):
        first = job * WIDTH
        _pack_header(means2d, conics, opacities, extents, first, size, records, tiles)
        source = first % features.shape[0]
        for lane in range(min(count - first, WIDTH)):
            i, j = np.uintp(first + lane), np.uintp(source)
            for d in range(channels):
                records[i, np.uintp(HEADER + d)] = features[j, np.uintp(d)]
            if with_depth:
                records[i, np.uintp(HEADER + channels)] = depths[i, 0]
            for n in range(4):
                boxes[i, np.uintp(n)] = np.int32(tiles[n * WIDTH + lane])
            source += 1
            source = source if source < features.shape[0] else 0


@kernel()
def _pack_header(means2d, conics, opacities, extents, first, size, records, tiles):
    """Fill the first `HEADER` columns of 16 records, and the columns of their boxes."""
    conic = load_rows(conics, first, 3)
    a, half_b, c = _HALF_LOG2_E * conic[0], _HALF_LOG2_E * conic[1], _HALF_LOG2_E * conic[2]
    p = sqrt(a)
    # c - q^2, but not less than a number above zero, where rounding would make it negative.
    rest = (a * c - half_b * half_b) / a
    x, y = load_rows(means2d, first, 2)
    extent_x, extent_y = load_rows(extents, first, 2)
    half_x, half_y = extent_x + _MARGIN_PX, extent_y + _MARGIN_PX
    store_column(records, first, 0, x)
    store_column(records, first, 1, y)
    store_column(records, first, 2, p)
    store_column(records, first, 3, half_b / p)
    store_column(records, first, 4, sqrt(select(rest > _TINY, rest, _TINY)))
    store_column(records, first, 5, log2(load_rows(opacities, first, 1)[0]))
    store_column(records, first, 6, half_x)
    store_column(records, first, 7, half_y)
    left, right = _tile_range(x - half_x, x + half_x, size[0])
    top, bottom = _tile_range(y - half_y, y + half_y, size[1])
    store(tiles, 0, left)
    store(tiles, WIDTH, right)
    store(tiles, 2 * WIDTH, top)
    store(tiles, 3 * WIDTH, select(extent_x > 0, (right - left) * (bottom - top), 0))


@kernel()
def _tile_range(low, high, size):
    """Return the first and end tile along an axis with a pixel centre in [low, high] px.

    They are (0, 0) if no pixel centre of the image, `size` pixels long, is in the interval.
    """
    first, last = ceil(low - _HALF), _floor(high - _HALF)
    first = select(first > 0, first, 0)
    last = select(last < size - 1, last, size - 1)
    inside = first <= last
    return (
        select(inside, _floor(first * (1 / TILE)), 0),
        select(inside, _floor(last * (1 / TILE)) + 1, 0),
    )


@kernel()
def _floor(lanes):
    """Return lanes rounded down to integers."""
    return 0 - ceil(0 - lanes)


@kernel()
def _reached_blocks(record, slopes, x, y):
    """Return the blocks of a tile where alpha reaches the cut, as bits.

    A block counts if the minimum of U^2 + V^2, with log2(alpha) = record[5] - U^2 - V^2, over the
    square of its pixel centres is within the bound. The minimum is zero if the mean is inside the
    square. Otherwise it lies on a side that faces the mean, at the point closest to where the
    derivative along that side is zero.

    Args:
        record: (x, y, p, q, r, limit) of the Gaussian, the limit of U^2 + V^2 included.
        slopes: on a line of constant y the derivative is zero where dx = slopes[0] dy, and on one
            of constant x where dy = slopes[1] dx.
        x: first pixel centre of the tile, px.
        y: its vertical coordinate, px.
    """
    mean_x, mean_y, p, q, r, limit = record
    left = column_of_lane() * BLOCK_SIDE + (x - mean_x)
    top = row_of_lane() * BLOCK_SIDE + (y - mean_y)
    right, bottom = left + (BLOCK_SIDE - 1), top + (BLOCK_SIDE - 1)
    near_x, near_y = clamp(0 * left, left, right), clamp(0 * top, top, bottom)
    free_x = clamp(slopes[0] * near_y, left, right)
    free_y = clamp(slopes[1] * near_x, top, bottom)
    u, v = p * near_x + q * free_y, r * free_y
    side = u * u + v * v
    u, v = p * free_x + q * near_y, r * near_y
    other = u * u + v * v
    return mask_bits(select(side < other, side, other) <= limit)


def bin_tiles(
    order: np.ndarray,
    records: np.ndarray,
    boxes: np.ndarray,
    cameras: int,
    size: tuple[int, int],
    chunks: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """List the Gaussians whose alpha reaches the cut in each tile, with the blocks where it does.

    An intersection is a pair of a tile and an instance.

    Args:
        order: [visible instances], nearest first.
        records: [instances, n] from `pack_records`.
        boxes: [instances, 4] from `pack_records`.
        cameras: C.
        size: (width, height) px.
        chunks: number of parts processed in parallel; it has no effect on the result.

    Returns:
        offsets: [tiles + 1] where the list of each tile starts in `entries`.
        entries: [intersections] int64, the lists of all tiles, one after another: an instance,
            shifted by `MASK_BITS`, and the mask of the blocks.
        spans: [instances, 2] where the intersections of each instance start and end in `slots`.
        slots: [tiles in all boxes] int64, the positions in `entries` of the intersections of each
            instance.
    """
    grid = tuple((side + TILE - 1) // TILE for side in size)
    if chunks == 1:
        return _bin_in_one_thread(order, records, boxes, cameras, grid)
    spans = np.empty((len(boxes), 2), np.int64)
    slots = np.empty(_reserve_slots(boxes, spans), np.int64)
    # Not used here: `_find_hits` counts by ranges of instances, not of the order.
    positions = np.empty((chunks, grid[0] * grid[1] * cameras), np.int64)
    bounds = chunk_bounds(len(boxes), chunks)
    inputs = (records, boxes, len(boxes) // cameras, grid)
    on_threads(chunks, _find_hits, bounds, *inputs, spans, slots, positions)
    bounds = chunk_bounds(order.size, chunks)
    on_threads(chunks, _count_hits, bounds, order, spans, slots, positions)
    offsets = counts_to_starts(positions)
    entries = np.empty(offsets[-1], np.int64)
    on_threads(chunks, _write_lists, bounds, order, spans, positions, entries, slots)
    return offsets, entries, spans, slots


@kernel()
def _bin_in_one_thread(order, records, boxes, cameras, grid):
    """Return what `bin_tiles` does, in one call."""
    spans = np.empty((len(boxes), 2), np.int64)
    slots = np.empty(_reserve_slots(boxes, spans), np.int64)
    positions = np.empty((1, grid[0] * grid[1] * cameras), np.int64)
    bounds = np.array([0, len(boxes)])
    _find_hits(0, bounds, records, boxes, len(boxes) // cameras, grid, spans, slots, positions)
    offsets = counts_to_starts(positions)
    entries = np.empty(offsets[-1], np.int64)
    bounds[1] = order.size
    _write_lists(0, bounds, order, spans, positions, entries, slots)
    return offsets, entries, spans, slots


@kernel()
def _reserve_slots(boxes, spans):
    """Set the starts of the spans, a slot for each tile of a box; return the number of slots."""
    start = 0
    for i in range(len(boxes)):
        spans[i, 0] = start
        start += boxes[i, 3]
    return start


@kernel()
def _find_hits(chunk, bounds, records, boxes, per_camera, grid, spans, slots, positions):
    """Write the tiles that a chunk of instances reaches, and the masks of the blocks, into `slots`.

    Args:
        chunk: index of the chunk.
        bounds: [chunks + 1] of instances.
        records: [instances, n].
        boxes: [instances, 4].
        per_camera: G.
        grid: number of columns and rows of tiles of an image.
        spans: [instances, 2]; the ends are filled.
        slots: to fill with a tile, shifted by `MASK_BITS`, and the mask.
        positions: [chunks, tiles] to fill, the number of hits of the chunk in each tile.
    """
    counts = positions[chunk]
    counts[:] = 0
    for n in range(bounds[chunk], bounds[chunk + 1]):
        i = np.uintp(n)
        slot, tiles = spans[i, 0], boxes[i, 3]
        if tiles > 0:
            p, q, r = records[i, 2], records[i, 3], records[i, 4]
            limit = records[i, 5] - np.float32(LOG2_CUT - _MARGIN_LOG2)
            record = (records[i, 0], records[i, 1], p, q, r, limit)
            slopes = (-q / p, -p * q / (q * q + r * r))
            first_row = n // per_camera * grid[1]
            left, end_column = np.int64(boxes[i, 0]), np.int64(boxes[i, 1])
            column, row = left, np.int64(boxes[i, 2])
            # Without branches: whether a Gaussian reaches a tile of its box is unpredictable.
            for _ in range(tiles):
                x, y = np.float32(column * TILE) + _HALF, np.float32(row * TILE) + _HALF
                mask = _reached_blocks(record, slopes, x, y)
                tile = (first_row + row) * grid[0] + column
                slots[np.uintp(slot)] = tile << MASK_BITS | mask
                hit = np.int64(mask != 0)
                counts[np.uintp(tile)] += hit
                slot += hit
                column += 1
                wrapped = column == end_column
                column = left if wrapped else column
                row += wrapped
        spans[i, 1] = slot


@kernel()
def _count_hits(chunk, bounds, order, spans, slots, positions):
    """Set `positions[chunk]` to the number of hits of a chunk of `order` in each tile."""
    counts = positions[chunk]
    counts[:] = 0
    for k in range(bounds[chunk], bounds[chunk + 1]):
        _prefetch_slots(k, order, spans, slots)
        i = order[k]
        for slot in range(spans[i, 0], spans[i, 1]):
            counts[slots[slot] >> MASK_BITS] += 1


@kernel()
def _prefetch_slots(k, order, spans, slots):
    """Prefetch the spans and slots of later instances of an order: they are scattered in memory."""
    last = order.size - 1
    prefetch(spans, 2 * order[min(k + 2 * _PREFETCH_DISTANCE, last)])
    prefetch(slots, spans[order[min(k + _PREFETCH_DISTANCE, last)], 0])


@kernel()
def _write_lists(chunk, bounds, order, spans, positions, entries, slots):
    """Write the entries of a chunk of `order`, and their positions into `slots`.

    Args:
        chunk: index of the chunk.
        bounds: [chunks + 1] of `order`.
        order: [visible instances].
        spans: [instances, 2], as returned by `bin_tiles`.
        positions: [chunks, tiles] where the next entry of the chunk goes in each tile's list.
        entries: [intersections] to fill.
        slots: tiles and masks, to be replaced by positions in `entries`.
    """
    nexts = positions[chunk]
    for k in range(bounds[chunk], bounds[chunk + 1]):
        _prefetch_slots(k, order, spans, slots)
        i = order[np.uintp(k)]
        for n in range(spans[np.uintp(i), 0], spans[np.uintp(i), 1]):
            slot = np.uintp(n)
            tile, mask = slots[slot] >> MASK_BITS, slots[slot] & ((1 << MASK_BITS) - 1)
            position = nexts[np.uintp(tile)]
            nexts[np.uintp(tile)] = position + 1
            entries[np.uintp(position)] = i << MASK_BITS | mask
            slots[slot] = position
