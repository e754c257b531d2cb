"""LeRobotDataset v3.0: what is written is read, exact frames of a shared video, damaged files."""

import json
import subprocess
import sys

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from av.video.frame import PictureType
from robots import (
    CAMERA,
    CODES,
    DEPTH,
    FEATURES,
    FPS,
    LENGTHS,
    SIZE,
    add,
    depth_image,
    number_image,
    number_of,
    read_everything,
    rewrite,
)

from msdyn.errors import InputError
from msdyn.io import (
    DepthCodes,
    LeRobotDataset,
    LeRobotWriter,
    column_values,
    manifest_rows,
    read_depth_segment,
    read_video,
    scan_video,
)


def test_columns_are_read_as_they_were_written(written):
    root, columns = written
    dataset = LeRobotDataset(root)
    assert len(dataset) == 3 and dataset.info.robot_type == "arm" and dataset.info.fps == FPS
    assert dataset.cameras == [CAMERA, "observation.images.side"]
    assert dataset.depth_cameras == [DEPTH]
    assert dataset.tasks == {0: "pick", 1: "place"}
    first = 0
    for index, expected in enumerate(columns):
        episode = dataset.episode(index)
        assert (episode.from_index, episode.to_index) == (first, first + LENGTHS[index])
        table = dataset.frames(episode)
        for name, values in expected.items():
            read = column_values(table, name)
            assert read.shape == values.shape and read.dtype.kind == values.dtype.kind
            assert (read == values).all(), name
        assert column_values(table, "action").tobytes() == expected["action"].tobytes()
        assert column_values(table, "index").tolist() == list(range(first, episode.to_index))
        seconds = column_values(table, "timestamp")
        assert seconds.dtype == np.float32 and seconds == pytest.approx(
            np.arange(len(seconds)) / 10
        )
        assert set(column_values(table, "task_index").tolist()) == {index % 2}
        assert episode.tasks == (["pick", "place"][index % 2],)
        first = episode.to_index
    assert [e.index for e in dataset.episodes()] == [0, 1, 2]


def test_frames_of_an_episode_are_those_of_its_rows(written):
    root, _ = written
    dataset = LeRobotDataset(root)
    assert len(list((root / "videos" / CAMERA).rglob("*.mp4"))) == 1
    first = 0
    for index, length in enumerate(LENGTHS):
        episode = dataset.episode(index)
        segment = dataset.video_segment(episode, CAMERA)
        info = scan_video(segment.path, segment=segment.window)
        assert info.seconds == pytest.approx(np.arange(length) / FPS, abs=1e-4)
        images = list(read_video(segment.path, segment=segment.window))
        assert [number_of(image) for image in images] == list(range(first, first + length))
        chosen = list(read_video(segment.path, [1, 3], segment=segment.window))
        assert [number_of(image) for image in chosen] == [first + 1, first + 3]
        depth = list(read_depth_segment(dataset.video_segment(episode, DEPTH), CODES))
        for k, values in enumerate(depth):
            expected = depth_image(first + k)
            assert (values[:4, :4] == 0).all() and np.abs(values - expected).max() < 0.002
        first += length


def test_frames_between_b_frames_of_a_video_with_one_key_frame(tmp_path):
    """Of a group of 60 frames with B-frames, a part is decoded exactly, whatever is sought."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"g": "25", "bf": "3", "b_strategy": "0", "sc_threshold": "0"}
        for number in range(60):
            frame = av.VideoFrame.from_ndarray(number_image(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        kinds = {PictureType(frame.pict_type) for frame in container.decode(video=0)}
    assert PictureType.B in kinds
    for start in range(0, 55, 3):
        window = (start - 0.5) / FPS, (start + 3.5) / FPS
        numbers = [number_of(image) for image in read_video(path, segment=window)]
        assert numbers == list(range(start, start + 4))


def test_episodes_of_a_later_writer_go_to_new_files(copy):
    with LeRobotWriter(copy, FEATURES, FPS) as writer:
        columns = add(writer, 6, 100, 9, task="push")
        assert add(writer, 3, 120, 10) is not None
    dataset = LeRobotDataset(copy)
    assert len(dataset) == 5 and dataset.info.splits == {"train": "0:5"}
    assert dataset.tasks == {0: "pick", 1: "place", 2: "push"}
    episode = dataset.episode(3)
    assert (episode.chunk, episode.file, episode.from_index) == (0, 1, 18)
    read = column_values(dataset.frames(episode), "observation.state")
    assert (read == columns["observation.state"]).all()
    segment = dataset.video_segment(dataset.episode(4), CAMERA)
    assert segment.path.name == "file-001.mp4"
    assert [number_of(i) for i in read_video(segment.path, segment=segment.window)] == [
        120,
        121,
        122,
    ]
    read_everything(copy)


def test_an_interrupted_writer_leaves_the_dataset_as_it_was(copy):
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    with pytest.raises(KeyError), LeRobotWriter(copy, FEATURES, FPS) as writer:
        add(writer, 6, 100, 9)
        raise KeyError
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


def test_new_files_are_begun_at_the_sizes_of_the_dataset(tmp_path):
    root = tmp_path / "set"
    with LeRobotWriter(root, FEATURES, FPS) as writer:
        writer._info |= {"chunks_size": 2, "data_files_size_in_mb": 1e-6}
        writer._info |= {"video_files_size_in_mb": 1e-6}
        for index in range(3):
            add(writer, 60, 60 * index, index)  # an encoder holds some frames back
    dataset = LeRobotDataset(root)
    places = [(e.chunk, e.file, *e.videos[CAMERA][:3]) for e in dataset.episodes()]
    assert places == [(0, 0, 0, 0, 0.0), (0, 1, 0, 1, 0.0), (1, 0, 1, 0, 0.0)]
    read_everything(root)


def test_the_layout_is_the_documented_one(written):
    """Read with pyarrow and json alone, against the format's documentation."""
    root, columns = written
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["splits"] == {"train": "0:3"}
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 18, 2)
    assert info["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    assert info["video_path"] == (
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    )
    assert info["features"]["timestamp"] == {"dtype": "float32", "shape": [1], "names": None}
    assert info["features"][DEPTH]["info"]["is_depth_map"] is True
    data = pq.read_table(root / "data/chunk-000/file-000.parquet")
    assert data.num_rows == 18
    assert data.schema.field("observation.state").type == pa.list_(pa.float32(), 3)
    assert data.schema.field("observation.intrinsics.front").type == pa.list_(
        pa.list_(pa.float32())
    )
    assert data.schema.field("next.done").type == pa.bool_()
    assert data.schema.field("timestamp").type == pa.float32()
    assert data.schema.field("index").type == pa.int64() and CAMERA not in data.column_names
    tasks = pq.read_table(root / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert tasks.select(["task_index", "task"]).to_pydict() == {
        "task_index": [0, 1],
        "task": ["pick", "place"],
    }
    episodes = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet")
    rows = episodes.to_pylist()
    assert [row["length"] for row in rows] == list(LENGTHS)
    assert [row["tasks"] for row in rows] == [["pick"], ["place"], ["pick"]]
    starts = [row[f"videos/{CAMERA}/from_timestamp"] for row in rows]
    assert starts == pytest.approx([0, 0.5, 1.4])
    assert [row[f"videos/{CAMERA}/to_timestamp"] for row in rows] == pytest.approx([0.5, 1.4, 1.8])
    for row, expected in zip(rows, columns, strict=True):
        action = expected["action"].astype(np.float64)
        assert row["stats/action/mean"] == pytest.approx(action.mean(0))
        assert row["stats/action/std"] == pytest.approx(action.std(0))
        assert row["stats/action/q90"] == pytest.approx(np.quantile(action, 0.9, axis=0))
        assert row["stats/action/count"] == [len(action)]
        assert np.shape(row[f"stats/{CAMERA}/min"]) == (3, 1, 1)
    stats = json.loads((root / "meta/stats.json").read_text())
    state = np.concatenate([c["observation.state"] for c in columns]).astype(np.float64)
    assert stats["observation.state"]["mean"] == pytest.approx(state.mean(0))
    assert stats["observation.state"]["std"] == pytest.approx(state.std(0))
    assert stats["observation.state"]["min"] == pytest.approx(state.min(0))
    assert np.max(stats[CAMERA]["max"]) <= 1 and np.shape(stats[DEPTH]["mean"]) == (1, 1, 1)


def test_depth_codes_are_those_of_the_format():
    """lerobot 0.6: code = 4095 (log(z + s) - log(a + s)) / (log(b + s) - log(a + s))."""
    z = np.array([[0.0, 0.01, 1.0, 10.0, 20.0]], np.float32)
    expected = 4095 * (np.log(4.5) - np.log(3.51)) / (np.log(13.5) - np.log(3.51))
    assert CODES.encode(z).tolist() == [[0, 1, round(expected), 4095, 4095]]
    linear = DepthCodes(0.0, 4.095, 0.0, False)
    codes = linear.encode(np.array([[0, 0.001, 1.234]], np.float32))
    assert codes.tolist() == [[0, 1, 1234]]
    assert linear.decode(codes) == pytest.approx(np.array([[0, 0.001, 1.234]]))


def test_rows_of_a_manifest(written):
    root, _ = written
    rows = list(manifest_rows(LeRobotDataset(root), CAMERA))
    assert [row["clip"] for row in rows] == [f"episode_{i:06d}" for i in range(3)]
    assert {row["uri"] for row in rows} == {str(root)}
    assert rows[2]["preprocess"] == f"--from lerobot --episode 2 --camera={CAMERA}"
    assert [row["task"] for row in rows] == ["pick", "place", "pick"]
    assert rows[1]["episode"] == 1 and rows[1]["camera"] == CAMERA
    with pytest.raises(InputError, match="camera: expected one of observation.images.front, obs"):
        list(manifest_rows(LeRobotDataset(root), "wrist"))


def test_no_such_episode(written):
    with pytest.raises(InputError, match="episode: expected 0 to 2, got 3"):
        LeRobotDataset(written[0]).episode(3)


def test_a_row_group_of_an_episode_is_read_alone(copy, monkeypatch):
    """Of a file of several row groups, those of other episodes are not touched."""
    path = copy / "data/chunk-000/file-000.parquet"
    groups = pq.ParquetFile(path).metadata
    assert groups.num_row_groups == 3
    content = bytearray(path.read_bytes())
    column = groups.row_group(0).column(0)
    start = column.data_page_offset
    content[start : start + column.total_compressed_size // 2] = bytes(
        column.total_compressed_size // 2
    )
    path.write_bytes(content)
    dataset = LeRobotDataset(copy)
    assert dataset.frames(dataset.episode(2)).num_rows == 4
    with pytest.raises(InputError):
        dataset.frames(dataset.episode(0))


def test_a_dataset_of_other_features_is_not_appended_to(copy, tmp_path):
    other = {**FEATURES, "action": {"dtype": "float32", "shape": [7], "names": None}}
    with pytest.raises(InputError, match=r"other features or another frame rate \(action\)"):
        LeRobotWriter(copy, other, FPS)
    with pytest.raises(InputError, match=r"another frame rate \(10 fps\)"):
        LeRobotWriter(copy, FEATURES, 20)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").touch()
    with pytest.raises(InputError, match="exists and is no LeRobotDataset"):
        LeRobotWriter(tmp_path / "full", FEATURES, FPS)


def test_episodes_that_do_not_fit_the_features(tmp_path):
    features = {"action": FEATURES["action"], CAMERA: FEATURES[CAMERA]}
    action = np.zeros((2, 2), np.float32)
    images = [number_image(0)] * 2
    for columns, videos, match in [
        ({}, {CAMERA: images}, "not of it: action"),
        ({"action": action}, {}, f"not of it: {CAMERA}"),
        ({"action": action.astype(float)}, {CAMERA: images}, "action: expected values of type"),
        ({"action": action[:, :1]}, {CAMERA: images}, "action: expected values of shape"),
        ({"action": action}, {CAMERA: images[:1]}, "expected 2 images, got 1"),
        ({"action": action}, {CAMERA: [i[:16] for i in images]}, "expected images of 64x32"),
    ]:
        with (
            pytest.raises(InputError, match=match),
            LeRobotWriter(tmp_path / "set", features, FPS) as writer,
        ):
            writer.add_episode(columns, videos, "a")
        assert not (tmp_path / "set/meta").exists()


def test_a_missing_package_names_the_extra(written, monkeypatch):
    from msdyn.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"msdyn\[cluster\]"):
        LeRobotDataset(written[0]).episode(0)
    with pytest.raises(MissingExtraError, match=r"msdyn\[cluster\]"):
        LeRobotWriter(written[0], FEATURES, FPS)


@pytest.mark.reliability
def test_an_episode_of_a_large_table_takes_the_memory_of_the_episode(tmp_path):
    """32 MB of rows in one row group, of which one episode is read in batches."""
    features = {"action": {"dtype": "float32", "shape": [100], "names": None}}
    with LeRobotWriter(tmp_path / "set", features, FPS) as writer:
        for index in range(40):
            writer.add_episode({"action": np.full((2000, 100), index, np.float32)}, {}, "a")
    path = tmp_path / "set/data/chunk-000/file-000.parquet"
    rewrite(path, lambda table: table)
    assert pq.ParquetFile(path).metadata.num_row_groups == 1
    code = (
        "import sys, pyarrow; from msdyn.io import LeRobotDataset, column_values\n"
        "dataset = LeRobotDataset(sys.argv[1]); table = dataset.frames(dataset.episode(30))\n"
        "assert (column_values(table, 'action') == 30).all() and table.num_rows == 2000\n"
        "print(pyarrow.default_memory_pool().max_memory())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "set")]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 1e6 < int(out) < 12e6


@pytest.mark.reliability
def test_many_episodes_are_streamed(tmp_path):
    """The rows of a manifest come one at a time, whatever the number of episodes."""
    features = {"action": {"dtype": "float32", "shape": [1], "names": None}}
    with LeRobotWriter(tmp_path / "set", features, FPS) as writer:
        writer.add_episode({"action": np.zeros(2, np.float32)}, {}, "a")
    path = tmp_path / "set/meta/episodes/chunk-000/file-000.parquet"
    row = pq.read_table(path).to_pylist()[0]
    pq.write_table(pa.Table.from_pylist([row | {"episode_index": i} for i in range(9000)]), path)
    found = LeRobotDataset(tmp_path / "set").episodes()
    assert next(found).index == 0 and next(found).index == 1
    assert sum(1 for _ in found) == 8998
