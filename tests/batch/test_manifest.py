"""Manifests: which clips there are."""

import csv
import shlex

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from robots import CAMERA, write_dataset

from msdyn.batch import Clip, Manifest, Shard
from msdyn.batch.clips import folder_name
from msdyn.batch.manifest import key_of
from msdyn.cli.preprocess import options
from msdyn.errors import InputError
from msdyn.io import LeRobotDataset

ROWS = [
    {"clip": "a", "uri": "a.mp4", "start": 1.5, "end": 2.5, "preprocess": "--depth fused"},
    {"clip": "b/1", "uri": "/data/b.mp4", "start": None, "end": None, "preprocess": None},
    {"clip": "c", "uri": "s3://bucket/c.mp4", "start": 0.0, "end": None, "preprocess": ""},
]


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return Manifest(str(path))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_tables(tmp_path, suffix):
    rows = [row | {"robot": "arm, left", "episode": i} for i, row in enumerate(ROWS)]
    clips = list(write(tmp_path / f"m{suffix}", rows).clips())
    assert [clip.id for clip in clips] == ["a", "b/1", "c"]
    # A relative path is relative to the manifest.
    uris = [str(tmp_path / "a.mp4"), "/data/b.mp4", "s3://bucket/c.mp4"]
    assert [clip.uri for clip in clips] == uris
    assert [(clip.start, clip.end) for clip in clips] == [(1.5, 2.5), (None, None), (0.0, None)]
    assert [clip.preprocess for clip in clips] == ["--depth fused", "", ""]
    assert [dict(clip.metadata)["robot"] for clip in clips] == ["arm, left"] * 3
    assert [str(dict(clip.metadata)["episode"]) for clip in clips] == ["0", "1", "2"]


def test_folder_of_videos(tmp_path):
    for name in ("c10.mp4", "c9.MP4", "sub/x.mov", "notes.txt", ".hidden.mp4", ".git/y.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    clips = list(Manifest(str(tmp_path)).clips())
    assert {clip.id for clip in clips} == {"c10", "c9", "sub/x"}
    assert [clip.id for clip in clips].index("c9") < [clip.id for clip in clips].index("c10")
    assert Clip("sub/x", str(tmp_path / "sub/x.mov")) in clips


def test_dataset_of_robots(tmp_path):
    """A clip for each episode and camera, with the options that choose them."""
    root = tmp_path / "set"
    write_dataset(root, (3, 4))
    clips = list(Manifest(str(root)).clips())
    names = ["episode_000000", "episode_000001"]
    cameras = LeRobotDataset(root).cameras
    assert [c.id for c in clips] == [f"{name}-{camera}" for camera in cameras for name in names]
    one = list(Manifest(str(root), (CAMERA,)).clips())
    assert [clip.id for clip in one] == names and {clip.uri for clip in one} == {str(root)}
    config = options([one[1].uri, *shlex.split(one[1].preprocess)])
    assert config.episode == 1 and config.camera == CAMERA
    assert one[1].metadata["task"] == "place"
    with pytest.raises(InputError, match="camera: expected one of"):
        Manifest(str(root), ("nothing",)).keys()
    with pytest.raises(InputError, match="--camera is for LeRobotDatasets"):
        Manifest(str(tmp_path), (CAMERA,)).keys()


def test_two_videos_of_one_name(tmp_path):
    for name in ("a.mp4", "a.mov"):
        (tmp_path / name).write_bytes(b"")
    assert {clip.id for clip in Manifest(str(tmp_path)).clips()} == {"a.mp4", "a.mov"}


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize(
    "change, message",
    [
        ({"uri": ""}, "row 2: expected a uri"),
        ({"start": 5.0, "end": 4.0}, "row 2: expected an end after the start"),
        ({"start": -1.0}, "row 2: start: expected seconds"),
        ({"start": float("nan")}, "row 2: start: expected seconds"),
        ({"clip": "x" * 600}, "row 2: expected a clip of 1 to 500 characters"),
        ({"clip": "a"}, "clip 'a' is there twice"),
    ],
)
def test_wrong_rows(tmp_path, suffix, change, message):
    rows = [ROWS[0], {**ROWS[0], "clip": "b", **change}]
    manifest = write(tmp_path / f"m{suffix}", rows)
    with pytest.raises(InputError, match=message) as caught:
        manifest.keys()
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_tables(tmp_path):
    path = tmp_path / "m.parquet"
    write(path, ROWS)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 4):
            damaged[at] = rng.integers(256)
        path.write_bytes(bytes(damaged[: rng.integers(len(whole) // 2, len(whole) + 1)]))
        try:
            Manifest(str(path)).keys()
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("text", ["clip,uri\na\n", "clip,name\na,b\n", "", "clip,uri\n\xff\xfe"])
def test_wrong_csv(tmp_path, text):
    path = tmp_path / "m.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"m\.csv"):
        Manifest(str(path)).keys()


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="no clip; expected videos"):
        Manifest(str(tmp_path)).keys()
    with pytest.raises(FileNotFoundError):
        Manifest(str(tmp_path / "none")).keys()
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"expected a \.parquet or \.csv file, or a folder"):
        Manifest(str(tmp_path / "a.mp4")).keys()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_shards_are_a_partition(count):
    ids = [f"clip-{i}" for i in range(500)]
    keys = np.array([key_of(name) for name in ids], np.uint64)
    shards = [Shard(number, count) for number in range(1, count + 1)]
    assert sorted(np.concatenate([shard.of(keys) for shard in shards])) == sorted(keys)
    for name, key in zip(ids, keys.tolist(), strict=True):
        assert sum(shard.has(key) for shard in shards) == 1
        assert [shard.has(key) for shard in shards] == [key in shard.of(keys) for shard in shards]
        assert name
    sizes = [len(shard.of(keys)) for shard in shards]
    assert min(sizes) > 0.6 * 500 / count


@pytest.mark.parametrize("text", ["0/4", "5/4", "a/4", "3", "3/", "-1/4"])
def test_wrong_shards(text):
    with pytest.raises(InputError, match="shard: expected"):
        Shard.parse(text)


def test_names_of_folders():
    assert folder_name("episode_3.a-b") == "episode_3.a-b"
    assert folder_name("a/b c") == "a%2fb%20c"
    assert folder_name("../..") == "%2e.%2f.."
    assert folder_name("é") == "%c3%a9"
    names = {folder_name("x" * 200 + str(i)) for i in range(20)}
    assert len(names) == 20 and max(map(len, names)) < 140
