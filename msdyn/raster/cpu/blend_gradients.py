"""CPU kernels of the gradients of blending: moments of each intersection, gathered by Gaussian.

The pass over the list of a tile starts at the last Gaussian that `blend_forward` used and recovers
the transmittance in front of each by division.

Reference: Kerbl et al. 2023.
"""

from __future__ import annotations

import numpy as np

from msdyn.jit import kernel
from msdyn.raster.contract import MAX_ALPHA
from msdyn.raster.cpu.bin import HEADER, MASK_BITS
from msdyn.raster.cpu.blend import (
    AT_A_TIME,
    GROUP,
    PAIR_BUFFER,
    PREFETCH_DISTANCE,
    alpha_of_block,
    pair_of,
)
from msdyn.raster.cpu.lanes import WIDTH, iota, select
from msdyn.raster.cpu.lanes_blocks import append_pairs, store_sums
from msdyn.raster.cpu.lanes_memory import (
    fetch_increment,
    load,
    prefetch_row,
    scratch,
    scratch_bytes,
    scratch_integers,
    store,
)
from msdyn.raster.cpu.tile_pixels import (
    TILE,
    TILE_PIXELS,
    pixel_centres,
    read_planes,
    tile_bounds,
    transpose_tile,
)

__all__ = ["MOMENTS", "blend_backward", "gather_gradients"]

# Moments that the backward pass stores for each intersection, before the gradients of the features.
MOMENTS = 6

_MAX_ALPHA = np.float32(MAX_ALPHA)
_HALF, _ONE = np.float32(0.5), np.float32(1)
_MOMENT_BUFFERS = (0,) * MOMENTS
# Of a pair: alpha and what follows from it.
_VALUES = (0, 0, 0)
_ALL_BLOCKS = (1 << MASK_BITS) - 1
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
    last_blended, grad = scratch(TILE, (0,)), scratch(TILE, channels)
    pixel_centres(x0, y0, xs, ys)
    start = tile * TILE_PIXELS
    for i in range(0, TILE_PIXELS, WIDTH):
        store(transmittance, i, load(final_transmittance, start + i))
        store(last_blended, i, load(last, start + i))
        store(behind, i, 0 * iota())
        for d in range(len(channels)):
            store(grad, d * TILE_PIXELS + i, 0 * iota())
    bounds = (camera, x0, y0, columns, rows)
    # Whether any upstream gradient is nonzero.
    nonzero = False
    if grad_alpha.size > 0:
        nonzero |= read_planes(grad_alpha, (0,), False, bounds, size, behind)
        transpose_tile(behind, 0, behind, 0)
        for i in range(0, TILE_PIXELS, WIDTH):
            store(behind, i, 0 - load(behind, i))
    if grad_depth.size > 0:
        # The last channel; the others follow below.
        nonzero |= read_planes(grad_depth, (0,), False, bounds, size, grad)
        for i in range(0, TILE_PIXELS, WIDTH):
            store(grad, (len(channels) - 1) * TILE_PIXELS + i, load(grad, i))
            if len(channels) > 1:
                store(grad, i, 0 * iota())
    if grad_image.size > 0:
        nonzero |= read_planes(grad_image, channels, with_depth, bounds, size, grad)
    for d in range(len(channels)):
        transpose_tile(grad, d * TILE_PIXELS, grad, d * TILE_PIXELS)
    start, end = offsets[tile], offsets[tile + 1]
    used_end = start + used[tile] if nonzero else start
    sums[used_end:end] = 0
    _unblend_list(
        entries[start:used_end],
        records,
        channels,
        (xs, ys, last_blended, grad, transmittance, behind),
        sums[start:used_end],
    )


@kernel()
def _alpha_and_gradient(group, pair, records, numbers, channels, pixels):
    """Return alpha, 1 / (1 - alpha), and the features times the upstream gradient, of a pair.

    Args:
        group: as for `pair_of`.
        pair: as for `pair_of`.
        records: [instances, n].
        numbers: buffer of the positions of the entries of the group in the list, from one.
        channels: as in `blend_forward`.
        pixels: as in `_unblend_list`.
    """
    xs, ys, last, grad, _, _ = pixels
    j, i, instance = pair_of(group, pair)
    dx, dy = records[instance, 0] - load(xs, i), records[instance, 1] - load(ys, i)
    alpha, blended = alpha_of_block(records, instance, dx, dy)
    blended = blended & (load(last, i) >= numbers[j])
    alpha = select(blended, select(alpha < _MAX_ALPHA, alpha, _MAX_ALPHA), 0)
    dot = 0 * iota()
    for d in range(len(channels)):
        dot = dot + records[instance, HEADER + d] * load(grad, d * TILE_PIXELS + i)
    return alpha, _ONE / (_ONE - alpha), dot


@kernel()
def _store_values(values, buffer, pair):
    """Write the three values of a pair to a buffer."""
    for n in range(3):
        store(buffer, (3 * pair + n) * WIDTH, values[n])


@kernel()
def _unblend_list(entries, records, channels, pixels, sums):
    """Compute the moments and feature gradients of the list of a tile, back to front.

    With b the colour behind a Gaussian as seen from it, b = sum_j T_j alpha_j f_j / T over those
    behind, dL/d(alpha) = T (f - b) . upstream gradient: nothing cancels.

    Args:
        entries: the part of the tile's list that contributed to a pixel.
        records: [instances, n].
        channels: as in `blend_forward`.
        pixels: buffers by block and pixel: x and y of the centres; the last position, as filled by
            `blend_forward`; upstream gradients by channel; T behind the current Gaussian; and
            b . upstream gradient, before the last Gaussian minus the upstream gradient of alpha.
        sums: [entries, n] to fill.
    """
    xs, ys, _, grad, transmittance, behind = pixels
    totals = scratch(1, _MOMENT_BUFFERS + channels)
    pairs, instances, ends = (
        scratch_bytes(PAIR_BUFFER),
        scratch_integers(GROUP),
        scratch_integers(GROUP),
    )
    group, numbers = (pairs, instances), scratch(1, (0,))
    buffer = scratch(PAIR_BUFFER, _VALUES)
    for end in range(entries.size, 0, -GROUP):
        # Entry end - 1 - j has the number j in its group.
        store(numbers, 0, np.float32(end) - iota())
        members, count = min(GROUP, end), np.int64(0)
        for j in range(members):
            k = np.uintp(end - 1 - j)
            later = entries[np.uintp(max(end - 1 - j - PREFETCH_DISTANCE, 0))]
            prefetch_row(records, later >> MASK_BITS)
            instances[j] = entries[k] >> MASK_BITS
            count = append_pairs(pairs, count, entries[k] & _ALL_BLOCKS, np.int64(j))
            ends[j] = count
        whole = count - count % AT_A_TIME
        for pair in range(0, whole, AT_A_TIME):
            values = (
                _alpha_and_gradient(group, pair, records, numbers, channels, pixels),
                _alpha_and_gradient(group, pair + 1, records, numbers, channels, pixels),
                _alpha_and_gradient(group, pair + 2, records, numbers, channels, pixels),
                _alpha_and_gradient(group, pair + 3, records, numbers, channels, pixels),
            )
            for n in range(AT_A_TIME):
                _store_values(values[n], buffer, pair + n)
        for pair in range(whole, count):
            value = _alpha_and_gradient(group, pair, records, numbers, channels, pixels)
            _store_values(value, buffer, pair)
        pair = 0
        for j in range(members):
            instance = np.uintp(instances[j])
            x, y = records[instance, 0], records[instance, 1]
            sum_g, sum_gx, sum_gy = 0 * iota(), 0 * iota(), 0 * iota()
            sum_gxx, sum_gxy, sum_gyy = 0 * iota(), 0 * iota(), 0 * iota()
            for d in range(len(channels)):
                store(totals, (MOMENTS + d) * WIDTH, 0 * iota())
            while pair < ends[j]:
                i, value = np.int64(pairs[pair] & (WIDTH - 1)) * WIDTH, 3 * pair * WIDTH
                alpha = load(buffer, value)
                before = load(transmittance, i) * load(buffer, value + WIDTH)
                store(transmittance, i, before)
                weight = alpha * before
                for d in range(len(channels)):
                    index = (MOMENTS + d) * WIDTH
                    upstream = load(grad, d * TILE_PIXELS + i)
                    store(totals, index, load(totals, index) + weight * upstream)
                farther = load(behind, i)
                difference = farther - load(buffer, value + 2 * WIDTH)
                store(behind, i, farther - alpha * difference)
                # A capped alpha has no gradient.
                g = select(alpha < _MAX_ALPHA, weight * difference, 0)
                dx, dy = x - load(xs, i), y - load(ys, i)
                gx, gy = g * dx, g * dy
                sum_g, sum_gx, sum_gy = sum_g + g, sum_gx + gx, sum_gy + gy
                sum_gxx, sum_gxy = sum_gxx + gx * dx, sum_gxy + gx * dy
                sum_gyy = sum_gyy + gy * dy
                pair += 1
            store(totals, 0 * WIDTH, sum_g)
            store(totals, 1 * WIDTH, sum_gx)
            store(totals, 2 * WIDTH, sum_gy)
            store(totals, 3 * WIDTH, sum_gxx)
            store(totals, 4 * WIDTH, sum_gxy)
            store(totals, 5 * WIDTH, sum_gyy)
            row = (end - 1 - j) * sums.shape[1]
            store_sums(totals, 0, _MOMENT_BUFFERS + channels, sums, row)


@kernel()
def _row_if(wanted, sums, index):
    """Return 16 numbers of an array, or zeros; they are read in both cases."""
    return select(np.float32(wanted) + 0 * iota() > 0, load(sums, index), 0)


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
    for k in range(first, end):
        i = np.uintp(k)
        start, count = spans[i, 0], spans[i, 1] - spans[i, 0]
        if slots.size > 0:
            later = spans[np.uintp(min(k + _GATHER_DISTANCE, len(spans) - 1)), 0]
            prefetch_row(sums, slots[np.uintp(min(later, slots.size - 1))])
        for column in range(0, width, WIDTH):
            values = 0 * iota()
            if len(sums) > 0:
                # Without branches for one and two: how many there are is unpredictable.
                one, two = count > 0, count > 1
                row = slots[np.uintp(start if one else 0)] if one else 0
                other = slots[np.uintp(start + 1 if two else 0)] if two else 0
                values = values + _row_if(one, sums, row * width + column)
                values = values + _row_if(two, sums, other * width + column)
                for j in range(start + 2, start + count):
                    values = values + load(sums, slots[np.uintp(j)] * width + column)
            store(total, column, values)
        # log alpha = log o - sigma with sigma = (A dx^2 + C dy^2) / 2 + B dx dy and the conic
        # (A, B, C), so g = dL/dsigma. All sums of a culled instance are zero.
        mx, my = total[1], total[2]
        grad_means2d[i, 0] = conics[i, 0] * mx + conics[i, 1] * my
        grad_means2d[i, 1] = conics[i, 1] * mx + conics[i, 2] * my
        grad_conics[i, 0] = _HALF * total[3]
        grad_conics[i, 1] = total[4]
        grad_conics[i, 2] = _HALF * total[5]
        opacity = opacities[i, 0] if count > 0 else _ONE
        grad_opacities[i, 0] = -total[0] / opacity
        for d in range(channels):
            grad_features[i, d] = total[MOMENTS + d]
        grad_depths[i, 0] = total[MOMENTS + channels] if with_depth else 0
