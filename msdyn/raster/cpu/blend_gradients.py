"""CPU kernels of the gradients of blending: moments of each intersection, gathered by Gaussian.

The pass over the list of a tile starts at the last Gaussian that `blend_forward` used and recovers
the transmittance in front of each by division.

Reference: Kerbl et al. 2023.
"""

from __future__ import annotations

import numpy as np

from msdyn.jit import kernel
from msdyn.raster.contract import MAX_ALPHA
from msdyn.raster.cpu.bin import HEADER, MASK_BITS, TILE
from msdyn.raster.cpu.blend import (
    PREFETCH_DISTANCE,
    TILE_PIXELS,
    alpha_of_block,
    pixel_centres,
    tile_bounds,
    transpose_tile,
)
from msdyn.raster.cpu.lanes import WIDTH, iota, select
from msdyn.raster.cpu.lanes_blocks import lowest_bit, mask_bits, store_sums
from msdyn.raster.cpu.lanes_memory import fetch_increment, load, prefetch_row, scratch, store

__all__ = ["MOMENTS", "blend_backward", "gather_gradients"]

# Moments that the backward pass stores for each intersection, before the gradients of the features.
MOMENTS = 6

_MAX_ALPHA = np.float32(MAX_ALPHA)
_HALF, _ONE = np.float32(0.5), np.float32(1)
_MOMENT_BUFFERS = (0,) * MOMENTS
# Enough for the 32 channels of `rasterize.py` and the moments.
_GATHER_BUFFERS = (0, 0, 0)
# Instances between prefetching and use.
_GATHER_DISTANCE = 16


@kernel()
def blend_backward(
    _,
    counter,
    offsets,
    entries,
    records,
    size,
    channels,
    with_depth,
    saved,
    grads,
    sums,
):
    """Compute six moments and the gradients of the features for each intersection.

    For a Gaussian and a pixel let g = -dL/d(log alpha). The moments are the sums over the pixels of
    the tile of g, g dx, g dy, g dx^2, g dx dy and g dy^2, with (dx, dy) = mean - pixel centre. The
    gradients of mean, conic and opacity are linear in the moments, with coefficients that depend on
    the Gaussian alone, so `gather_gradients` can apply them after summing over tiles.

    Args:
        _: index of the thread.
        counter: `counter`, `offsets`, `entries`, `records`, `size` and `channels` are those of
            `blend_forward`.
        with_depth: whether the last channel is the depth.
        saved: the final T, the last positions and the used lengths, as filled by `blend_forward`.
        grads: gradients of image, depth and alpha, as in `blend_forward`; those that are all zero
            may be empty.
        sums: [intersections, n] to fill: the moments and the gradients of the features, in rows of
            whole cache lines.
    """
    tile = fetch_increment(counter)
    while tile < offsets.size - 1:
        _backward_tile(
            tile, offsets, entries, records, size, channels, with_depth, saved, grads, sums
        )
        tile = fetch_increment(counter)


@kernel()
def _backward_tile(tile, offsets, entries, records, size, channels, with_depth, saved, grads, sums):
    """Fill the rows of `sums` that belong to a tile; arguments as in `blend_backward`."""
    final_transmittance, last, used = saved
    camera, x0, y0, columns, rows = tile_bounds(tile, size)
    grad_image, grad_depth, grad_alpha = grads
    xs, ys = scratch(TILE, (0,)), scratch(TILE, (0,))
    transmittance, behind = scratch(TILE, (0,)), scratch(TILE, (0,))
    grad = scratch(TILE, channels)
    pixel_centres(x0, y0, xs, ys)
    start = tile * TILE_PIXELS
    for i in range(0, TILE_PIXELS, WIDTH):
        store(transmittance, i, load(final_transmittance, start + i))
        store(behind, i, 0 * iota())
        for d in range(len(channels)):
            store(grad, d * TILE_PIXELS + i, 0 * iota())
    bounds = (camera, x0, y0, columns, rows)
    by_row = scratch(TILE, (0,))
    # Whether any upstream gradient is nonzero.
    nonzero = False
    if grad_alpha.size > 0:
        nonzero |= _read_plane(grad_alpha, bounds, size, 0, 1, by_row)
        transpose_tile(by_row, 0, behind, 0)
        for i in range(0, TILE_PIXELS, WIDTH):
            store(behind, i, 0 - load(behind, i))
    planes = len(channels) - with_depth
    for d in range(planes if grad_image.size > 0 else 0):
        nonzero |= _read_plane(grad_image, bounds, size, d, planes, by_row)
        transpose_tile(by_row, 0, grad, d * TILE_PIXELS)
    if grad_depth.size > 0:
        nonzero |= _read_plane(grad_depth, bounds, size, 0, 1, by_row)
        transpose_tile(by_row, 0, grad, (len(channels) - 1) * TILE_PIXELS)
    start, end = offsets[tile], offsets[tile + 1]
    used_end = start + used[tile] if nonzero else start
    sums[used_end:end] = 0
    _unblend_list(
        entries[start:used_end],
        records,
        xs,
        ys,
        channels,
        transmittance,
        last,
        tile * TILE_PIXELS,
        behind,
        grad,
        sums[start:used_end],
    )


@kernel()
def _read_plane(image, bounds, size, plane, planes, by_row):
    """Read the pixels of a tile from a channel of an image; return whether any is not zero.

    Args:
        image: flat [C, H, W, planes].
        bounds: of the tile, from `tile_bounds`.
        size: (width, height) px.
        plane: index of the channel.
        planes: number of channels.
        by_row: [16, 16] scratch buffer to fill, with zeros outside the image.
    """
    camera, x0, y0, columns, rows = bounds
    if columns < TILE or rows < TILE:
        for i in range(0, TILE_PIXELS, WIDTH):
            store(by_row, i, 0 * iota())
    for y in range(rows):
        start = ((camera * size[1] + y0 + y) * size[0] + x0) * planes + plane
        for x in range(columns):
            by_row[y * TILE + x] = image[np.uintp(start + x * planes)]
    zeros = mask_bits(load(by_row, 0) <= 0) & mask_bits(load(by_row, 0) >= 0)
    for i in range(WIDTH, TILE_PIXELS, WIDTH):
        zeros &= mask_bits(load(by_row, i) <= 0) & mask_bits(load(by_row, i) >= 0)
    return zeros != (1 << WIDTH) - 1


@kernel()
def _unblend_list(
    entries, records, xs, ys, channels, transmittance, last, first, behind, grad, sums
):
    """Compute the moments and feature gradients of the list of a tile, back to front.

    With b the colour behind a Gaussian as seen from it, b = sum_j T_j alpha_j f_j / T over those
    behind, dL/d(alpha) = T (f - b) . upstream gradient: no division, and nothing cancels.

    Args:
        entries: the part of the tile's list that contributed to a pixel.
        records: [instances, n].
        xs: pixel centres of the tile; all buffers are by block and pixel.
        ys: pixel centres of the tile.
        channels: as in `blend_forward`.
        transmittance: T behind the current Gaussian.
        last: as filled by `blend_forward`.
        first: where the tile starts in `last`.
        behind: b . upstream gradient; before the last one, minus the upstream gradient of alpha.
        grad: upstream gradients of the channels, by channel, block and pixel.
        sums: [entries, n] to fill.
    """
    totals = scratch(1, _MOMENT_BUFFERS + channels)
    for k in range(entries.size - 1, -1, -1):
        prefetch_row(records, entries[max(k - PREFETCH_DISTANCE, 0)] >> MASK_BITS)
        instance, blocks = entries[k] >> MASK_BITS, entries[k] & ((1 << MASK_BITS) - 1)
        x, y = records[instance, 0], records[instance, 1]
        p, q, r = records[instance, 2], records[instance, 3], records[instance, 4]
        log2_opacity = records[instance, 5]
        number = np.float32(k + 1)
        sum_g, sum_gx, sum_gy = 0 * iota(), 0 * iota(), 0 * iota()
        sum_gxx, sum_gxy, sum_gyy = 0 * iota(), 0 * iota(), 0 * iota()
        for d in range(len(channels)):
            store(totals, (MOMENTS + d) * WIDTH, 0 * iota())
        while blocks != 0:
            i = lowest_bit(blocks) * WIDTH
            blocks &= blocks - 1
            dx, dy = x - load(xs, i), y - load(ys, i)
            alpha, blended = alpha_of_block(p, q, r, log2_opacity, dx, dy)
            uncapped = alpha <= _MAX_ALPHA
            blended = blended & (load(last, first + i) >= number)
            alpha = select(blended, select(uncapped, alpha, _MAX_ALPHA), 0)
            before = load(transmittance, i) / (_ONE - alpha)
            store(transmittance, i, before)
            weight = alpha * before
            dot = 0 * iota()
            for d in range(len(channels)):
                upstream = load(grad, d * TILE_PIXELS + i)
                dot = dot + records[instance, HEADER + d] * upstream
                index = (MOMENTS + d) * WIDTH
                store(totals, index, load(totals, index) + weight * upstream)
            later = load(behind, i)
            difference = later - dot
            store(behind, i, later - alpha * difference)
            # A capped alpha has no gradient.
            g = select(uncapped, weight * difference, 0)
            gx, gy = g * dx, g * dy
            sum_g, sum_gx, sum_gy = sum_g + g, sum_gx + gx, sum_gy + gy
            sum_gxx, sum_gxy = sum_gxx + gx * dx, sum_gxy + gx * dy
            sum_gyy = sum_gyy + gy * dy
        store(totals, 0 * WIDTH, sum_g)
        store(totals, 1 * WIDTH, sum_gx)
        store(totals, 2 * WIDTH, sum_gy)
        store(totals, 3 * WIDTH, sum_gxx)
        store(totals, 4 * WIDTH, sum_gxy)
        store(totals, 5 * WIDTH, sum_gyy)
        store_sums(totals, _MOMENT_BUFFERS + channels, sums, k * sums.shape[1])


@kernel()
def gather_gradients(
    first,
    end,
    spans,
    slots,
    sums,
    conics,
    opacities,
    with_depth,
    outputs,
):
    """Sum over the intersections of each instance and convert the moments to gradients.

    Args:
        first: the first instance.
        end: the end of the range, exclusive.
        spans: [instances, 2] from `bin_tiles`.
        slots: from `bin_tiles`.
        sums: [intersections, n] from `blend_backward`.
        conics: [instances, 3] px^-2.
        opacities: [instances, 1].
        with_depth: whether the last channel is the depth.
        outputs: gradients to fill: means2d [instances, 2], conics [instances, 3], opacities
            [instances, 1], features [instances, D], depths [instances, 1].
    """
    grad_means2d, grad_conics, grad_opacities, grad_features, grad_depths = outputs
    channels = grad_features.shape[1]
    total = scratch(1, _GATHER_BUFFERS)
    width = sums.shape[1]
    for i in range(first, end):
        later = min(i + _GATHER_DISTANCE, len(spans) - 1)
        for j in range(spans[later, 0], spans[later, 1]):
            prefetch_row(sums, slots[j])
        for column in range(0, width, WIDTH):
            values = 0 * iota()
            for j in range(spans[i, 0], spans[i, 1]):
                values = values + load(sums, slots[j] * width + column)
            store(total, column, values)
        # log alpha = log o - sigma with sigma = (A dx^2 + C dy^2) / 2 + B dx dy and the conic
        # (A, B, C), so g = dL/dsigma. All sums of a culled instance are zero.
        mx, my = total[1], total[2]
        grad_means2d[i, 0] = conics[i, 0] * mx + conics[i, 1] * my
        grad_means2d[i, 1] = conics[i, 1] * mx + conics[i, 2] * my
        grad_conics[i, 0] = _HALF * total[3]
        grad_conics[i, 1] = total[4]
        grad_conics[i, 2] = _HALF * total[5]
        visible = spans[i, 1] > spans[i, 0]
        opacity = opacities[i, 0] if visible else _ONE
        grad_opacities[i, 0] = -total[0] / opacity
        for d in range(channels):
            grad_features[i, d] = total[MOMENTS + d]
        grad_depths[i, 0] = total[MOMENTS + channels] if with_depth else 0
