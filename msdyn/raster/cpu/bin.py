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
import torch

from msdyn.jit import kernel
from msdyn.raster.contract import ALPHA_CUT
from msdyn.raster.cpu.lanes import WIDTH, log2, select, sqrt
from msdyn.raster.cpu.lanes_blocks import (
    BLOCK_SIDE,
    clamp,
    column_of_lane,
    mask_bits,
    row_of_lane,
)
from msdyn.raster.cpu.lanes_memory import load_column, store_column
from msdyn.raster.cpu.order import chunk_bounds, counts_to_starts
from msdyn.threads import on_ranges, on_threads

__all__ = [
    "HEADER",
    "LOG2_CUT",
    "MASK_BITS",
    "TILE",

    "bin_tiles",
    "pack_records",
]

# Pixels along the side of a tile: as many blocks as a `Lanes` value has lanes.
TILE = BLOCK_SIDE * BLOCK_SIDE
# Numbers of a record before its features.
HEADER = 8
LOG2_CUT = math.log2(ALPHA_CUT)
# An entry of a list is an instance, shifted by this many bits, and the mask of the blocks.
MASK_BITS = WIDTH

# The blending kernel applies the exact alpha cut. Binning uses bounds that are larger by these
# margins, in px and in log2(alpha), so that no pixel depends on how a bound is rounded.
_MARGIN_PX = 2e-3
_MARGIN_LOG2 = 4e-3
_LOG2_E = 1 / math.log(2)
_TINY = np.float32(1e-30)


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
        means2d: [C, G, 2] px.
        conics: [C, G, 3] px^-2.
        opacities: [C or 1, G, 1].
        features: [C or 1, G, D].
        depths: [C, G, 1] scene units.
        extents: [C, G, 2] px, zero for culled instances.
        with_depth: append the depth to the features as a further channel.
        size: (width, height) px.
        threads: to use.

    Returns:
        records: [C, G, n] float32, see the module docstring; undefined for culled instances.
        boxes: [C * G, 4] int32: first and end column, first row, number of tiles.
    """
    cameras, count = means2d.shape[:2]
    needed = HEADER + features.shape[2] + with_depth
    # Aligned to cache lines by torch.
    records = torch.empty(cameras, count, -(-needed // WIDTH) * WIDTH).numpy()
    boxes = np.empty((cameras * count, 4), np.int32)
    inputs = (means2d, conics, opacities, features, depths, extents, with_depth, size)
    on_ranges(threads, cameras * -(-count // WIDTH), _pack, *inputs, records, boxes)
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
    """Fill the results of `pack_records` for some jobs, each 16 instances of a camera."""
    count, channels = means2d.shape[1], features.shape[2]
    jobs = (count + WIDTH - 1) // WIDTH
    for job in range(first_job, end_job):
        c, first = job // jobs, job % jobs * WIDTH
        _pack_header(
            means2d[c],
            conics[c],
            opacities[c % opacities.shape[0]],
            extents[c],
            first,
            records[c],
        )
        values = features[c % features.shape[0]]
        for g in range(first, min(count, first + WIDTH)):
            record, box = records[c, g], boxes[c * count + g]
            box[3] = 0
            if extents[c, g, 0] > 0:
                for d in range(channels):
                    record[HEADER + d] = values[g, d]
                if with_depth:
                    record[HEADER + channels] = depths[c, g, 0]
                left, right = _tile_range(record[0] - record[6], record[0] + record[6], size[0])
                top, bottom = _tile_range(record[1] - record[7], record[1] + record[7], size[1])
                box[0], box[1], box[2], box[3] = left, right, top, (right - left) * (bottom - top)


@kernel()
def _pack_header(means2d, conics, opacities, extents, first, records):
    """Fill the first `HEADER` columns of 16 records."""
    a = 0.5 * _LOG2_E * load_column(conics, first, 0)
    half_b = 0.5 * _LOG2_E * load_column(conics, first, 1)
    c = 0.5 * _LOG2_E * load_column(conics, first, 2)
    p = sqrt(a)
    # c - q^2 as determinant over a, where rounding would make it negative, zero.
    rest = (a * c - half_b * half_b) / a
    store_column(records, first, 0, load_column(means2d, first, 0))
    store_column(records, first, 1, load_column(means2d, first, 1))
    store_column(records, first, 2, p)
    store_column(records, first, 3, half_b / p)
    store_column(records, first, 4, sqrt(select(rest > _TINY, rest, _TINY)))
    store_column(records, first, 5, log2(load_column(opacities, first, 0)))
    store_column(records, first, 6, load_column(extents, first, 0) + _MARGIN_PX)
    store_column(records, first, 7, load_column(extents, first, 1) + _MARGIN_PX)


@kernel()
def _tile_range(low, high, size):
    """Return the first and end tile along an axis with a pixel centre in [low, high] px.

    They are (0, 0) if no pixel centre of the image, `size` pixels long, is in the interval.
    """
    first, last = max(0, int(np.ceil(low - 0.5))), min(size - 1, int(np.floor(high - 0.5)))
    return (first // TILE, last // TILE + 1) if first <= last else (0, 0)


@kernel()
def _reached_blocks(record, x, y):
    """Return the blocks of a tile where alpha reaches the cut, as bits.

    A block counts if the minimum of U^2 + V^2, with log2(alpha) = record[5] - U^2 - V^2, over the
    square of its pixel centres is within the bound. The minimum is zero if the mean is inside the
    square. Otherwise it lies on a side that faces the mean, at the point closest to where the
    derivative along that side is zero.

    Args:
        record: of the Gaussian.
        x: first pixel centre of the tile, px.
        y: its vertical coordinate, px.
    """
    p, q, r = record[2], record[3], record[4]
    limit = record[5] - np.float32(LOG2_CUT - _MARGIN_LOG2)
    # Where, on a line of constant y or x, the derivative is zero.
    slope_x, slope_y = -q / p, -p * q / (q * q + r * r)
    left = column_of_lane() * BLOCK_SIDE + (x - record[0])
    top = row_of_lane() * BLOCK_SIDE + (y - record[1])
    right, bottom = left + (BLOCK_SIDE - 1), top + (BLOCK_SIDE - 1)
    near_x, near_y = clamp(0 * left, left, right), clamp(0 * top, top, bottom)
    free_x = clamp(slope_x * near_y, left, right)
    free_y = clamp(slope_y * near_x, top, bottom)
    u, v = p * near_x + q * free_y, r * free_y
    side = u * u + v * v
    u, v = p * free_x + q * near_y, r * near_y
    other = u * u + v * v
    return mask_bits(select(side < other, side, other) <= limit)


def bin_tiles(
    order: np.ndarray,
    records: np.ndarray,
    boxes: np.ndarray,
    size: tuple[int, int],
    chunks: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """List the Gaussians whose alpha reaches the cut in each tile, with the blocks where it does.

    An intersection is a pair of a tile and an instance.

    Args:
        order: [visible instances], nearest first.
        records: [C, G, n] from `pack_records`.
        boxes: [instances, 4] from `pack_records`.
        size: (width, height) px.
        chunks: number of parts processed in parallel; it has no effect on the result.

    Returns:
        offsets: [tiles + 1] where the list of each tile starts in `entries`.
        entries: [intersections] int64, the lists of all tiles, one after another: an instance,
            shifted by `MASK_BITS`, and the mask of the blocks.
        starts: [instances + 1] where the intersections of each instance start in `slots`.
        ends: [instances] where they end; the entries up to the next start are unused.
        slots: [tiles in all boxes] int64, the positions in `entries` of the intersections of each
            instance.
    """
    grid = tuple((side + TILE - 1) // TILE for side in size)
    if chunks == 1:
        return bin_in_one_thread(order, records, boxes, grid)
    starts = np.zeros(len(boxes) + 1, np.int64)
    np.cumsum(boxes[:, 3], out=starts[1:])
    ends = np.empty(len(boxes), np.int64)
    slots = np.empty(starts[-1], np.int64)
    on_ranges(chunks, len(boxes), _find_hits, records, boxes, grid, starts, ends, slots)
    positions = np.empty((chunks, grid[0] * grid[1] * records.shape[0]), np.int64)
    bounds = chunk_bounds(order.size, chunks)
    on_threads(chunks, _count_hits, bounds, order, starts, ends, slots, positions)
    offsets = counts_to_starts(positions)
    entries = np.empty(offsets[-1], np.int64)
    on_threads(chunks, _write_lists, bounds, order, starts, ends, positions, entries, slots)
    return offsets, entries, starts, ends, slots


@kernel()
def bin_in_one_thread(order, records, boxes, grid):
    """Return what `bin_tiles` does, in one call."""
    starts = np.empty(len(boxes) + 1, np.int64)
    starts[0] = 0
    for i in range(len(boxes)):
        starts[i + 1] = starts[i] + boxes[i, 3]
    ends = np.empty(len(boxes), np.int64)
    slots = np.empty(starts[-1], np.int64)
    _find_hits(0, len(boxes), records, boxes, grid, starts, ends, slots)
    positions = np.empty((1, grid[0] * grid[1] * records.shape[0]), np.int64)
    bounds = np.array([0, order.size])
    _count_hits(0, bounds, order, starts, ends, slots, positions)
    offsets = counts_to_starts(positions)
    entries = np.empty(offsets[-1], np.int64)
    _write_lists(0, bounds, order, starts, ends, positions, entries, slots)
    return offsets, entries, starts, ends, slots


@kernel()
def _find_hits(first, end, records, boxes, grid, starts, ends, slots):
    """Write the tiles that some instances reach, and the masks of the blocks, into `slots`.

    Args:
        first: the first instance.
        end: the end of the range, exclusive.
        records: [C, G, n].
        boxes: [instances, 4].
        grid: number of columns and rows of tiles of an image.
        starts: [instances + 1], as returned by `bin_tiles`.
        ends: [instances] to fill, as returned by `bin_tiles`.
        slots: to fill with a tile, shifted by `MASK_BITS`, and the mask.
    """
    count = records.shape[1]
    half = np.float32(0.5)
    for i in range(first, end):
        box = boxes[i]
        record = records[i // count, i % count]
        first_row = i // count * grid[1]
        column, row, slot = box[0], box[2], starts[i]
        # Without branches: whether a Gaussian reaches a tile of its box is unpredictable.
        for _ in range(box[3]):
            x, y = np.float32(column * TILE) + half, np.float32(row * TILE) + half
            mask = _reached_blocks(record, x, y)
            slots[slot] = ((first_row + row) * grid[0] + column) << MASK_BITS | mask
            slot += mask != 0
            column += 1
            wrapped = column == box[1]
            column = box[0] if wrapped else column
            row += wrapped
        ends[i] = slot


@kernel()
def _count_hits(chunk, bounds, order, starts, ends, slots, positions):
    """Set `positions[chunk]` to the number of hits of a chunk of `order` in each tile."""
    counts = positions[chunk]
    counts[:] = 0
    for k in range(bounds[chunk], bounds[chunk + 1]):
        i = order[k]
        for slot in range(starts[i], ends[i]):
            counts[slots[slot] >> MASK_BITS] += 1


@kernel()
def _write_lists(chunk, bounds, order, starts, ends, positions, entries, slots):
    """Write the entries of a chunk of `order`, and their positions into `slots`.

    Args:
        chunk: index of the chunk.
        bounds: [chunks + 1] of `order`.
        order: [visible instances].
        starts: [instances + 1], as returned by `bin_tiles`.
        ends: [instances], as returned by `bin_tiles`.
        positions: [chunks, tiles] where the next entry of the chunk goes in each tile's list.
        entries: [intersections] to fill.
        slots: tiles and masks, to be replaced by positions in `entries`.
    """
    nexts = positions[chunk]
    for k in range(bounds[chunk], bounds[chunk + 1]):
        i = order[k]
        for slot in range(starts[i], ends[i]):
            tile, mask = slots[slot] >> MASK_BITS, slots[slot] & ((1 << MASK_BITS) - 1)
            position = nexts[tile]
            nexts[tile] = position + 1
            entries[position] = i << MASK_BITS | mask
            slots[slot] = position
