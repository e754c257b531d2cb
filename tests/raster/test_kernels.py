"""The CPU kernels one by one: vectors, sorting, binning, projection, and their compilation."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scenes import draw, random_scene

from msdyn import jit
from msdyn.raster.cpu import arrays, lanes, lanes_blocks, lanes_memory, tile_pixels
from msdyn.raster.cpu.bin import HEADER, MASK_BITS, TILE, bin_tiles, pack_records
from msdyn.raster.cpu.order import order_by_depth


@jit.kernel()
def apply_lanes(source, target):
    """Apply the functions of `lanes` to 16 numbers in (0, 1] and write one row per function."""
    x = lanes_memory.load(source, 0)
    values = (
        lanes.exp2(8 * x - 8),
        lanes.log2(x),
        lanes.sqrt(x),
        lanes.ceil(4 * x),
        lanes.select((x > 0.5) & (x <= 0.75), x, -1),
        1 / (x + 2) - 0.5,
    )
    for i in range(len(values)):
        lanes_memory.store(target, i * lanes.WIDTH, values[i])
    return lanes.reduce_sum(x), lanes.reduce_max(x)


@jit.kernel()
def swap_columns(source, target, row):
    """Copy 16 rows of a matrix of two columns with the columns swapped."""
    lanes_memory.store_column(target, row, 0, lanes_memory.load_column(source, row, 1))
    lanes_memory.store_column(target, row, 1, lanes_memory.load_column(source, row, 0))


@jit.kernel()
def copy_rows(one, two, three, four, targets, row):
    """Copy 16 rows of matrices of one to four columns; three: only where the first is positive."""
    everywhere = lanes.iota() >= 0
    lanes_memory.store_rows(targets[0], row, lanes_memory.load_rows(one, row, 1), everywhere)
    lanes_memory.store_rows(targets[1], row, lanes_memory.load_rows(two, row, 2), everywhere)
    columns = lanes_memory.load_rows(three, row, 3)
    lanes_memory.store_rows(targets[2], row, columns, columns[0] > 0)
    lanes_memory.store_rows(targets[3], row, lanes_memory.load_rows(four, row, 4), everywhere)


@pytest.mark.parametrize("count", [16, 19, 33])
def test_rows_are_read_and_written_as_they_are_in_memory(count):
    """Those of a mask, those beyond the last 16, and none beyond the end of an array."""
    rng = np.random.default_rng(count)
    sources = [rng.normal(size=(count, n)).astype(np.float32) for n in range(1, 5)]
    # Beyond the end of each array there are 64 more numbers, which must stay.
    memory = [np.full(count * n + 64, 7, np.float32) for n in range(1, 5)]
    targets = tuple(a[: count * n].reshape(count, n) for n, a in enumerate(memory, 1))
    for row in range(0, count, 16):
        copy_rows(*sources, targets, row)
    for n in (1, 2, 4):
        np.testing.assert_array_equal(targets[n - 1], sources[n - 1])
    expected = np.where(sources[2][:, :1] > 0, sources[2], 0)
    np.testing.assert_array_equal(targets[2], expected)
    assert all((a[count * n :] == 7).all() for n, a in enumerate(memory, 1))


@jit.kernel()
def apply_blocks(source, count, sums, rows):
    """Sum the lanes of `len(count)` values, transpose four of them; return a mask and its bit."""
    buffer = lanes_memory.scratch(1, count)
    for i in range(len(count)):
        lanes_memory.store(buffer, i * lanes.WIDTH, lanes_memory.load(source, i * lanes.WIDTH))
    lanes_blocks.store_sums(buffer, 0, count, sums, 0)
    quads = lanes_blocks.transpose_quads(
        lanes_memory.load(source, 0),
        lanes_memory.load(source, 16),
        lanes_memory.load(source, 32),
        lanes_memory.load(source, 48),
    )
    for i in range(len(quads)):
        lanes_memory.store(rows, i * lanes.WIDTH, quads[i])
    bits = lanes_blocks.mask_bits(lanes_memory.load(source, 0) > 0)
    inside = lanes_blocks.clamp(lanes_memory.load(source, 0), -0.5 + 0 * lanes.iota(), 0.25)
    pattern = lanes_blocks.column_of_lane() + lanes.WIDTH * lanes_blocks.row_of_lane()
    lanes_memory.store(rows, 4 * lanes.WIDTH, inside)
    lanes_memory.store(rows, 5 * lanes.WIDTH, pattern)
    return bits, lanes_blocks.lowest_bit(bits)


@pytest.mark.parametrize("count", [7, 10, 22])
def test_blocks_agree_with_numpy(count):
    """Sums of fewer than 16 values and of more, rows of pixels from blocks, masks as bits."""
    values = np.random.default_rng(count).normal(size=(count, 16)).astype(np.float32)
    sums, rows = np.full(32, np.nan, np.float32), np.empty((6, 16), np.float32)
    bits, lowest = apply_blocks(values.ravel(), (0,) * count, sums, rows.reshape(-1))
    np.testing.assert_allclose(sums[:count], values.sum(1, dtype=np.float64), atol=1e-5)
    expected = values[:4].reshape(4, 4, 4).transpose(1, 0, 2).reshape(4, 16)
    np.testing.assert_array_equal(rows[:4], expected)
    assert bits == sum(1 << i for i in range(16) if values[0, i] > 0)
    assert bits >> lowest & 1 and bits % (1 << lowest) == 0
    np.testing.assert_array_equal(rows[4], values[0].clip(-0.5, 0.25))
    np.testing.assert_array_equal(rows[5], np.arange(16) % 4 + 16 * (np.arange(16) // 4))


@jit.kernel()
def list_pairs(masks, result):
    """Append the pairs of all masks, copy them to `result` and return their number."""
    pairs, count = lanes_memory.scratch_bytes(264), np.int64(0)
    for number in range(masks.size):
        count = lanes_blocks.append_pairs(pairs, count, masks[number], np.int64(number))
    for i in range(count):
        result[i] = pairs[i]
    return count


@settings(max_examples=50)
@given(hnp.arrays(np.int64, st.integers(0, 16), elements=st.integers(0, 2**16 - 1)))
def test_pairs_are_the_bits_in_order(masks):
    result = np.empty(256, np.uint8)
    count = list_pairs(masks, result)
    expected = [
        n << 4 | bit for n, mask in enumerate(masks) for bit in range(16) if mask >> bit & 1
    ]
    np.testing.assert_array_equal(result[:count], expected)


@jit.kernel()
def copy_tile(image, channels, with_depth, bounds, size, target):
    """Read a tile and write it elsewhere; return whether any of its numbers is not zero."""
    rows = lanes_memory.scratch(16, channels)
    nonzero = tile_pixels.read_planes(image, channels, with_depth, bounds, size, rows)
    tile_pixels.write_planes(rows, 0, channels, with_depth, bounds, size, target)
    return nonzero


@pytest.mark.parametrize("planes", [1, 3, 4, 9])
def test_tiles_are_read_and_written_whole(planes):
    """With and without a depth to leave out, within the image and at its right and lower edge."""
    image = np.random.default_rng(planes).uniform(1, 2, (2, 21, 37, planes)).astype(np.float32)
    for with_depth in (False, True):
        for x, y, columns, rows in ((16, 0, 16, 16), (32, 16, 5, 5)):
            target = np.zeros_like(image)
            channels, bounds = (0,) * (planes + with_depth), (1, x, y, columns, rows)
            arguments = channels, with_depth, bounds, (37, 21), target.reshape(-1)
            assert copy_tile(image.reshape(-1), *arguments)
            expected = np.zeros_like(image)
            inside = (1, slice(y, y + rows), slice(x, x + columns))
            expected[inside] = image[inside]
            np.testing.assert_array_equal(target, expected)
            assert not copy_tile((image - image).reshape(-1), *arguments)


@given(hnp.arrays(np.float32, 16, elements=st.floats(2**-10, 1, width=32)))
def test_lanes_agree_with_numpy(x):
    """Worst errors over 10^6 numbers: exp2 1.7e-7 relative, log2 5.5e-7 absolute."""
    target = np.empty((6, 16), np.float32)
    total, largest = apply_lanes(x, target)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(target[0], np.exp2(8 * exact - 8), rtol=6e-7)
    np.testing.assert_allclose(target[1], np.log2(exact), atol=6e-7)
    np.testing.assert_allclose(target[2], np.sqrt(exact), rtol=1e-7)
    np.testing.assert_array_equal(target[3], np.ceil(4 * x))
    np.testing.assert_array_equal(target[4], np.where((x > 0.5) & (x <= 0.75), x, -1))
    np.testing.assert_allclose(target[5], 1 / (exact + 2) - 0.5, atol=1e-7)
    assert total == pytest.approx(exact.sum(), rel=1e-6)
    assert largest == x.max()


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 40])
def test_columns_stop_at_the_last_row(rows):
    """Rows beyond the end are neither read nor written."""
    source = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
    buffer = np.full((rows + 20, 2), -1, np.float32)
    for row in range(0, rows, lanes.WIDTH):
        swap_columns(source, buffer[:rows], row)
    np.testing.assert_array_equal(buffer[:rows], source[:, ::-1])
    assert (buffer[rows:] == -1).all()


@settings(max_examples=50)
@given(
    hnp.arrays(
        np.float32,
        st.integers(0, 300),
        elements=st.one_of(
            st.floats(2**-20, 2**30, width=32), st.sampled_from([1.0, 1.0000001, 2.0])
        ),
    ),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_order_by_depth_is_a_stable_sort_of_the_visible(depths, chunks, random):
    """Compare with numpy's stable sort, with culled instances, for any number of chunks."""
    visible = np.array([random.random() < 0.7 for _ in depths], bool)
    extents = np.repeat(visible[:, None], 2, 1).astype(np.float32)
    expected = np.flatnonzero(visible)[np.argsort(depths[visible], kind="stable")]
    np.testing.assert_array_equal(order_by_depth(depths[:, None], extents, chunks), expected)


def bin_scene(seed: int, chunks: int, spread: float) -> tuple:
    """Bin a random scene with two cameras; return the lists and the inputs of `bin_tiles`."""
    scene = random_scene(seed, gaussians=80, cameras=2, own=True, spread=spread)
    rendering, _ = draw(scene)
    info = rendering.info
    size = (scene.width, scene.height)
    covariance, means2d, depths = [], [], []
    for c in range(2):
        projected = oracle.project(
            scene.means[c],
            scene.quats_wxyz[c],
            scene.scales,
            scene.opacities[c],
            scene.intrinsics[c],
            scene.cam_from_world[c],
            size,
            (0.01, 1e10, 0.3),
        )
        means2d.append(projected[0])
        covariance.append(projected[1].inverse())
        depths.append(projected[2])
    covariance, means2d = torch.cat(covariance).numpy(), torch.cat(means2d).float().numpy()
    visible = (info["radii"] > 0).all(-1).flatten().numpy()
    opacities = scene.opacities.flatten().numpy()
    reach = np.sqrt(2 * np.log(np.maximum(255 * opacities, 1)))
    extents = reach[:, None] * np.sqrt(covariance[:, [0, 1], [0, 1]]) * visible[:, None]
    inverse = np.linalg.inv(covariance)
    conics = np.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], -1)
    depths = torch.cat(depths).float().numpy()[:, None]
    features = np.zeros((80, 1), np.float32)
    extents = np.ascontiguousarray(extents, np.float32)
    order = order_by_depth(depths, extents, chunks)
    records, boxes = pack_records(
        means2d,
        conics.astype(np.float32),
        opacities.astype(np.float32)[:, None],
        features,
        depths,
        extents,
        with_depth=True,
        size=size,
        threads=chunks,
    )
    lists = bin_tiles(order, records, boxes, 2, size, chunks)
    sigma_cut = np.log(np.maximum(255 * opacities, 1))
    return scene, order, records, lists, means2d, inverse, sigma_cut


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("spread", [0.03, 0.3, 1.0])
def test_lists_contain_all_needed_blocks_and_few_others(chunks, spread):
    """Compare with an evaluation of alpha at all pixels; bounding boxes would list far more."""
    scene, order, records, lists, means2d, inverse, sigma_cut = bin_scene(21, chunks, spread)
    offsets, entries, spans, slots = lists
    side = lanes_blocks.BLOCK_SIDE
    tiles_x, tiles_y = -(-scene.width // TILE), -(-scene.height // TILE)
    ys, xs = np.mgrid[0 : scene.height, 0 : scene.width]
    tile_of = ys // TILE * tiles_x + xs // TILE
    block_of = ys % TILE // side * side + xs % TILE // side
    needed, listed, place = set(), set(), np.argsort(order)
    for i in order:
        dx, dy = xs + 0.5 - means2d[i, 0], ys + 0.5 - means2d[i, 1]
        conic = inverse[i]
        sigma = 0.5 * (conic[0, 0] * dx * dx + conic[1, 1] * dy * dy) + conic[0, 1] * dx * dy
        first = i // 80 * tiles_x * tiles_y
        inside = sigma <= sigma_cut[i]
        needed |= {
            (int(first + tile), int(block), int(i))
            for tile, block in zip(tile_of[inside], block_of[inside], strict=True)
        }
    for tile in range(2 * tiles_x * tiles_y):
        members = entries[offsets[tile] : offsets[tile + 1]]
        ranks = place[np.searchsorted(order, members >> MASK_BITS, sorter=place)]
        assert (np.diff(ranks) > 0).all()  # nearest first
        for member in members:
            blocks = [b for b in range(TILE) if member >> b & 1]
            assert blocks
            listed |= {(tile, b, int(member) >> MASK_BITS) for b in blocks}
    assert needed <= listed
    # Blocks that the ellipse intersects between pixel centres are listed too, and some outside.
    rows = [tile // tiles_x % tiles_y * TILE + b // side * side for tile, b, _ in listed]
    columns = [tile % tiles_x * TILE + b % side * side for tile, b, _ in listed]
    outside = sum(y >= scene.height or x >= scene.width for y, x in zip(rows, columns, strict=True))
    assert len(listed) - outside <= 1.15 * len(needed) + 5
    # The slots are the inverse of the lists: from instance to tiles.
    pairs = {
        (int(np.searchsorted(offsets, slot, "right")) - 1, i)
        for i in order.tolist()
        for slot in slots[spans[i, 0] : spans[i, 1]]
    }
    assert pairs == {(tile, i) for tile, _, i in listed}
    assert records.shape == (len(spans), lanes.WIDTH) and HEADER + 2 <= lanes.WIDTH


def test_gradients_of_the_oracles_projection():
    """Validate the reference of the kernels by finite differences in float64."""
    scene = random_scene(22, gaussians=6, spread=0.3)

    def project(means, quats, scales, intrinsics, cam_from_world):
        result = oracle.project(
            means,
            quats,
            scales,
            scene.opacities,
            intrinsics[0],
            cam_from_world[0],
            (scene.width, scene.height),
            (0.01, 1e10, 0.3),
        )
        return result[:3]

    arguments = [
        getattr(scene, name).clone().requires_grad_()
        for name in ("means", "quats_wxyz", "scales", "intrinsics", "cam_from_world")
    ]
    assert torch.autograd.gradcheck(project, arguments, eps=1e-7, atol=1e-4, rtol=1e-3)


def test_cache_folder_falls_back_to_writable_folders(monkeypatch, tmp_path, caplog):
    """Beside the code, else in the user's cache folder, else none; fallbacks are logged."""
    caplog.set_level("INFO")
    beside = Path(jit.__file__).parent / "__pycache__"
    writable = tempfile.TemporaryFile
    refused = {str(beside)}

    def temporary_file(*, dir):
        if any(str(dir).startswith(folder) for folder in refused):
            raise PermissionError(13, "Permission denied")
        return writable(dir=dir)

    monkeypatch.setattr(jit.settings, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache_folder = jit.cache_folder.__wrapped__
    assert cache_folder().startswith(str(beside))
    monkeypatch.setattr(tempfile, "TemporaryFile", temporary_file)
    assert cache_folder().startswith(str(tmp_path / "msdyn"))
    assert "cannot be cached in" in caplog.text and "Permission denied" in caplog.text
    refused.add(str(tmp_path))
    assert cache_folder() is None
    assert "recompiled in every process" in caplog.text
    monkeypatch.setattr(jit.settings, "CACHE_DIR", str(tmp_path / "chosen"))
    assert cache_folder().startswith(str(tmp_path / "chosen"))


def test_importing_compiles_nothing():
    """Importing msdyn and msdyn.render imports neither Numba nor gsplat."""
    code = "import sys, msdyn, msdyn.render; print({'numba', 'gsplat'} & sys.modules.keys())"
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert result.stdout.strip() == "set()", result.stderr


@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (2, 160)])
def test_aligned_arrays_start_at_cache_lines(shape):
    array = arrays.aligned(*shape)
    assert array.shape == shape and array.dtype == np.float32
    assert array.ctypes.data % 64 == 0
