"""Damaged LeRobot datasets, and those that lead elsewhere: one line each."""

import shutil

import pyarrow as pa
import pytest
from robots import (
    CAMERA,
    DEPTH,
    edit_info,
    read_everything,
    rewrite,
)

from msdyn.errors import InputError
from msdyn.io import (
    LeRobotDataset,
    scan_video,
)
from msdyn.io.lerobot_layout import formatted_path


def refused(root, match):
    with pytest.raises((InputError, FileNotFoundError), match=match) as caught:
        read_everything(root)
    message = str(caught.value)
    assert message.startswith(str(root)) and "\n" not in message and len(message) < 700
    return message


@pytest.mark.parametrize(
    "template",
    [
        "../{chunk_index}.parquet",
        "/etc/{chunk_index}",
        "data/{chunk_index:09999d}/{file_index}",
        "data/{chunk_index.__class__}/{file_index}",
        "data/{other}/{file_index}",
        "data/{video_key:03d}",
        "data/{chunk_index",
        "",
        "{video_key}/../../a",
    ],
)
def test_paths_that_leave_the_dataset(template):
    values = {"video_key": "..", "chunk_index": 1, "file_index": 2}
    with pytest.raises(InputError, match="path"):
        formatted_path(template, values, "info.json")


def test_paths_of_templates():
    path = formatted_path(
        "a/{chunk_index:03d}/f{file_index}", {"chunk_index": 1, "file_index": 2}, ""
    )
    assert path == "a/001/f2"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda i: i.update(codebase_version="v2.1"), "convert_dataset_v21_to_v30"),
        (lambda i: i.update(codebase_version="v4.0"), "expected v3.0, got 'v4.0'"),
        (lambda i: i.pop("codebase_version"), "codebase_version"),
        (lambda i: i.update(fps=0), "fps"),
        (lambda i: i.update(fps="ten"), "fps: expected float"),
        (lambda i: i.pop("features"), "features: missing"),
        (lambda i: i.update(features=[]), "features"),
        (lambda i: i["features"].update({"a/../b": i["features"]["action"]}), "without '/'"),
        (lambda i: i["features"]["action"].update(shape=[-1]), "features"),
        (lambda i: i.update(data_path="../../{chunk_index}"), "folder of the dataset"),
        (lambda i: i.update(video_path="/etc/{video_key}"), "folder of the dataset"),
        (lambda i: i.update(video_path=None), "video_path: missing"),
        (lambda i: i["features"][DEPTH]["info"].pop("video.shift"), "does not say video.shift"),
    ],
)  # fmt: skip
def test_damaged_metadata(copy, change, match):
    edit_info(copy, change)
    if "video.shift" in match:
        with pytest.raises(InputError, match=match):
            read_everything(copy)
    else:
        refused(copy, match)


@pytest.mark.parametrize(
    "name",
    [
        "meta/info.json",
        "meta/tasks.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "data/chunk-000/file-000.parquet",
        f"videos/{CAMERA}/chunk-000/file-000.mp4",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "zeros", "text"])
def test_damaged_files(copy, name, damage):
    path = copy / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        half = content[: len(content) // 2]
        path.write_bytes(
            {"empty": b"", "cut": half, "zeros": half + bytes(len(half)), "text": b"PAR1 no PAR1"}[
                damage
            ]
        )
    refused(copy, ".")


def test_damaged_tables(copy):
    data = copy / "data/chunk-000/file-000.parquet"
    rewrite(data, lambda t: t.drop_columns(["frame_index"]))
    refused(copy, "frame_index: expected a column")
    shutil.copy(copy / "meta/tasks.parquet", data)
    refused(copy, "expected a column of this name")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.slice(1), "expected frames 0 to 4, got 4 rows"),
        (lambda t: t.set_column(t.column_names.index("timestamp"), "timestamp",
                                pa.array(["x"] * 18)), "timestamp: expected finite"),
        (lambda t: t.set_column(t.column_names.index("action"), "action",
                                pa.array([[1.0, None]] * 18)), "action: expected a value"),
        (lambda t: t.set_column(t.column_names.index("action"), "action",
                                pa.array([[1.0]] + [[1.0, 2.0]] * 17)), "lists of one length"),
        (lambda t: t.set_column(t.column_names.index("action"), "action",
                                pa.array([{"a": 1}] * 18)), "action: expected numbers, texts"),
        (lambda t: t.set_column(t.column_names.index("episode_index"), "episode_index",
                                pa.array([0.5] * 18)), "episode_index: expected a column of int"),
    ],
)  # fmt: skip
def test_tables_of_other_values(copy, change, match):
    rewrite(copy / "data/chunk-000/file-000.parquet", change)
    with pytest.raises(InputError, match=match):
        read_everything(copy)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("length", 0, "length: expected 1 to"),
        ("length", 10**9, "length: expected 1 to"),
        ("tasks", "pick", "tasks: expected a list"),
        ("dataset_from_index", -1, "dataset_from_index: expected a number"),
        ("data/chunk_index", 7, "no such file"),
        (f"videos/{CAMERA}/file_index", 9, "no such file"),
        (f"videos/{CAMERA}/from_timestamp", 1.7, "expected 5 frames of the episode|frames"),
    ],
)
def test_damaged_table_of_episodes(copy, name, value, match):
    def change(table):
        rows = table.to_pylist()
        for row in rows:
            row[name] = value
        return pa.Table.from_pylist(rows)

    rewrite(copy / "meta/episodes/chunk-000/file-000.parquet", change)
    if "from_timestamp" in name:
        dataset = LeRobotDataset(copy)
        segment = dataset.video_segment(dataset.episode(0), CAMERA)
        assert len(scan_video(segment.path, segment=segment.window).seconds) == 1
    else:
        refused(copy, match)
