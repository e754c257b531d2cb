"""Pixels of a tile: from blocks in scratch buffers to rows of an image, and back.

Kernels have a scratch buffer of 16 blocks of 4 x 4 pixels for each channel; images have their
channels last. `transpose_tile` makes rows of 16 pixels of blocks. Up to `_INTERLEAVED` channels of
a row are then interleaved in registers: single numbers, a few in each cache line, would take longer
than blending does where few Gaussians are in a tile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from msdyn.jit import kernel
from msdyn.raster.cpu.lanes import VECTOR, WIDTH, intrinsic_function, iota
from msdyn.raster.cpu.lanes_blocks import (
    BLOCK_SIDE,
    column_of_lane,
    mask_bits,
    row_of_lane,
    transpose_quads,
)
from msdyn.raster.cpu.lanes_memory import load, prefetch_to_write, store, vector_pointer

__all__ = [
    "TILE",
    "TILE_PIXELS",
    "pixel_centres",
    "prefetch_pixels",
    "read_planes",
    "tile_bounds",
    "transpose_tile",
    "write_planes",
]

# Pixels along the side of a tile: as many blocks as a `Lanes` value has lanes.
TILE = BLOCK_SIDE * BLOCK_SIDE
TILE_PIXELS = TILE * TILE

_HALF = np.float32(0.5)
# Each number of an interleaved vector is picked from one of so many: a shuffle for each but one.
_INTERLEAVED = 8


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


def _pick(builder: Any, vectors: list[ir.Value], picks: list[tuple[int, int]]) -> ir.Value:
    """Return a vector whose lane j is lane `picks[j][1]` of vector `picks[j][0]`."""
    indices = ir.VectorType(ir.IntType(32), WIDTH)
    result = ir.Constant(VECTOR, ir.Undefined)
    for number in sorted({vector for vector, _ in picks}):
        lanes = [WIDTH + lane if vector == number else j for j, (vector, lane) in enumerate(picks)]
        result = builder.shuffle_vector(result, vectors[number], ir.Constant(indices, lanes))
    return result


@intrinsic_function(prefer_literal=True)
def _interleave(typing_context, rows, start, channels, spare, target, index):
    """Write a row of 16 pixels of `len(channels) - spare` planes to an array, channels last.

    Args:
        rows: scratch buffer of planes, `TILE_PIXELS` apart.
        start: of the row in the first plane.
        channels: a tuple.
        spare: an integer literal.
        target: a float32 array.
        index: of the first channel of the first pixel.
    """
    planes = channels.count - spare.literal_value

    def generate(context, builder, signature, values):
        source, start, _, _, array, index = values
        kinds = signature.args
        vectors = []
        for d in range(planes):
            element = builder.add(start, ir.IntType(64)(d * TILE_PIXELS))
            pointer = vector_pointer(context, builder, kinds[0], source, element)
            vectors.append(builder.load(pointer, align=4 * WIDTH, typ=VECTOR))
        for j in range(planes):
            numbers = range(j * WIDTH, (j + 1) * WIDTH)
            value = _pick(builder, vectors, [(e % planes, e // planes) for e in numbers])
            element = builder.add(index, ir.IntType(64)(j * WIDTH))
            pointer = vector_pointer(context, builder, kinds[4], array, element)
            builder.store(value, pointer, align=4)
        return context.get_dummy_value()

    return types.void(rows, types.intp, channels, spare, target, types.intp), generate


@intrinsic_function(prefer_literal=True)
def _separate(typing_context, source, index, channels, spare, rows, start):
    """Read a row of 16 pixels into planes: the inverse of `_interleave`."""
    planes = channels.count - spare.literal_value

    def generate(context, builder, signature, values):
        array, index, _, _, target, start = values
        kinds = signature.args
        vectors = []
        for j in range(planes):
            element = builder.add(index, ir.IntType(64)(j * WIDTH))
            pointer = vector_pointer(context, builder, kinds[0], array, element)
            vectors.append(builder.load(pointer, align=4, typ=VECTOR))
        for d in range(planes):
            numbers = range(d, planes * WIDTH, planes)
            value = _pick(builder, vectors, [(e // WIDTH, e % WIDTH) for e in numbers])
            element = builder.add(start, ir.IntType(64)(d * TILE_PIXELS))
            pointer = vector_pointer(context, builder, kinds[4], target, element)
            builder.store(value, pointer, align=4 * WIDTH)
        return context.get_dummy_value()

    return types.void(source, types.intp, channels, spare, rows, types.intp), generate


@kernel()
def write_planes(rows, first, channels, with_depth, bounds, size, image):
    """Write the pixels of a tile to an image, those of its last channel not if that is the depth.

    Args:
        rows: scratch buffer by channel and row.
        first: where the first channel starts in `rows`.
        channels: a tuple whose length is the number of channels, the depth included.
        with_depth: whether the last channel is the depth.
        bounds: of the tile, from `tile_bounds`.
        size: (width, height) px.
        image: flat [C, H, W, D].
    """
    camera, x0, y0, columns, height = bounds
    planes = len(channels) - with_depth
    for y in range(height):
        start = ((camera * size[1] + y0 + y) * size[0] + x0) * planes
        if columns == TILE and len(channels) <= _INTERLEAVED:
            if with_depth:
                _interleave(rows, first + y * TILE, channels, 1, image, start)
            else:
                _interleave(rows, first + y * TILE, channels, 0, image, start)
        else:
            for d in range(planes):
                row = first + d * TILE_PIXELS + y * TILE
                for x in range(columns):
                    image[np.uintp(start + x * planes + d)] = rows[row + x]


@kernel()
def prefetch_pixels(planes, bounds, size, image):
    """Prefetch the pixels of a tile for `write_planes`.

    Args:
        planes: D of the image.
        bounds: of the tile, from `tile_bounds`.
        size: (width, height) px.
        image: flat [C, H, W, D].
    """
    camera, x0, y0, columns, height = bounds
    for y in range(height):
        start = ((camera * size[1] + y0 + y) * size[0] + x0) * planes
        for i in range(0, columns * planes, WIDTH):
            prefetch_to_write(image, start + i)
        prefetch_to_write(image, start + columns * planes - 1)


@kernel()
def read_planes(image, channels, with_depth, bounds, size, rows):
    """Read the pixels of a tile, with zeros outside the image; return whether any is not zero.

    Args:
        image: flat [C, H, W, D].
        channels: as for `write_planes`.
        with_depth: whether the last channel is the depth, which is not read.
        bounds: of the tile, from `tile_bounds`.
        size: (width, height) px.
        rows: scratch buffer to fill, by channel and row.
    """
    camera, x0, y0, columns, height = bounds
    planes = len(channels) - with_depth
    if columns < TILE or height < TILE:
        for i in range(0, planes * TILE_PIXELS, WIDTH):
            store(rows, i, 0 * iota())
    for y in range(height):
        start = ((camera * size[1] + y0 + y) * size[0] + x0) * planes
        if columns == TILE and len(channels) <= _INTERLEAVED:
            if with_depth:
                _separate(image, start, channels, 1, rows, y * TILE)
            else:
                _separate(image, start, channels, 0, rows, y * TILE)
        else:
            for d in range(planes):
                row = d * TILE_PIXELS + y * TILE
                for x in range(columns):
                    rows[row + x] = image[np.uintp(start + x * planes + d)]
    zeros = mask_bits(0 * iota() <= 0)
    for i in range(0, planes * TILE_PIXELS, WIDTH):
        zeros &= mask_bits(load(rows, i) <= 0) & mask_bits(load(rows, i) >= 0)
    return zeros != (1 << WIDTH) - 1
