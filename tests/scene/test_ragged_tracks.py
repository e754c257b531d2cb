"""Tracks stored as runs of frames: equivalent to dense arrays, in far less memory."""

import re
import tracemalloc
import zipfile
from dataclasses import fields

import numpy as np
import pytest
from unchecked import construct_unchecked

from msdyn.errors import InputError
from msdyn.reading import arrays as array_files
from msdyn.reading import load_npz, stream_npz
from msdyn.scene import Observations, Tracks, read_tracks, save_npz, write_tracks

NAMES = ("xy", "visible", "confidence", "object", "query_frame")


def random_dense_arrays(rng, count, frames, visibility):
    """Dense arrays of tracks with random gaps; 0 where they are not visible."""
    visible = rng.random((count, frames)) < visibility
    xy = rng.uniform(0, 90, (count, frames, 2)).astype(np.float32) * visible[..., None]
    confidence = rng.random((count, frames)).astype(np.float32) * visible
    query = rng.integers(0, frames, count).astype(np.int32)
    return xy, visible, confidence, rng.integers(-1, 4, count).astype(np.int32), query


def assert_same(tracks, arrays):
    for name, array in zip(NAMES, arrays, strict=True):
        found = getattr(tracks, name)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


@pytest.fixture(params=range(12))
def arrays(request, monkeypatch):
    """Dense arrays, with no track, one frame, and visibilities from never to always."""
    rng = np.random.default_rng(request.param)
    count, frames = (0, 1, 7, 40)[request.param % 4], (1, 2, 9)[request.param % 3]
    monkeypatch.setattr(array_files, "BLOCK_BYTES", 100)  # blocks of one to a dozen rows
    return random_dense_arrays(rng, count, frames, (0.0, 0.15, 0.6, 0.9, 1.0)[request.param % 5])


def test_runs_are_equivalent_to_dense_arrays(arrays):
    tracks = Tracks.from_dense(*arrays)
    visible = arrays[1]
    assert (len(tracks), tracks.num_frames) == visible.shape
    assert_same(tracks, arrays)
    for row, own in enumerate(visible):
        index = np.flatnonzero(own)
        run = (index[0], index[-1] + 1) if len(index) else (0, 0)
        assert (tracks.start[row], tracks.stop[row]) == run
    assert len(tracks.run_xy) == (tracks.stop - tracks.start).sum()
    np.testing.assert_array_equal(tracks.lifetimes, visible.sum(1))


def test_queries_agree_with_dense_arrays(arrays):
    xy, visible, confidence, _, _ = arrays
    tracks = Tracks.from_dense(*arrays)
    count, frames = visible.shape
    observations = tracks.observations()
    track, frame = np.nonzero(visible)
    expected = (track, frame, xy[visible], confidence[visible])
    for ours, true in zip(observations, expected, strict=True):
        np.testing.assert_array_equal(ours, true)
    for t in range(frames):
        rows, xy_t = tracks.at(t)
        np.testing.assert_array_equal(rows, np.flatnonzero(visible[:, t]))
        np.testing.assert_array_equal(xy_t, xy[rows, t])
        for other in range(frames):
            rows, xy_t, xy_other = tracks.between(t, other)
            np.testing.assert_array_equal(rows, np.flatnonzero(visible[:, t] & visible[:, other]))
            np.testing.assert_array_equal(xy_t, xy[rows, t])
            np.testing.assert_array_equal(xy_other, xy[rows, other])
    rows, columns = (index.ravel() for index in np.indices((count, frames)))
    found_xy, found_visible = tracks.look_up(rows, columns)
    np.testing.assert_array_equal(found_xy, xy[rows, columns])
    np.testing.assert_array_equal(found_visible, visible[rows, columns])


def test_selection_agrees_with_indexing_of_dense_arrays(arrays):
    tracks = Tracks.from_dense(*arrays)
    rng = np.random.default_rng(0)
    count = len(tracks)
    some = rng.integers(0, count, 2 * count) if count else np.zeros(0, int)  # with repetitions
    for index in (some, rng.random(count) < 0.5, slice(1, 4), slice(0)):
        assert_same(tracks.select(index), [array[index] for array in arrays])


def test_observations_may_be_given_in_any_order(arrays):
    tracks = Tracks.from_dense(*arrays)
    observations = tracks.observations()
    order = np.random.default_rng(0).permutation(len(observations.track))
    shuffled = Observations(*(column[order] for column in observations))
    again = Tracks.from_observations(tracks.num_frames, shuffled, tracks.object, tracks.query_frame)
    assert_same(again, arrays)


def test_positions_where_not_visible_are_zero_and_still_validated():
    xy, confidence = np.full((1, 5, 2), 3.0), np.full((1, 5), 0.5)
    visible, zero = np.array([[False, True, False, True, False]]), np.zeros(1, int)
    tracks = Tracks.from_dense(xy, visible, confidence, zero, zero)
    assert tracks.xy[0, :, 0].tolist() == [0, 3, 0, 3, 0]
    assert tracks.confidence[0].tolist() == [0, 0.5, 0, 0.5, 0]
    for bad in (0, 2, 4):
        wrong = xy.copy()
        wrong[0, bad] = np.nan
        with pytest.raises(InputError, match="xy: expected finite"):
            Tracks.from_dense(wrong, visible, confidence, zero, zero)
        wrong = confidence.copy()
        wrong[0, bad] = np.nan
        with pytest.raises(InputError, match="confidence: expected"):
            Tracks.from_dense(xy, visible, wrong, zero, zero)


def test_runs_of_inconsistent_shapes_are_refused():
    tracks = Tracks.from_dense(*random_dense_arrays(np.random.default_rng(0), 5, 6, 0.5))
    values = {field.name: getattr(tracks, field.name) for field in fields(tracks)}
    with pytest.raises(InputError, match="runs: expected"):
        construct_unchecked(Tracks, **{**values, "run_xy": tracks.run_xy[1:]})
    with pytest.raises(InputError, match=r"object: expected \[5\], got \(4,\)"):
        construct_unchecked(Tracks, **{**values, "object": tracks.object[1:]})


def test_files_contain_dense_arrays(arrays, tmp_path):
    """Files are exchanged with numpy in both directions, and writing is reproducible."""
    path, ours, others = (tmp_path / f"{name}.npz" for name in "abc")
    np.savez_compressed(path, **dict(zip(NAMES, arrays, strict=True)))
    tracks = read_tracks(path)
    assert_same(tracks, arrays)
    write_tracks(ours, tracks)
    with np.load(ours, allow_pickle=False) as found:
        assert found.files == list(NAMES)
        for name, array in zip(NAMES, arrays, strict=True):
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
    write_tracks(others, read_tracks(ours))
    assert ours.read_bytes() == others.read_bytes()


def test_other_dtypes_and_memory_orders_are_read(arrays, tmp_path):
    xy, visible, confidence, label, query = arrays
    np.savez(
        tmp_path / "a.npz",
        xy=np.asfortranarray(xy.astype(np.float64)),
        visible=np.asfortranarray(visible.astype(np.uint8)),
        confidence=confidence.T.astype(">f8").T,
        object=label.astype(np.int64),
        query_frame=query.astype(np.float32),
    )
    assert_same(read_tracks(tmp_path / "a.npz"), arrays)


def repack(path, edit):
    """Replace the content of each member of a zip file by `edit(name, content)`."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, edit(name, content))


def test_damaged_files_are_reported_in_one_line(tmp_path):
    path = tmp_path / "tracks.npz"
    arrays = random_dense_arrays(np.random.default_rng(0), 300, 40, 0.5)

    def refused(match):
        with pytest.raises(InputError, match=match) as error:
            read_tracks(path)
        assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
        assert str(error.value).count(str(path)) == 1

    def fresh(**changes):
        save_npz(path, **{**dict(zip(NAMES, arrays, strict=True)), **changes})
        return path.read_bytes()

    whole = fresh()
    for length in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        refused("not a readable npz")
    for offset in range(100, len(whole) // 2, len(whole) // 17):  # corrupt one byte of an array
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0x55]) + whole[offset + 1 :])
        refused("not a readable")
    for name in NAMES:
        fresh()
        repack(path, lambda n, data, name=name: data[:-3] if n == f"{name}.npy" else data)
        refused(f"{name}: expected .* bytes")
        fresh()
        repack(path, lambda n, data, name=name: b"no array" if n == f"{name}.npy" else data)
        refused(f"{name}: not a readable array")
    fresh(object=np.array(["a"] * 300))
    refused("object: expected an array of numbers, got <U1")
    np.savez(path, **{**dict(zip(NAMES, arrays, strict=True)), "xy": np.array([[{"a": 1}]])})
    refused("xy: expected an array of numbers, got object")
    np.save(tmp_path / "array.npy", arrays[0])
    (tmp_path / "array.npy").replace(path)
    refused("not a readable npz")
    fresh(visible=arrays[1][:, 1:])
    refused(r"visible: expected \[300, 40\], got \(300, 39\)")
    fresh(xy=np.array(3.0))
    refused(r"xy: expected \[tracks, frames, 2\], got \(\)")


def test_foreign_files_are_refused_in_one_line(tmp_path):
    """Members without the suffix .npy, damaged LZMA members, and an npy file."""
    path = tmp_path / "other.npz"
    np.save(tmp_path / "array.npy", np.zeros(3))
    npy = (tmp_path / "array.npy").read_bytes()
    cases = {"a": zipfile.ZIP_DEFLATED, "a.npy": zipfile.ZIP_LZMA}
    for name, method in cases.items():
        with zipfile.ZipFile(path, "w", method) as file:
            file.writestr(name, npy)
        if name == "a.npy":  # damage the compressed data, not the zip headers
            data = bytearray(path.read_bytes())
            data[45:60] = b"\xff" * 15
            path.write_bytes(data)
        with pytest.raises(InputError, match=re.escape(str(path))):
            load_npz(path, ("a",))
        with pytest.raises(InputError, match=re.escape(str(path))):
            with stream_npz(path, ("a",)) as arrays:
                arrays["a"].to_array()
    path.write_bytes(npy)
    with pytest.raises(InputError, match="not a readable npz"):
        load_npz(path, ("a",))


@pytest.mark.parametrize("start, stop", [([0], [5]), ([-1], [2]), ([2], [1])])
def test_runs_outside_the_clip_are_refused(start, stop):
    length = max(0, stop[0] - start[0])
    xy, confidence = np.zeros((length, 2)), np.ones(length)
    start, stop, one = np.array(start), np.array(stop), np.array([1])
    with pytest.raises(InputError, match="0 <= start <= stop <= 3"):
        Tracks(3, start, stop, xy, confidence > 0, confidence, one, one)


@pytest.mark.reliability
def test_memory_grows_with_observations_and_not_with_tracks_times_frames(tmp_path):
    """A long clip of short tracks needs a small fraction of the memory of dense arrays."""
    frames, starts, lifetime = 1000, 40, 5  # `starts` new tracks per frame
    count = starts * (frames - lifetime)
    start = np.repeat(np.arange(frames - lifetime), starts)
    track, age = (index.ravel() for index in np.indices((count, lifetime)))
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 90, (len(track), 2)).astype(np.float32)
    observations = Observations(track, start[track] + age, xy, np.full(len(track), 0.5, np.float32))
    dense = 13 * count * frames  # bytes of xy, visible and confidence
    assert dense > 5e8
    tracemalloc.start()
    try:
        tracks = Tracks.from_observations(frames, observations, np.zeros(count), start)
        write_tracks(tmp_path / "tracks.npz", tracks)
        again = read_tracks(tmp_path / "tracks.npz")
        assert sum(len(again.at(frame)[0]) for frame in range(frames)) == lifetime * count
        assert (again.lifetimes == lifetime).all()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(again.run_xy, xy)
    # 13 MB, against 517 MB dense: a few blocks, and tens of bytes per observation.
    assert peak < 4 * array_files.BLOCK_BYTES + 60 * len(track) < dense / 15
