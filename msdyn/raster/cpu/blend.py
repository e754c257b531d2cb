"""CPU kernels that blend the list of Gaussians of each tile.

A `Lanes` value is a block of 4 x 4 pixels, and an entry of a list names the blocks that its
Gaussian reaches. With alpha_i = min(0.999, o_i 2^-((p dx + q dy)^2 + (r dy)^2)), set to zero below
1/255, and the transmittance T_i = prod_{j < i} (1 - alpha_j):

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
from msdyn.raster.cpu.bin import HEADER, LOG2_CUT, MASK_BITS, TILE
from msdyn.raster.cpu.lanes import WIDTH, exp2, iota, select
from msdyn.raster.cpu.lanes_blocks import (
    BLOCK_SIDE,
    column_of_lane,
    lowest_bit,
    mask_bits,
    row_of_lane,
    transpose_quads,
)
from msdyn.raster.cpu.lanes_memory import fetch_increment, load, prefetch_row, scratch, store

__all__ = [
    "PREFETCH_DISTANCE",
    "TILE_PIXELS",
    "alpha_of_block",
    "blend_forward",
    "pixel_centres",
    "tile_bounds",
    "transpose_tile",
]

TILE_PIXELS = TILE * TILE

_CUT = np.float32(LOG2_CUT)
_MAX_ALPHA = np.float32(MAX_ALPHA)
_MIN_TRANSMITTANCE = np.float32(MIN_TRANSMITTANCE)
_HALF = np.float32(0.5)
_ALL_BLOCKS = (1 << MASK_BITS) - 1
# Entries between two tests of which blocks have stopped.
_STOP_TEST_INTERVAL = 16
# List entries between prefetching a record and using it. Without prefetching, a third of the time
# is spent waiting for memory (100 000 Gaussians in random order); 4 to 12 perform alike.
PREFETCH_DISTANCE = 6


@kernel()
def blend_forward(_, counter, offsets, entries, records, size, channels, outputs):
    """Blend tiles until none is left.

    Args:
        _: index of the thread.
        counter: int64 array of one element, the next tile; all threads increment it.
        offsets: [tiles + 1] from `bin_tiles`.
        entries: [intersections] from `bin_tiles`; blocks that stopped before are removed.
        records: [instances, n] from `pack_records`.
        size: (width, height) px.
        channels: a tuple whose length is the number of channels, the depth included.
        outputs: float32 arrays to fill, flat: the image [C, H, W, D]; the depth [C, H, W], which is
            the last channel, or an empty array without depth; alpha [C, H, W]; and for the backward
            pass, pixels in the order of blocks, the final T [tiles, 256], and the position in the
            tile's list of the last entry before the pixel stopped [tiles, 256], counted from one,
            both flat; and the length of the list that was used [tiles] (int64).
    """
    tile = fetch_increment(counter)
    while tile < offsets.size - 1:
        _forward_tile(tile, offsets, entries, records, size, channels, outputs)
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
def transpose_tile(source, start, target, target_start):
    """Copy the pixels of a tile from the order of blocks to rows of 16, or the other way round.

    Args:
        source: a scratch buffer.
        start: of the tile in `source`.
        target: a scratch buffer.
        target_start: of the tile in `target`.
    """
    for i in range(0, TILE_PIXELS, BLOCK_SIDE * WIDTH):
        quads = transpose_quads(
            load(source, start + i),
            load(source, start + i + WIDTH),
            load(source, start + i + 2 * WIDTH),
            load(source, start + i + 3 * WIDTH),
        )
        for j in range(BLOCK_SIDE):
            store(target, target_start + i + j * WIDTH, quads[j])


@kernel()
def pixel_centres(x0, y0, xs, ys):
    """Fill scratch buffers of a tile with the pixel centres, px."""
    for block in range(WIDTH):
        x = np.float32(x0 + block % BLOCK_SIDE * BLOCK_SIDE) + _HALF
        y = np.float32(y0 + block // BLOCK_SIDE * BLOCK_SIDE) + _HALF
        store(xs, block * WIDTH, column_of_lane() + x)
        store(ys, block * WIDTH, row_of_lane() + y)


@kernel()
def _forward_tile(tile, offsets, entries, records, size, channels, outputs):
    """Blend one tile and write its pixels to `outputs`; arguments as in `blend_forward`."""
    image, depth, alpha, final_transmittance, last, used = outputs
    image_planes = len(channels) - (depth.size > 0)
    camera, x0, y0, columns, rows = tile_bounds(tile, size)
    xs, ys = scratch(TILE, (0,)), scratch(TILE, (0,))
    transmittance, last_blended = scratch(TILE, (0,)), scratch(TILE, (0,))
    blended = scratch(TILE, channels)
    pixel_centres(x0, y0, xs, ys)
    right, bottom = np.float32(x0 + columns), np.float32(y0 + rows)
    for i in range(0, TILE_PIXELS, WIDTH):
        # A negative T marks pixels outside the image as stopped.
        inside = (load(xs, i) < right) & (load(ys, i) < bottom)
        store(transmittance, i, select(inside, 1, -1))
        store(last_blended, i, 0 * iota())
        for d in range(len(channels)):
            store(blended, d * TILE_PIXELS + i, 0 * iota())
    used[tile] = _blend_list(
        entries[offsets[tile] : offsets[tile + 1]],
        records,
        xs,
        ys,
        channels,
        transmittance,
        last_blended,
        blended,
    )
    start = tile * TILE_PIXELS
    for i in range(0, TILE_PIXELS, WIDTH):
        value = load(transmittance, i)
        value = select(value < 0, 0 - value, value)
        store(transmittance, i, value)
        store(final_transmittance, start + i, value)
        store(last, start + i, load(last_blended, i))
    bounds = (camera, x0, y0, columns, rows)
    by_row = scratch(TILE, (0,))
    for d in range(image_planes):
        transpose_tile(blended, d * TILE_PIXELS, by_row, 0)
        _write_plane(by_row, bounds, size, d, image_planes, image)
    if depth.size > 0:
        transpose_tile(blended, image_planes * TILE_PIXELS, by_row, 0)
        _write_plane(by_row, bounds, size, 0, 1, depth)
    for i in range(0, TILE_PIXELS, WIDTH):
        store(transmittance, i, 1 - load(transmittance, i))
    transpose_tile(transmittance, 0, by_row, 0)
    _write_plane(by_row, bounds, size, 0, 1, alpha)


@kernel()
def _write_plane(by_row, bounds, size, plane, planes, image):
    """Write the pixels of a tile to a channel of an image.

    Args:
        by_row: [16, 16] scratch buffer.
        bounds: of the tile, from `tile_bounds`.
        size: (width, height) px.
        plane: index of the channel.
        planes: number of channels.
        image: flat [C, H, W, planes].
    """
    camera, x0, y0, columns, rows = bounds
    for y in range(rows):
        start = ((camera * size[1] + y0 + y) * size[0] + x0) * planes + plane
        for x in range(columns):
            image[np.uintp(start + x * planes)] = by_row[y * TILE + x]


@kernel()
def alpha_of_block(p, q, r, log2_opacity, dx, dy):
    """Return alpha of a block of pixels before the cap, and the mask where it is above the cut."""
    u, v = p * dx + q * dy, r * dy
    exponent = log2_opacity - u * u - v * v
    return exp2(exponent), exponent >= _CUT


@kernel()
def _blend_list(entries, records, xs, ys, channels, transmittance, last_blended, blended):
    """Blend the list of a tile into scratch buffers, front to back.

    Args:
        entries: the list of the tile.
        records: [instances, n].
        xs: pixel centres of the tile; all buffers are by block and pixel.
        ys: pixel centres of the tile.
        channels: as in `blend_forward`.
        transmittance: T, negative for stopped pixels.
        last_blended: position in the list, from one, of the last Gaussian before the pixel stopped.
        blended: the sums of weighted features, by channel, block and pixel.

    Returns:
        How many entries were used before all pixels stopped.
    """
    running = np.int64(_ALL_BLOCKS)
    for k in range(entries.size):
        prefetch_row(records, entries[min(k + PREFETCH_DISTANCE, entries.size - 1)] >> MASK_BITS)
        instance, blocks = entries[k] >> MASK_BITS, entries[k] & running
        entries[k] = instance << MASK_BITS | blocks
        x, y = records[instance, 0], records[instance, 1]
        p, q, r = records[instance, 2], records[instance, 3], records[instance, 4]
        log2_opacity = records[instance, 5]
        number = np.float32(k + 1)
        while blocks != 0:
            i = lowest_bit(blocks) * WIDTH
            blocks &= blocks - 1
            alpha, above_cut = alpha_of_block(
                p, q, r, log2_opacity, x - load(xs, i), y - load(ys, i)
            )
            alpha = select(above_cut, select(alpha < _MAX_ALPHA, alpha, _MAX_ALPHA), 0)
            before = load(transmittance, i)
            weight = alpha * before
            after = before - weight
            # False for stopped pixels too: T is negative before and after.
            active = after > _MIN_TRANSMITTANCE
            weight = select(active, weight, 0)
            stopped = select(before < 0, before, 0 - before)
            store(transmittance, i, select(active, after, stopped))
            store(last_blended, i, select(active, number, load(last_blended, i)))
            for d in range(len(channels)):
                index = d * TILE_PIXELS + i
                store(blended, index, load(blended, index) + records[instance, HEADER + d] * weight)
        if k % _STOP_TEST_INTERVAL == _STOP_TEST_INTERVAL - 1:
            running = np.int64(0)
            for block in range(WIDTH):
                going = mask_bits(load(transmittance, block * WIDTH) > 0) != 0
                running |= np.int64(going) << block
            if running == 0:
                return k + 1
    return entries.size
