"""Shards: round trip, naming, and damage."""

import io
import json
import tarfile
from collections import defaultdict

import numpy as np
import pytest
from feedforward.data.toy_clips import (
    HEIGHT,
    WIDTH,
    posed_clip,
    tracked_clip,
    wall_clip,
    wall_frame,
)

from msdyn.errors import InputError
from msdyn.feedforward.data import ClipFrame, ClipLibrary, ClipWriter
from msdyn.feedforward.data.codes import decode_depth, encode_depth
from msdyn.feedforward.data.stored import StoredClip


def write(folder, *clips, **options):
    with ClipWriter(folder, **options) as writer:
        for clip in clips:
            writer.add(clip)
    return folder


def one_line(error):
    return "\n" not in str(error.value)


def same(stored, clip):
    found = stored.clip()
    assert (found.name, found.dataset, found.motion) == (clip.name, clip.dataset, clip.motion)
    assert found.about == clip.about
    for name in ("times", "world_from_cam", "intrinsics", "poses", "target"):
        value = getattr(clip, name)
        assert (getattr(found, name) is None) == (value is None)
        if value is not None:
            np.testing.assert_array_equal(getattr(found, name), value)
    if clip.tracks is not None:
        np.testing.assert_array_equal(found.tracks.points, clip.tracks.points)
        np.testing.assert_array_equal(found.tracks.visible, clip.tracks.visible)
    for index in range(len(clip)):
        own, expected = found.frame(index), clip.frame(index)
        np.testing.assert_array_equal(own.image, expected.image)
        for name in ("depth", "objects"):
            value = getattr(expected, name)
            assert (getattr(own, name) is None) == (value is None)
            if value is not None:
                np.testing.assert_allclose(getattr(own, name), value, rtol=1e-4)


def with_target_view():
    """Frames 6 to 8 are of another view, without depth."""

    def frame(index):
        own = wall_frame(index)
        return own if index < 6 else ClipFrame(own.image)

    return wall_clip("two-views", target=np.arange(9) >= 6, frame=frame)


@pytest.mark.parametrize("clip", [wall_clip(), tracked_clip(), posed_clip(), with_target_view()])
def test_a_clip_is_read_as_it_was_written(clip, tmp_path):
    library = ClipLibrary(write(tmp_path, clip, image_format="png"))
    same(library.clip(f"toy/{clip.name}"), clip)
    entry = library.entries[0]
    assert (entry.frames, entry.size) == (9, (HEIGHT, WIDTH))
    assert entry.targets == (3 if clip.target is not None else 0)


def test_jpeg_is_close(tmp_path):
    stored = ClipLibrary(write(tmp_path, wall_clip())).clip("toy/wall")
    error = stored.image(3).astype(int) - wall_frame(3).image
    assert 0 < np.abs(error).max() <= 6


def test_the_error_of_depth_is_as_stated():
    depth = np.geomspace(0.01, 100.0, 10_000, dtype=np.float32).reshape(100, 100)
    depth[0, :3] = 0
    data, limits = encode_depth(depth)
    found = decode_depth(data, (100, 100), limits)
    np.testing.assert_array_equal(found == 0, depth == 0)
    known = depth > 0
    error = np.abs(found[known] / depth[known] - 1).max()
    assert 2e-5 < error < 0.5 * np.log(1e4) / 65534 + 1e-6


@pytest.mark.parametrize("depth", [np.zeros((2, 3)), np.full((2, 3), 7.5), np.eye(2, 3)])
def test_depth_without_range(depth):
    data, limits = encode_depth(depth.astype(np.float32))
    np.testing.assert_allclose(decode_depth(data, (2, 3), limits), depth, rtol=1e-6)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_impossible_depth_is_refused(value, tmp_path):
    def frame(index):
        return ClipFrame(wall_frame(index).image, np.full((HEIGHT, WIDTH), value, np.float32))

    with pytest.raises(InputError, match="wall: depth: expected finite"):
        write(tmp_path, wall_clip(frame=frame))


def test_tar_groups_by_the_name_before_the_first_dot(tmp_path):
    """As webdataset's loader does, which knows nothing of the index."""
    write(tmp_path, wall_clip(), tracked_clip())
    samples = defaultdict(dict)
    order = []
    with tarfile.open(tmp_path / "clips-000000.tar") as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            samples[key][extension] = tar.extractfile(member).read()
            order.append(key)
            assert (member.mtime, member.uid, member.uname, member.mode) == (0, 0, "", 0o644)
    assert order == sorted(order, reverse=True)  # members of a sample are consecutive
    assert list(samples) == ["toy/wall", "toy/tracked"]
    expected = {"meta.json", "cameras.npz"}
    expected |= {f"{i:05d}.{kind}" for i in range(9) for kind in ("image.jpg", "depth.png")}
    assert set(samples["toy/wall"]) == expected
    assert set(samples["toy/tracked"]) == expected | {f"{i:05d}.tracks.npz" for i in range(9)}
    meta = json.loads(samples["toy/wall"]["meta.json"])
    assert meta["frames"] == 9 and meta["about"]["licence"] == "none"
    with np.load(io.BytesIO(samples["toy/tracked"]["00003.tracks.npz"])) as arrays:
        np.testing.assert_array_equal(arrays["points"], tracked_clip().tracks.points[3])


def test_equal_clips_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, wall_clip(), tracked_clip(), posed_clip())
    for file in ("clips-000000.tar", "clips-000000.index.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_shards_have_a_size_and_later_clips_are_appended(tmp_path):
    write(tmp_path, *(wall_clip(f"c{i}") for i in range(3)), shard_bytes=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 6
    write(tmp_path, wall_clip("c3"), wall_clip("c4"))
    assert len(list(tmp_path.iterdir())) == 8
    assert all(path.read_bytes() == data for path, data in before.items())
    library = ClipLibrary(tmp_path)
    assert [entry.name for entry in library.entries] == ["c0", "c1", "c2", "c3", "c4"]
    assert library.entries[4].tar.name == "clips-000003.tar"


def test_a_name_is_used_once(tmp_path):
    with ClipWriter(tmp_path) as writer:
        writer.add(wall_clip())
        assert "toy/wall" in writer and "other/wall" not in writer
        writer.add(wall_clip(dataset="other"))
        with pytest.raises(InputError, match="toy/wall already"):
            writer.add(wall_clip())
    with pytest.raises(InputError, match="toy/wall already"):
        write(tmp_path, wall_clip())
    write(tmp_path / "second", wall_clip())
    with pytest.raises(InputError, match="got toy/wall twice"):
        ClipLibrary([tmp_path, tmp_path / "second"])


def test_an_interrupted_writer_keeps_complete_clips_only(tmp_path):
    def frame(index):
        if index == 4:
            raise KeyboardInterrupt
        return wall_frame(index)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, wall_clip(), wall_clip("bad", frame=frame))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "clips-000000.index.json",
        "clips-000000.tar",
    ]
    library = ClipLibrary(tmp_path)
    assert [entry.key for entry in library.entries] == ["toy/wall"]
    with tarfile.open(tmp_path / "clips-000000.tar") as tar:
        assert not [name for name in tar.getnames() if "bad" in name]
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "none", wall_clip("bad", frame=frame))
    assert list((tmp_path / "none").iterdir()) == []


def test_a_tar_without_index_is_no_shard(tmp_path):
    write(tmp_path, wall_clip())
    (tmp_path / "clips-000001.tar").write_bytes(b"of a writer that was killed")
    assert len(ClipLibrary(tmp_path)) == 1
    write(tmp_path, wall_clip("next"))
    assert len(ClipLibrary(tmp_path)) == 2


def test_a_frame_of_another_size_is_refused(tmp_path):
    def frame(index):
        return ClipFrame(np.zeros((HEIGHT, WIDTH - (index == 2), 3), np.uint8))

    with pytest.raises(InputError, match="wall: frame 2: image: expected uint8 .16, 24, 3., got"):
        write(tmp_path, wall_clip(frame=frame))


def test_impossible_poses_times_and_objects_are_refused(tmp_path):
    flat = posed_clip()
    flat.poses[3, 0, 1, 1] = 0
    with pytest.raises(InputError, match="poses: expected finite, invertible"):
        write(tmp_path, flat)
    late = wall_clip()
    late.times[4] = late.times[3]
    with pytest.raises(InputError, match="times: expected increasing"):
        write(tmp_path, late)
    with pytest.raises(InputError, match="objects: expected at most 1"):
        write(tmp_path, wall_clip("p", motion="poses", poses=posed_clip(objects=1).poses,
                                  frame=posed_clip().frame))  # fmt: skip
    with pytest.raises(InputError, match="expected a map of objects"):
        write(tmp_path, wall_clip("p", motion="poses", poses=posed_clip().poses))


DAMAGE = {
    "another format": lambda c: c.update(format="other"),
    "another version": lambda c: c.update(version=2),
    "wrong size": lambda c: c.update(bytes=c["bytes"] + 512),
    "no list": lambda c: c.update(clips={"a": 1}),
    "no object": lambda c: c.update(clips=[3]),
    "name": lambda c: c["clips"][0].update(name="../x"),
    "motion": lambda c: c["clips"][0].update(motion="fast"),
    "frames": lambda c: c["clips"][0].update(frames=10**12),
    "negative width": lambda c: c["clips"][0].update(width=-1),
    "width of another type": lambda c: c["clips"][0].update(width="24"),
    "targets": lambda c: c["clips"][0].update(targets=9),
    "tracks": lambda c: c["clips"][0].update(tracks=True),
    "no members": lambda c: c["clips"][0].update(members={}),
    "member span": lambda c: c["clips"][0]["members"].update({"meta.json": [1]}),
    "member beyond the end": lambda c: c["clips"][0]["members"].update({"meta.json": [0, 10**9]}),
    "member before the start": lambda c: c["clips"][0]["members"].update({"meta.json": [-9, 5]}),
    "frame beyond the end": lambda c: frame_sizes(c).__setitem__(2, 10**15),
    "frame whose end is beyond": lambda c: frame_sizes(c).__setitem__(-1, c["bytes"] - 1),
    "frame of a huge number": lambda c: frame_sizes(c).__setitem__(2, 2**63),
    "frame of a list": lambda c: frame_sizes(c).__setitem__(2, [1]),
    "frame of text": lambda c: frame_sizes(c).__setitem__(2, "9"),
    "negative size": lambda c: frame_sizes(c).__setitem__(2, -1),
    "frame of no number": lambda c: frame_sizes(c).__setitem__(2, 1.5),
    "frame without image": lambda c: frame_sizes(c).__setitem__(2, 0),
    "fewer frames": lambda c: frame_sizes(c).pop(),
    "unknown member": lambda c: c["clips"][0]["frame_members"].update({"code.pickle": {}}),
}


def frame_sizes(content):
    return content["clips"][0]["frame_members"]["image.jpg"]["sizes"]


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_index_is_one_line(change, tmp_path):
    write(tmp_path, wall_clip())
    path = tmp_path / "clips-000000.index.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as error:
        ClipLibrary(tmp_path)
    assert one_line(error) and "clips-000000" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000])
def test_an_index_that_is_not_json(text, tmp_path):
    write(tmp_path, wall_clip())
    (tmp_path / "clips-000000.index.json").write_text(text)
    with pytest.raises(InputError) as error:
        ClipLibrary(tmp_path)
    assert one_line(error)


def test_a_truncated_or_missing_shard_is_one_line(tmp_path):
    write(tmp_path, wall_clip())
    tar = tmp_path / "clips-000000.tar"
    library = ClipLibrary(tmp_path)
    tar.write_bytes(tar.read_bytes()[:-4000])
    with pytest.raises(InputError, match="copy or write the shard again") as error:
        ClipLibrary(tmp_path)
    assert one_line(error)
    with pytest.raises(InputError, match="expected .* bytes at"):  # cut while it is open
        library.clip("toy/wall").image(8)
    tar.unlink()
    with pytest.raises(InputError, match="found none"):
        ClipLibrary(tmp_path)


@pytest.mark.parametrize(
    "member", ["cameras.npz", "meta.json", "image.png", "depth.png", "objects.png", "tracks.npz"]
)
def test_damaged_members_are_one_line(member, tmp_path):
    clip = tracked_clip() if member == "tracks.npz" else posed_clip()
    write(tmp_path, clip, image_format="png")
    entry = ClipLibrary(tmp_path).entries[0]
    span = entry.members.get(member)
    offset, size = span or entry.frame_members[member][2].tolist()
    data = bytearray(entry.tar.read_bytes())
    whole = bytes(data)

    def read():
        stored = StoredClip(entry)
        stored.about, stored.image(2), stored.depth(2), stored.objects(2)
        if clip.tracks is not None:
            stored.tracks(2)

    for start, end in ((0, size), (size // 2, size), (size // 3, size // 3 + 4)):
        data[:] = whole
        data[offset + start : offset + end] = bytes(
            b ^ 0x5A for b in data[offset + start : offset + end]
        )
        entry.tar.write_bytes(bytes(data))
        with pytest.raises(InputError) as error:
            read()
        assert one_line(error) and f".{member}" in str(error.value)


def test_a_library_needs_shards(tmp_path):
    with pytest.raises(FileNotFoundError):
        ClipLibrary(tmp_path / "nothing")
    with pytest.raises(InputError, match="expected shards"):
        ClipLibrary(tmp_path)
    write(tmp_path, wall_clip())
    with pytest.raises(InputError, match="clip toy/other: expected one of 1"):
        ClipLibrary(tmp_path).clip("toy/other")


@pytest.mark.parametrize("options", [{"shard_bytes": 0}, {"quality": 101}])
def test_options_of_the_writer(options, tmp_path):
    with pytest.raises(InputError, match="expected"):
        ClipWriter(tmp_path, **options)
