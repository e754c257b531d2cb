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
from msdyn.raster.cpu.bin import HEADER, LOG2_CUT, MASK_BITS
from msdyn.raster.cpu.lanes import WIDTH, exp2, iota, select
from msdyn.raster.cpu.lanes_blocks import PAIR_BITS, append_pairs, mask_bits
from msdyn.raster.cpu.lanes_memory import (
    fetch_increment,
    load,
    prefetch_row,
    prefetch_to_write,
    scratch,
    scratch_bytes,
    scratch_integers,
    store,
)
from msdyn.raster.cpu.tile_pixels import (
    TILE,
    TILE_PIXELS,
    pixel_centres,
    prefetch_pixels,
    tile_bounds,
    transpose_tile,
    write_planes,
)

__all__ = [
    "AT_A_TIME",
    "GROUP",
    "PAIR_BUFFER",
    "PREFETCH_DISTANCE",
    "alpha_of_block",
    "blend_forward",
    "pair_of",
]

_CUT = np.float32(LOG2_CUT)
_MAX_ALPHA = np.float32(MAX_ALPHA)
_MIN_TRANSMITTANCE = np.float32(MIN_TRANSMITTANCE)
_ALL_BLOCKS = (1 << MASK_BITS) - 1
# Entries whose pairs of entry and block are listed together, after which blocks that have stopped
# are removed. A loop over the blocks of each entry would end unpredictably: one mispredicted branch
# takes as long as a block.
GROUP = 16
# Bytes of a buffer for the pairs of a group; `append_pairs` writes up to eight more.
PAIR_BUFFER = GROUP * WIDTH + 8
# Pairs whose alpha is computed together: it is a long chain of operations, and the processor has no
# room to start those of the next pairs meanwhile.
AT_A_TIME = 4
# List entries between prefetching a record and using it. Without prefetching, a third of the time
# is spent waiting for memory (100 000 Gaussians in random order).
PREFETCH_DISTANCE = 16


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
def _forward_tile(tile, offsets, entries, records, size, channels, outputs):
    """Blend one tile and write its pixels to `outputs`; arguments as in `blend_forward`."""
    image, depth, alpha, final_transmittance, last, used = outputs
    image_planes = len(channels) - (depth.size > 0)
    camera, x0, y0, columns, rows = tile_bounds(tile, size)
    xs, ys = scratch(TILE, (0,)), scratch(TILE, (0,))
    transmittance, last_blended = scratch(TILE, (0,)), scratch(TILE, (0,))
    blended = scratch(TILE, channels)
    pixel_centres(x0, y0, xs, ys)
    bounds, start = (camera, x0, y0, columns, rows), tile * TILE_PIXELS
    prefetch_pixels(image_planes, bounds, size, image)
    if depth.size > 0:
        prefetch_pixels(1, bounds, size, depth)
    prefetch_pixels(1, bounds, size, alpha)
    right, bottom = np.float32(x0 + columns), np.float32(y0 + rows)
    for i in range(0, TILE_PIXELS, WIDTH):
        prefetch_to_write(final_transmittance, start + i)
        prefetch_to_write(last, start + i)
        # A negative T marks pixels outside the image as stopped.
        inside = (load(xs, i) < right) & (load(ys, i) < bottom)
        store(transmittance, i, select(inside, 1, -1))
        store(last_blended, i, 0 * iota())
        for d in range(len(channels)):
            store(blended, d * TILE_PIXELS + i, 0 * iota())
    used[tile] = _blend_list(
        entries[offsets[tile] : offsets[tile + 1]],
        records,
        (xs, ys),
        channels,
        (transmittance, last_blended, blended),
    )
    for i in range(0, TILE_PIXELS, WIDTH):
        value = load(transmittance, i)
        value = select(value < 0, 0 - value, value)
        store(transmittance, i, value)
        store(final_transmittance, start + i, value)
        store(last, start + i, load(last_blended, i))
    for d in range(len(channels)):
        transpose_tile(blended, d * TILE_PIXELS, blended, d * TILE_PIXELS)
    write_planes(blended, 0, channels, depth.size > 0, bounds, size, image)
    if depth.size > 0:
        write_planes(blended, image_planes * TILE_PIXELS, (0,), False, bounds, size, depth)
    for i in range(0, TILE_PIXELS, WIDTH):
        store(transmittance, i, 1 - load(transmittance, i))
    transpose_tile(transmittance, 0, transmittance, 0)
    write_planes(transmittance, 0, (0,), False, bounds, size, alpha)


@kernel()
def alpha_of_block(records, i, dx, dy):
    """Return alpha of record i in a block before the cap, and the mask where it is above the cut.

    (dx, dy) is the mean less the pixel centres.
    """
    u, v = records[i, 2] * dx + records[i, 3] * dy, records[i, 4] * dy
    exponent = records[i, 5] - u * u - v * v
    return exp2(exponent), exponent >= _CUT


@kernel()
def pair_of(group, pair):
    """Return what a pair of a group refers to.

    Args:
        group: buffers of the pairs, as `append_pairs` writes them, and of the instances.
        pair: its index.

    Returns:
        The number of the entry in the group, the index of the first pixel of the block, and the
        instance.
    """
    pairs, instances = group
    j = np.uintp(pairs[pair]) >> np.uintp(PAIR_BITS)
    return j, np.int64(pairs[pair] & (WIDTH - 1)) * WIDTH, np.uintp(instances[j])


@kernel()
def _alpha_of_pair(group, pair, records, centres):
    """Return the capped alpha of a pair, zero below the cut."""
    _, i, instance = pair_of(group, pair)
    dx, dy = records[instance, 0] - load(centres[0], i), records[instance, 1] - load(centres[1], i)
    alpha, above_cut = alpha_of_block(records, instance, dx, dy)
    return select(above_cut, select(alpha < _MAX_ALPHA, alpha, _MAX_ALPHA), 0)


@kernel()
def _blend_pair(group, pair, records, alpha, numbers, channels, pixels):
    """Blend a pair into the pixels of its block; arguments as in `_blend_list`.

    Args:
        group: as for `pair_of`.
        pair: as for `pair_of`.
        records: [instances, n].
        alpha: of the pair.
        numbers: buffer of the positions of the entries of the group in the list, from one.
        channels: as in `blend_forward`.
        pixels: as in `_blend_list`.
    """
    transmittance, last_blended, blended = pixels
    j, i, instance = pair_of(group, pair)
    before = load(transmittance, i)
    weight = alpha * before
    after = before - weight
    # False for stopped pixels too: T is negative before and after.
    active = after > _MIN_TRANSMITTANCE
    weight = select(active, weight, 0)
    stopped = select(before < 0, before, 0 - before)
    store(transmittance, i, select(active, after, stopped))
    store(last_blended, i, select(active, numbers[j], load(last_blended, i)))
    for d in range(len(channels)):
        index = d * TILE_PIXELS + i
        feature = records[instance, HEADER + d]
        store(blended, index, load(blended, index) + feature * weight)


@kernel()
def _blend_list(entries, records, centres, channels, pixels):
    """Blend the list of a tile into scratch buffers, front to back.

    Args:
        entries: the list of the tile.
        records: [instances, n].
        centres: buffers of the pixel centres (x, y); all buffers are by block and pixel.
        channels: as in `blend_forward`.
        pixels: buffers of T, negative for stopped pixels; of the position in the list, from one, of
            the last Gaussian before the pixel stopped; and of the sums of weighted features, by
            channel, block and pixel.

    Returns:
        How many entries were used before all pixels stopped.
    """
    pairs, instances = scratch_bytes(PAIR_BUFFER), scratch_integers(GROUP)
    group, numbers = (pairs, instances), scratch(1, (0,))
    running = np.int64(_ALL_BLOCKS)
    for first in range(0, entries.size, GROUP):
        store(numbers, 0, iota() + np.float32(first + 1))
        count = np.int64(0)
        for j in range(min(GROUP, entries.size - first)):
            k = np.uintp(first + j)
            later = entries[np.uintp(min(first + j + PREFETCH_DISTANCE, entries.size - 1))]
            prefetch_row(records, later >> MASK_BITS)
            instances[j], blocks = entries[k] >> MASK_BITS, entries[k] & running
            entries[k] = instances[j] << MASK_BITS | blocks
            count = append_pairs(pairs, count, blocks, np.int64(j))
        end = count - count % AT_A_TIME
        for pair in range(0, end, AT_A_TIME):
            alphas = (
                _alpha_of_pair(group, pair, records, centres),
                _alpha_of_pair(group, pair + 1, records, centres),
                _alpha_of_pair(group, pair + 2, records, centres),
                _alpha_of_pair(group, pair + 3, records, centres),
            )
            for n in range(AT_A_TIME):
                _blend_pair(group, pair + n, records, alphas[n], numbers, channels, pixels)
        for pair in range(end, count):
            alpha = _alpha_of_pair(group, pair, records, centres)
            _blend_pair(group, pair, records, alpha, numbers, channels, pixels)
        running = np.int64(0)
        for block in range(WIDTH):
            going = mask_bits(load(pixels[0], block * WIDTH) > 0) != 0
            running |= np.int64(going) << block
        if running == 0:
            return min(first + GROUP, entries.size)
    return entries.size
