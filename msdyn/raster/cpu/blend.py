"""CPU kernels that blend the list of Gaussians of each tile.

Each row of a tile is one `Lanes` value. With alpha_i = min(0.999, o_i 2^-(a dx^2 + b dx dy +
c dy^2)), set to zero below 1/255, and the transmittance T_i = prod_{j < i} (1 - alpha_j):

    image = sum_i T_i alpha_i f_i,  alpha image = 1 - T,  T = the transmittance behind all Gaussians

Blending of a pixel stops at the first Gaussian that would reduce T to 1e-4 or less; this Gaussian
does not contribute. The kernel marks a stopped pixel by negating its T: with a negative T, the
weight of every further Gaussian fails the test of the stop and is set to zero.

The number of channels is passed as a tuple of that length. It is then part of the tuple's type, so
the compiler knows it and unrolls the loops over channels.

Reference: gsplat 1.5.3, `rasterize_to_pixels`, for the rules.
"""

from __future__ import annotations

import numpy as np

from msdyn.jit import kernel
from msdyn.raster.contract import MAX_ALPHA, MIN_TRANSMITTANCE
from msdyn.raster.cpu.bin import HEADER, LOG2_CUT, TILE
from msdyn.raster.cpu.lanes import WIDTH, exp2, iota, reduce_max, select
from msdyn.raster.cpu.lanes_memory import fetch_increment, load, prefetch_row, scratch, store

__all__ = ["PREFETCH_DISTANCE", "alpha_of_row", "blend_forward", "load_gaussian", "tile_bounds"]

_CUT = np.float32(LOG2_CUT)
_MAX_ALPHA = np.float32(MAX_ALPHA)
_MIN_TRANSMITTANCE = np.float32(MIN_TRANSMITTANCE)
_HALF, _ONE = np.float32(0.5), np.float32(1)
# Rounding can raise log2(alpha) above log2(opacity) by this much. A greater excess means that the
# rounded conic of a needle-like Gaussian is not positive definite; the pixel is skipped, as in
# gsplat.
_ROUNDING_LOG2 = np.float32(1e-4)
# Gaussians between two tests of whether all pixels of a tile have stopped.
_STOP_TEST_INTERVAL = 16
# List entries between prefetching a record and using it. Without prefetching, a third of the time
# is spent waiting for memory (100 000 Gaussians in random order); 4 to 12 perform alike.
PREFETCH_DISTANCE = 6


@kernel()
def load_gaussian(ranks, k, later, records, x, y):
    """Return the record of a list entry, the rows of the tile that it covers and its column terms.

    Args:
        ranks: the list of the tile.
        k: index of the entry.
        later: index of an entry to prefetch, clamped to the list.
        records: [ranks, 8 + channels].
        x: centre of the first pixel of the tile, px.
        y: its vertical coordinate, px.

    Returns:
        record: [8 + channels].
        first, end: range of the rows of the tile inside the bounding box.
        dx, u, v: lanes, one per column, with log2(alpha) = u - v dy - c dy^2.
    """
    prefetch_row(records, ranks[min(max(later, 0), ranks.size - 1)])
    record = records[ranks[k]]
    first = max(0, int(np.ceil(record[1] - record[7] - y)))
    last = min(TILE - 1, int(np.floor(record[1] + record[7] - y)))
    dx = record[0] - (iota() + x)
    return record, first, last + 1, dx, record[5] - record[2] * dx * dx, record[3] * dx


@kernel()
def alpha_of_row(record, u, v, dy):
    """Return alpha of a row of pixels before the cap, and the mask where it is above the cut."""
    exponent = u - v * dy - record[4] * dy * dy
    return exp2(exponent), (exponent >= _CUT) & (exponent <= record[5] + _ROUNDING_LOG2)


@kernel()
def blend_forward(_, counter, offsets, ranks, records, size, channels, outputs):
    """Blend tiles until none is left. Threads that call this together share the tiles.

    Args:
        _: index of the thread.
        counter: [1] int64, the next tile; zero before the first call.
        offsets: [tiles + 1] from `bin_tiles`.
        ranks: [intersections] from `bin_tiles`.
        records: [ranks, 8 + channels] from `pack_records`.
        size: (width, height) px.
        channels: a tuple whose length is the number of channels, the depth included.
        outputs: float32 arrays to fill: the image [C, H, W, D]; the depth [C, H, W, 1], which is
            the last channel, or [C, H, W, 0] without depth; alpha [C, H, W]; and for the backward
            pass the final T [C, H, W], and the position in the tile's list of the last Gaussian
            that contributed to a pixel, [C, H, W], counted from one, zero if none did.
    """
    tile = fetch_increment(counter)
    while tile < offsets.size - 1:
        _forward_tile(tile, offsets, ranks, records, size, channels, outputs)
        tile = fetch_increment(counter)


@kernel()
def tile_bounds(tile, size):
    """Return the camera of a tile, its first pixel (x, y), and its number of columns and rows."""
    width, height = size
    tiles_x, tiles_y = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    camera, within = tile // (tiles_x * tiles_y), tile % (tiles_x * tiles_y)
    x, y = within % tiles_x * TILE, within // tiles_x * TILE
    return camera, x, y, min(TILE, width - x), min(TILE, height - y)


@kernel()
def _forward_tile(tile, offsets, ranks, records, size, channels, outputs):
    """Blend one tile and write its pixels to `outputs`; arguments as in `blend_forward`."""
    image, depth, alpha, final_transmittance, last = outputs
    camera, x0, y0, columns, rows = tile_bounds(tile, size)
    transmittance, last_blended = scratch(TILE, (0,)), scratch(TILE, (0,))
    blended = scratch(TILE, channels)
    for y in range(TILE):
        # A negative T marks pixels outside the image as stopped.
        inside = iota() < (columns if y < rows else 0)
        store(transmittance, y * WIDTH, select(inside, 1, -1))
        store(last_blended, y * WIDTH, 0 * iota())
        for d in range(len(channels)):
            store(blended, (d * TILE + y) * WIDTH, 0 * iota())
    _blend_list(
        ranks[offsets[tile] : offsets[tile + 1]],
        records,
        x0,
        y0,
        channels,
        transmittance,
        last_blended,
        blended,
    )
    for y in range(rows):
        for x in range(columns):
            i = y * WIDTH + x
            final_transmittance[camera, y0 + y, x0 + x] = abs(transmittance[i])
            alpha[camera, y0 + y, x0 + x] = _ONE - abs(transmittance[i])
            last[camera, y0 + y, x0 + x] = last_blended[i]
            for d in range(image.shape[3]):
                image[camera, y0 + y, x0 + x, d] = blended[d * TILE * WIDTH + i]
            for d in range(depth.shape[3]):
                depth[camera, y0 + y, x0 + x, d] = blended[(len(channels) - 1) * TILE * WIDTH + i]


@kernel()
def _blend_list(ranks, records, x0, y0, channels, transmittance, last_blended, blended):
    """Blend the list of a tile into scratch buffers, front to back.

    Args:
        ranks: the list of the tile.
        records: [ranks, 8 + channels].
        x0: column of the first pixel of the tile.
        y0: row of the first pixel of the tile.
        channels: as in `blend_forward`.
        transmittance: T by row and column; negative for stopped pixels.
        last_blended: position in the list, from one, of the last Gaussian blended into a pixel.
        blended: the sums of weighted features, by channel, row and column.
    """
    x, y = np.float32(x0) + _HALF, np.float32(y0) + _HALF
    for k in range(ranks.size):
        record, first, end, _, u, v = load_gaussian(ranks, k, k + PREFETCH_DISTANCE, records, x, y)
        number = np.float32(k + 1)
        for row in range(first, end):
            alpha, above_cut = alpha_of_row(record, u, v, record[1] - (y + np.float32(row)))
            alpha = select(above_cut, select(alpha < _MAX_ALPHA, alpha, _MAX_ALPHA), 0)
            before = load(transmittance, row * WIDTH)
            weight = alpha * before
            after = before - weight
            # False for stopped pixels too: T is negative before and after.
            active = after > _MIN_TRANSMITTANCE
            weight = select(active, weight, 0)
            stopped = select(before < 0, before, 0 - before)
            store(transmittance, row * WIDTH, select(active, after, stopped))
            previous = load(last_blended, row * WIDTH)
            store(last_blended, row * WIDTH, select(active & above_cut, number, previous))
            for d in range(len(channels)):
                index = (d * TILE + row) * WIDTH
                store(blended, index, load(blended, index) + record[HEADER + d] * weight)
        if k % _STOP_TEST_INTERVAL == _STOP_TEST_INTERVAL - 1:
            maximum = load(transmittance, 0)
            for row in range(1, TILE):
                other = load(transmittance, row * WIDTH)
                maximum = select(other > maximum, other, maximum)
            if reduce_max(maximum) < 0:
                break
