"""CPU kernels that blend the listed Gaussians of each tile, forward and backward.

Each row of a tile is one value of `Lanes`. With alpha_i = min(0.999, o_i 2^-(a dx^2 + b dx dy +
c dy^2)), taken as zero below 1/255, and T_i the product of (1 - alpha_j) in front of i:

    image = sum_i T_i alpha_i f_i          and T is what is left of the background's light.

A pixel is finished when T would fall to 1e-4, and that Gaussian is not drawn there. Then T keeps
its value with a minus sign, by which the pixel takes nothing more.

The number of channels comes as a tuple of that length: it is then part of the type, and the loops
over channels are unrolled.

Reference: gsplat 1.5.3, `rasterize_to_pixels`, for the rules; Kerbl et al. 2023 for going backward
from the last Gaussian.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from msdyn.jit import kernel
from msdyn.raster.contract import MAX_ALPHA, MIN_TRANSMITTANCE
from msdyn.raster.cpu.bin import HEADER, LOG2_CUT, TILE
from msdyn.raster.cpu.lanes import WIDTH, exp2, iota, largest, select, total
from msdyn.raster.cpu.lanes_memory import claim, load, prefetch_row, scratch, store

__all__ = ["MOMENTS", "blend_backward", "blend_forward", "gather_gradients"]

# Sums over pixels that the backward pass keeps of each intersection, before those of the features.
MOMENTS = 6

_CUT = np.float32(LOG2_CUT)
_MAX_ALPHA = np.float32(MAX_ALPHA)
_LEAST_LEFT = np.float32(MIN_TRANSMITTANCE)
_HALF, _ONE = np.float32(0.5), np.float32(1)
# How far rounding may take log2(alpha) above that of the opacity. Beyond it the conic of a needle
# is not positive along some line, and nothing is drawn there, as in gsplat.
_ABOVE = np.float32(1e-4)
# Gaussians between two looks at whether a tile is finished.
_LOOK_EVERY = 16
# Records asked for before their turn: without it a third of the time is waiting for memory
# (100 000 Gaussians in random order); 4 to 12 are alike.
_AHEAD = 6


@kernel()
def _approach(ranks, k, later, records, x, y):
    """Return a record, and what is the same for all pixels of a tile or of a column.

    Args:
        ranks: the tile's list.
        k: place in the list.
        later: another, to be asked for soon.
        records: all records.
        x: centre of the tile's first pixel, px.
        y: the same.

    Returns:
        The record; the first row that it reaches and one after the last; and for each column dx,
        and u and v such that log2(alpha) = u - v dy - c dy^2.
    """
    prefetch_row(records, ranks[min(max(later, 0), ranks.size - 1)])
    record = records[ranks[k]]
    first = max(0, int(np.ceil(record[1] - record[7] - y)))
    last = min(TILE - 1, int(np.floor(record[1] + record[7] - y)))
    dx = record[0] - (iota() + x)
    return record, first, last + 1, dx, record[5] - record[2] * dx * dx, record[3] * dx


@kernel()
def _alpha(record, u, v, dy):
    """Return alpha of a row of pixels, not yet capped, and where it reaches the cut."""
    exponent = u - v * dy - record[4] * dy * dy
    return exp2(exponent), (exponent >= _CUT) & (exponent <= record[5] + _ABOVE)


@kernel(parallel=True)
def blend_forward(offsets, ranks, records, size, channels, workers, outputs):
    """Blend every tile.

    Args:
        offsets: [tiles + 1] of `bin_tiles`.
        ranks: [intersections] of `bin_tiles`.
        records: [ranks, 8 + D] of `pack_records`.
        size: (width, height) px.
        channels: a tuple, as long as there are channels in the records.
        workers: how many tiles to work on at once.
        outputs: arrays to fill. The image [C, H, W, D] of the first channels; the depth
            [C, H, W, 1], which is the last channel, or [C, H, W, 0]; alpha [C, H, W]; and for the
            backward pass T [C, H, W] and the number of the last Gaussian of the tile's list that a
            pixel took, counted from one, zero where it took none, [C, H, W] float32.
    """
    counter = np.empty(1, np.int64)
    counter[0] = 0
    for _ in prange(workers):
        tile = claim(counter)
        while tile < offsets.size - 1:
            _forward_tile(tile, offsets, ranks, records, size, channels, outputs)
            tile = claim(counter)


@kernel()
def _place(tile, size):
    """Return a tile's camera, its first column and row of pixels, and how many it has of each."""
    width, height = size
    tiles_x, tiles_y = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    camera, within = tile // (tiles_x * tiles_y), tile % (tiles_x * tiles_y)
    x, y = within % tiles_x * TILE, within // tiles_x * TILE
    return camera, x, y, min(TILE, width - x), min(TILE, height - y)


@kernel()
def _forward_tile(tile, offsets, ranks, records, size, channels, outputs):
    image, depth, alpha, left, last = outputs
    camera, x0, y0, columns, rows = _place(tile, size)
    light, taken = scratch(TILE, (0,)), scratch(TILE, (0,))
    colour = scratch(TILE, channels)
    for y in range(TILE):
        # Pixels outside the image are finished from the start.
        inside = iota() < (columns if y < rows else 0)
        store(light, y * WIDTH, select(inside, 1, -1))
        store(taken, y * WIDTH, 0 * iota())
        for d in range(len(channels)):
            store(colour, (d * TILE + y) * WIDTH, 0 * iota())
    _blend_tile(
        ranks[offsets[tile] : offsets[tile + 1]], records, x0, y0, channels, light, taken, colour
    )
    for y in range(rows):
        for x in range(columns):
            i = y * WIDTH + x
            left[camera, y0 + y, x0 + x] = abs(light[i])
            alpha[camera, y0 + y, x0 + x] = _ONE - abs(light[i])
            last[camera, y0 + y, x0 + x] = taken[i]
            for d in range(image.shape[3]):
                image[camera, y0 + y, x0 + x, d] = colour[d * TILE * WIDTH + i]
            for d in range(depth.shape[3]):
                depth[camera, y0 + y, x0 + x, d] = colour[(len(channels) - 1) * TILE * WIDTH + i]


@kernel()
def _blend_tile(ranks, records, x0, y0, channels, light, taken, colour):
    """Blend one tile's list into T `light`, the numbers `taken` and the sums `colour`."""
    x, y = np.float32(x0) + _HALF, np.float32(y0) + _HALF
    for k in range(ranks.size):
        record, first, end, _, u, v = _approach(ranks, k, k + _AHEAD, records, x, y)
        number = np.float32(k + 1)
        for row in range(first, end):
            alpha, seen = _alpha(record, u, v, record[1] - (y + np.float32(row)))
            alpha = select(seen, select(alpha < _MAX_ALPHA, alpha, _MAX_ALPHA), 0)
            before = load(light, row * WIDTH)
            weight = alpha * before
            after = before - weight
            open_ = after > _LEAST_LEFT
            weight = select(open_, weight, 0)
            closed = select(before < 0, before, 0 - before)
            store(light, row * WIDTH, select(open_, after, closed))
            was = load(taken, row * WIDTH)
            store(taken, row * WIDTH, select(open_ & seen, number, was))
            for d in range(len(channels)):
                place = (d * TILE + row) * WIDTH
                store(colour, place, load(colour, place) + record[HEADER + d] * weight)
        if k % _LOOK_EVERY == _LOOK_EVERY - 1:
            most = load(light, 0)
            for row in range(1, TILE):
                other = load(light, row * WIDTH)
                most = select(other > most, other, most)
            if largest(most) < 0:
                break


@kernel(parallel=True)
def blend_backward(offsets, ranks, records, size, channels, workers, left, last, grads, sums):
    """Sum what the gradients of each intersection are made of.

    For each pixel let g = -dL/d(log alpha). The six moments are the sums of g, g dx, g dy, g dx^2,
    g dx dy and g dy^2, (dx, dy) = mean - pixel centre; the gradients of mean, conic and opacity are
    linear in them with coefficients that are the Gaussian's own.

    Args:
        offsets: and the next five as in `blend_forward`.
        left: [C, H, W], T as filled by it.
        last: [C, H, W], as filled by it.
        grads: gradients of its first three outputs.
        sums: [intersections, 6 + D] to fill: the moments and the gradients of the features.
    """
    counter = np.empty(1, np.int64)
    counter[0] = 0
    for _ in prange(workers):
        tile = claim(counter)
        while tile < offsets.size - 1:
            _backward_tile(tile, offsets, ranks, records, size, channels, left, last, grads, sums)
            tile = claim(counter)


@kernel()
def _backward_tile(tile, offsets, ranks, records, size, channels, left, last, grads, sums):
    camera, x0, y0, columns, rows = _place(tile, size)
    grad_image, grad_depth, grad_alpha = grads
    light, taken, behind = scratch(TILE, (0,)), scratch(TILE, (0,)), scratch(TILE, (0,))
    grad = scratch(TILE, channels)
    for y in range(TILE):
        store(light, y * WIDTH, 0 * iota() + 1)
        store(taken, y * WIDTH, 0 * iota())
        store(behind, y * WIDTH, 0 * iota())
        for d in range(len(channels)):
            store(grad, (d * TILE + y) * WIDTH, 0 * iota())
    used, wanted = np.float32(0), False
    for y in range(rows):
        for x in range(columns):
            i = y * WIDTH + x
            light[i] = left[camera, y0 + y, x0 + x]
            taken[i] = last[camera, y0 + y, x0 + x]
            used = max(used, taken[i])
            upstream = grad_alpha[camera, y0 + y, x0 + x]
            wanted |= upstream != 0
            behind[i] = -light[i] * upstream
            for d in range(grad_image.shape[3]):
                upstream = grad_image[camera, y0 + y, x0 + x, d]
                wanted |= upstream != 0
                grad[d * TILE * WIDTH + i] = upstream
            for d in range(grad_depth.shape[3]):
                upstream = grad_depth[camera, y0 + y, x0 + x, d]
                wanted |= upstream != 0
                grad[(len(channels) - 1) * TILE * WIDTH + i] = upstream
    if not wanted:
        used = np.float32(0)
    start, end, used_end = offsets[tile], offsets[tile + 1], offsets[tile] + int(used)
    sums[used_end:end] = 0
    _unblend_tile(
        ranks[start:used_end],
        records,
        x0,
        y0,
        channels,
        light,
        taken,
        behind,
        grad,
        sums[start:used_end],
    )


@kernel()
def _unblend_tile(ranks, records, x0, y0, channels, light, taken, behind, grad, sums):
    """Go through one tile's list from its end.

    `light` is T after the Gaussian at hand, `behind` what the ones behind it add to the loss.
    """
    x, y = np.float32(x0) + _HALF, np.float32(y0) + _HALF
    grad_feature = scratch(1, channels)
    for k in range(ranks.size - 1, -1, -1):
        record, first, end, dx, u, v = _approach(ranks, k, k - _AHEAD, records, x, y)
        number = np.float32(k + 1)
        # Sums over the rows of g, g dy and g dy^2; dx is the same in all rows and comes in later.
        sum_g, sum_gy, sum_gyy = 0 * iota(), 0 * iota(), 0 * iota()
        for d in range(len(channels)):
            store(grad_feature, d * WIDTH, 0 * iota())
        for row in range(first, end):
            dy = record[1] - (y + np.float32(row))
            alpha, seen = _alpha(record, u, v, dy)
            free = alpha <= _MAX_ALPHA
            seen = seen & (load(taken, row * WIDTH) >= number)
            alpha = select(seen, select(free, alpha, _MAX_ALPHA), 0)
            one_over = _ONE / (_ONE - alpha)
            before = load(light, row * WIDTH) * one_over
            store(light, row * WIDTH, before)
            weight = alpha * before
            dot = 0 * iota()
            for d in range(len(channels)):
                upstream = load(grad, (d * TILE + row) * WIDTH)
                dot = dot + record[HEADER + d] * upstream
                place = d * WIDTH
                store(grad_feature, place, load(grad_feature, place) + weight * upstream)
            later = load(behind, row * WIDTH)
            store(behind, row * WIDTH, later + weight * dot)
            # The cap has no gradient.
            g = select(free, alpha * (later * one_over - before * dot), 0)
            sum_g = sum_g + g
            sum_gy = sum_gy + g * dy
            sum_gyy = sum_gyy + g * (dy * dy)
        row_sums = sums[k]
        row_sums[0] = total(sum_g)
        row_sums[1] = total(sum_g * dx)
        row_sums[2] = total(sum_gy)
        row_sums[3] = total(sum_g * dx * dx)
        row_sums[4] = total(sum_gy * dx)
        row_sums[5] = total(sum_gyy)
        for d in range(len(channels)):
            row_sums[MOMENTS + d] = total(load(grad_feature, d * WIDTH))


@kernel(parallel=True)
def gather_gradients(order, starts, ends, slots, sums, conics, opacities, with_depth, outputs):
    """Add up each instance's intersections and turn the moments into gradients.

    Args:
        order: [ranks] instances.
        starts: and `ends` and `slots`, of `bin_tiles`.
        sums: [intersections, 6 + D] of `blend_backward`.
        conics: [instances, 3].
        opacities: [G, 1].
        with_depth: the last channel is the depth.
        outputs: gradients, all zero before: means2d [instances, 2], conics [instances, 3],
            opacities [instances, 1], features [instances, D], depths [instances, 1].
    """
    grad_means2d, grad_conics, grad_opacities, grad_features, grad_depths = outputs
    channels = grad_features.shape[1]
    for rank in prange(order.size):
        later = min(rank + 2 * _AHEAD, order.size - 1)
        i = order[later]
        prefetch_row(conics, i)
        prefetch_row(opacities, i % opacities.shape[0])
        prefetch_row(grad_means2d, i)
        prefetch_row(grad_conics, i)
        prefetch_row(grad_opacities, i)
        prefetch_row(grad_features, i)
        prefetch_row(grad_depths, i)
        for j in range(starts[later], ends[later]):
            prefetch_row(sums, slots[j])
        i = order[rank]
        m0 = mx = my = mxx = mxy = myy = depth = 0.0
        for j in range(starts[rank], ends[rank]):
            row = sums[slots[j]]
            m0 += row[0]
            mx += row[1]
            my += row[2]
            mxx += row[3]
            mxy += row[4]
            myy += row[5]
            for d in range(channels):
                grad_features[i, d] += row[MOMENTS + d]
            if with_depth:
                depth += row[MOMENTS + channels]
        # log alpha = log o - sigma, sigma = (A dx^2 + C dy^2) / 2 + B dx dy, and g = dL/dsigma.
        grad_means2d[i, 0] = conics[i, 0] * mx + conics[i, 1] * my
        grad_means2d[i, 1] = conics[i, 1] * mx + conics[i, 2] * my
        grad_conics[i, 0] = 0.5 * mxx
        grad_conics[i, 1] = mxy
        grad_conics[i, 2] = 0.5 * myy
        grad_opacities[i, 0] = -m0 / opacities[i % opacities.shape[0], 0]
        grad_depths[i, 0] = depth
