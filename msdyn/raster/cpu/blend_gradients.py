"""CPU kernels of the gradients of blending: moments of each intersection, gathered by Gaussian.

The pass over the list of a tile starts at the last Gaussian that `blend_forward` used and recovers
the transmittance in front of each by division.

Reference: Kerbl et al. 2023.
"""

from __future__ import annotations

import numpy as np

from msdyn.jit import kernel
from msdyn.raster.contract import MAX_ALPHA
from msdyn.raster.cpu.bin import HEADER, TILE
from msdyn.raster.cpu.blend import PREFETCH_DISTANCE, alpha_of_row, load_gaussian, tile_bounds
from msdyn.raster.cpu.lanes import WIDTH, iota, reduce_sum, select
from msdyn.raster.cpu.lanes_memory import fetch_increment, load, prefetch_row, scratch, store

__all__ = ["MOMENTS", "blend_backward", "gather_gradients"]

# Moments that the backward pass stores for each intersection, before the gradients of the features.
MOMENTS = 6

_MAX_ALPHA = np.float32(MAX_ALPHA)
_HALF, _ONE = np.float32(0.5), np.float32(1)


@kernel()
def blend_backward(
    _,
    counter,
    offsets,
    ranks,
    records,
    size,
    channels,
    final_transmittance,
    last,
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
        counter: `counter`, `offsets`, `ranks`, `records`, `size` and `channels` are those of
            `blend_forward`.
        final_transmittance: [C, H, W], as filled by `blend_forward`.
        last: [C, H, W], as filled by `blend_forward`.
        grads: gradients of image, depth and alpha, in the shapes of `blend_forward`.
        sums: [intersections, 6 + channels] to fill: the moments and the gradients of the features.
    """
    tile = fetch_increment(counter)
    while tile < offsets.size - 1:
        _backward_tile(
            tile, offsets, ranks, records, size, channels, final_transmittance, last, grads, sums
        )
        tile = fetch_increment(counter)


@kernel()
def _backward_tile(
    tile, offsets, ranks, records, size, channels, final_transmittance, last, grads, sums
):
    """Fill the rows of `sums` that belong to a tile; arguments as in `blend_backward`."""
    camera, x0, y0, columns, rows = tile_bounds(tile, size)
    grad_image, grad_depth, grad_alpha = grads
    transmittance, last_blended = scratch(TILE, (0,)), scratch(TILE, (0,))
    behind = scratch(TILE, (0,))
    grad = scratch(TILE, channels)
    for y in range(TILE):
        store(transmittance, y * WIDTH, 0 * iota() + 1)
        store(last_blended, y * WIDTH, 0 * iota())
        store(behind, y * WIDTH, 0 * iota())
        for d in range(len(channels)):
            store(grad, (d * TILE + y) * WIDTH, 0 * iota())
    # The longest prefix of the list that a pixel used; whether any upstream gradient is nonzero.
    used, nonzero = np.float32(0), False
    for y in range(rows):
        for x in range(columns):
            i = y * WIDTH + x
            transmittance[i] = final_transmittance[camera, y0 + y, x0 + x]
            last_blended[i] = last[camera, y0 + y, x0 + x]
            used = max(used, last_blended[i])
            upstream = grad_alpha[camera, y0 + y, x0 + x]
            nonzero |= upstream != 0
            behind[i] = -transmittance[i] * upstream
            for d in range(grad_image.shape[3]):
                upstream = grad_image[camera, y0 + y, x0 + x, d]
                nonzero |= upstream != 0
                grad[d * TILE * WIDTH + i] = upstream
            for d in range(grad_depth.shape[3]):
                upstream = grad_depth[camera, y0 + y, x0 + x, d]
                nonzero |= upstream != 0
                grad[(len(channels) - 1) * TILE * WIDTH + i] = upstream
    if not nonzero:
        used = np.float32(0)
    start, end, used_end = offsets[tile], offsets[tile + 1], offsets[tile] + int(used)
    sums[used_end:end] = 0
    _unblend_list(
        ranks[start:used_end],
        records,
        x0,
        y0,
        channels,
        transmittance,
        last_blended,
        behind,
        grad,
        sums[start:used_end],
    )


@kernel()
def _unblend_list(
    ranks, records, x0, y0, channels, transmittance, last_blended, behind, grad, sums
):
    """Compute the moments and feature gradients of the list of a tile, back to front.

    Args:
        ranks: the part of the tile's list that contributed to a pixel.
        records: [ranks, 8 + channels].
        x0: column of the first pixel of the tile.
        y0: row of the first pixel of the tile.
        channels: as in `blend_forward`.
        transmittance: T behind the current Gaussian, by row and column.
        last_blended: as in `_blend_list`.
        behind: sum over the Gaussians behind the current one of weight times (features . upstream
            gradient), minus the final T times the upstream gradient of alpha.
        grad: upstream gradients of the channels, by channel, row and column.
        sums: [entries of the list, 6 + channels] to fill.
    """
    x, y = np.float32(x0) + _HALF, np.float32(y0) + _HALF
    grad_feature = scratch(1, channels)
    for k in range(ranks.size - 1, -1, -1):
        record, first, end, dx, u, v = load_gaussian(ranks, k, k - PREFETCH_DISTANCE, records, x, y)
        number = np.float32(k + 1)
        # Sums of g, g dy and g dy^2 over rows, per column; dx is constant in a column and is
        # multiplied after the loop.
        sum_g, sum_gy, sum_gyy = 0 * iota(), 0 * iota(), 0 * iota()
        for d in range(len(channels)):
            store(grad_feature, d * WIDTH, 0 * iota())
        for row in range(first, end):
            dy = record[1] - (y + np.float32(row))
            alpha, blended = alpha_of_row(record, u, v, dy)
            uncapped = alpha <= _MAX_ALPHA
            blended = blended & (load(last_blended, row * WIDTH) >= number)
            alpha = select(blended, select(uncapped, alpha, _MAX_ALPHA), 0)
            one_over = _ONE / (_ONE - alpha)
            before = load(transmittance, row * WIDTH) * one_over
            store(transmittance, row * WIDTH, before)
            weight = alpha * before
            dot = 0 * iota()
            for d in range(len(channels)):
                upstream = load(grad, (d * TILE + row) * WIDTH)
                dot = dot + record[HEADER + d] * upstream
                index = d * WIDTH
                store(grad_feature, index, load(grad_feature, index) + weight * upstream)
            later = load(behind, row * WIDTH)
            store(behind, row * WIDTH, later + weight * dot)
            # A capped alpha has no gradient.
            g = select(uncapped, alpha * (later * one_over - before * dot), 0)
            sum_g = sum_g + g
            sum_gy = sum_gy + g * dy
            sum_gyy = sum_gyy + g * (dy * dy)
        row_sums = sums[k]
        row_sums[0] = reduce_sum(sum_g)
        row_sums[1] = reduce_sum(sum_g * dx)
        row_sums[2] = reduce_sum(sum_gy)
        row_sums[3] = reduce_sum(sum_g * dx * dx)
        row_sums[4] = reduce_sum(sum_gy * dx)
        row_sums[5] = reduce_sum(sum_gyy)
        for d in range(len(channels)):
            row_sums[MOMENTS + d] = reduce_sum(load(grad_feature, d * WIDTH))


@kernel()
def gather_gradients(
    first_rank,
    end_rank,
    order,
    starts,
    ends,
    slots,
    sums,
    conics,
    opacities,
    with_depth,
    outputs,
):
    """Sum over the intersections of each instance and convert the moments to gradients.

    Args:
        first_rank: the first rank.
        end_rank: the end of the range, exclusive.
        order: [ranks] instances.
        starts: `starts`, `ends` and `slots` are those of `bin_tiles`.
        sums: [intersections, 6 + channels] from `blend_backward`.
        conics: [instances, 3] px^-2.
        opacities: [instances, 1], or [G, 1] if all cameras share them.
        with_depth: whether the last channel is the depth.
        outputs: gradients to fill, zero on entry: means2d [instances, 2], conics [instances, 3],
            opacities [instances, 1], features [instances, D], depths [instances, 1].
    """
    grad_means2d, grad_conics, grad_opacities, grad_features, grad_depths = outputs
    channels = grad_features.shape[1]
    for rank in range(first_rank, end_rank):
        later = min(rank + 2 * PREFETCH_DISTANCE, order.size - 1)
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
        # log alpha = log o - sigma with sigma = (A dx^2 + C dy^2) / 2 + B dx dy and the conic
        # (A, B, C), so g = dL/dsigma.
        grad_means2d[i, 0] = conics[i, 0] * mx + conics[i, 1] * my
        grad_means2d[i, 1] = conics[i, 1] * mx + conics[i, 2] * my
        grad_conics[i, 0] = 0.5 * mxx
        grad_conics[i, 1] = mxy
        grad_conics[i, 2] = 0.5 * myy
        grad_opacities[i, 0] = -m0 / opacities[i % opacities.shape[0], 0]
        grad_depths[i, 0] = depth
