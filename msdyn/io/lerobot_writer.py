"""Writing a LeRobotDataset v3.0: new ones, and further episodes of one that is there.

The episodes of one `LeRobotWriter` share a table and, per camera, a video, up to the sizes that
`info.json` gives; those of a later writer go to new files. Files get their names when they are
complete, and `info.json` is written last: an interrupted writer leaves the dataset as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from msdyn.errors import InputError
from msdyn.io.lerobot import LeRobotDataset
from msdyn.io.lerobot_columns import feature_column
from msdyn.io.lerobot_layout import (
    EPISODES,
    INDEX_COLUMNS,
    INFO,
    STATS,
    TASKS,
    Feature,
    LeRobotInfo,
    formatted_path,
)
from msdyn.io.lerobot_stats import ImageStats, Stats, merged_stats, value_stats
from msdyn.io.lerobot_videos import EpisodeVideo, depth_codes
from msdyn.reading import (
    as_schema,
    load_pyarrow,
    natural_order,
    opened_parquet,
    read_json,
    reading,
)
from msdyn.writing import LOCK, atomic_path, write_json

__all__ = ["LeRobotWriter"]

_CRF, _LOSSLESS = 18, 0
"""Rate factors of x264."""
_CHUNK = "chunk-{chunk_index:03d}/file-{file_index:03d}"
_DATA_PATH = f"data/{_CHUNK}.parquet"
_VIDEO_PATH = f"videos/{{video_key}}/{_CHUNK}.mp4"
_INDEX_FEATURES: dict[str, Any] = {
    name: {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
    for name in INDEX_COLUMNS
}


@dataclass
class _Files:
    """The numbers of the files being written, and what is open of them."""

    data: tuple[int, int]
    meta: tuple[int, int]
    videos: dict[str, tuple[int, int]]
    open_videos: dict[str, tuple[EpisodeVideo, contextlib.ExitStack]] = field(default_factory=dict)
    rows: list[Any] = field(default_factory=list)
    row_bytes: int = 0


class LeRobotWriter:
    """A context manager that adds episodes to a dataset, which it makes where there is none."""

    def __init__(
        self,
        root: str | os.PathLike,
        features: Mapping[str, Mapping[str, Any]],
        fps: float,
        *,
        robot_type: str | None = None,
    ) -> None:
        """Begin writing.

        Args:
            root: folder of a dataset with the same features and frame rate, or a new one.
            features: as in `info.json`, without those of every dataset (timestamp, frame_index,
                episode_index, index, task_index).
            fps: frames per second.
            robot_type: name of the robot.

        Raises:
            InputError: the folder holds something else, or a dataset of other features.
            MissingExtraError: pyarrow is not installed.
        """
        load_pyarrow()
        self.root = Path(root)
        given = {name: dict(feature) for name, feature in features.items()}
        self._stats: dict[str, Stats] = {}
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        if (self.root / INFO).is_file():
            self._info, self._files = self._resume(given, fps)
        else:
            if any(path.is_file() and path.name != LOCK for path in self.root.rglob("*")):
                raise InputError(f"{self.root}: exists and is no LeRobotDataset; choose another")
            videos = any(feature["dtype"] == "video" for feature in given.values())
            self._info = _new_info({**given, **_INDEX_FEATURES}, fps, robot_type, videos)
            self._files = _Files((0, 0), (0, 0), {})
        checked = as_schema(self._info, LeRobotInfo, f"{self.root / INFO}")
        self.features: dict[str, Feature] = checked.features
        self.fps = checked.fps

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for _, stack in self._files.open_videos.values():
            stack.__exit__(kind, error, traceback)
        if kind is None and self._rows:
            self._finish()

    @property
    def videos(self) -> list[str]:
        """Names of the features that are videos."""
        return [name for name, feature in self.features.items() if feature.dtype == "video"]

    def add_episode(
        self,
        columns: Mapping[str, Shaped[np.ndarray, "frames ..."]],
        videos: Mapping[str, Iterable[Shaped[np.ndarray, "height width ..."]]],
        tasks: str | Sequence[str],
        *,
        timestamps: Float[np.ndarray, " frames"] | None = None,
    ) -> int:
        """Append an episode and return its index.

        Args:
            columns: values of the features that are not videos, by name.
            videos: images of every frame by name: RGB, or depth in metres.
            tasks: in natural language, one for all frames or one for each.
            timestamps: seconds from the first frame; by default those of the frame rate.

        Raises:
            InputError: a feature is missing, of another shape or type, or has more or fewer frames
                than the others.
        """
        wanted = {n for n, f in self.features.items() if n not in INDEX_COLUMNS and not f.is_image}
        if set(columns) != wanted or set(videos) != set(self.videos):
            differing = sorted((set(columns) ^ wanted) | (set(videos) ^ set(self.videos)))
            raise InputError(
                f"episode: expected values of the features of the dataset; missing or not of it: "
                f"{', '.join(differing)}"
            )
        frames = len(next(iter(columns.values()))) if columns else len(timestamps or ())
        if frames < 1:
            raise InputError("episode: expected at least one frame")
        index, first = self._info["total_episodes"], self._info["total_frames"]
        tasks = [tasks] * frames if isinstance(tasks, str) else list(tasks)
        task_index = np.array([self._tasks.setdefault(t, len(self._tasks)) for t in tasks])
        if timestamps is None:
            timestamps = np.arange(frames) / self.fps
        values = {
            **columns,
            "timestamp": np.asarray(timestamps, np.float32),
            "frame_index": np.arange(frames),
            "episode_index": np.full(frames, index),
            "index": np.arange(first, first + frames),
            "task_index": task_index,
        }
        stats = self._add_rows(values, frames)
        row: dict[str, Any] = {
            "episode_index": index,
            "tasks": list(dict.fromkeys(tasks)),
            "length": frames,
            "data/chunk_index": self._files.data[0],
            "data/file_index": self._files.data[1],
            "dataset_from_index": first,
            "dataset_to_index": first + frames,
        }
        for key in self.videos:
            placed, stats[key] = self._add_video(key, videos[key], frames)
            row |= placed
        for name, of_feature in stats.items():
            row |= {f"stats/{name}/{key}": value for key, value in of_feature.items()}
        row["meta/episodes/chunk_index"], row["meta/episodes/file_index"] = self._files.meta
        self._rows.append(row)
        self._stats = merged_stats(self._stats, stats)
        self._info["total_episodes"], self._info["total_frames"] = index + 1, first + frames
        return index

    def _add_rows(self, values: Mapping[str, Any], frames: int) -> dict[str, Stats]:
        """Keep the rows of an episode for the table; return the statistics of its columns."""
        pa = load_pyarrow()
        arrays, stats = {}, {}
        for name, feature in self.features.items():
            if feature.is_image:
                continue
            array = np.asarray(values[name])
            if len(array) != frames:
                raise InputError(f"{name}: expected values of {frames} frames, got {len(array)}")
            try:
                arrays[name] = feature_column(array, feature.dtype, feature.shape)
            except InputError as error:
                raise InputError(f"{name}: {error}") from error
            if feature.dtype != "string":
                stats[name] = value_stats(array)
        table = pa.table(arrays)
        limit = self._info["data_files_size_in_mb"] * 2**20
        if self._files.rows and self._files.row_bytes + table.nbytes > limit:
            self._write_rows()
        self._files.rows.append(table)
        self._files.row_bytes += table.nbytes
        return stats

    def _write_rows(self) -> None:
        """Write the rows that are kept, a row group per episode, and go on with the next file."""
        chunk, file = self._files.data
        name = formatted_path(
            self._info["data_path"], {"chunk_index": chunk, "file_index": file}, "data_path"
        )
        _write_tables(self.root / name, self._files.rows)
        self._files.rows, self._files.row_bytes = [], 0
        self._files.data = self._next(self._files.data)

    def _add_video(
        self, key: str, images: Iterable[Any], frames: int
    ) -> tuple[dict[str, Any], Stats]:
        """Append the frames of an episode to the video of a camera."""
        limit = self._info["video_files_size_in_mb"] * 2**20
        if key in self._files.open_videos and self._files.open_videos[key][0].size > limit:
            self._files.open_videos.pop(key)[1].close()
            self._files.videos[key] = self._next(self._files.videos[key])
        feature = self.features[key]
        numbers = self._files.videos.setdefault(key, (0, 0))
        if key not in self._files.open_videos:
            values: dict[str, int | str] = {"video_key": key}
            values |= {"chunk_index": numbers[0], "file_index": numbers[1]}
            path = self.root / formatted_path(self._info["video_path"], values, "video_path")
            stack = contextlib.ExitStack()
            depth = depth_codes(feature, key) if feature.is_depth else None
            crf = _LOSSLESS if (feature.info or {}).get("is_mask") else _CRF
            opened = stack.enter_context(EpisodeVideo(path, self.fps, depth, crf))
            self._files.open_videos[key] = opened, stack
        video = self._files.open_videos[key][0]
        start, stats, count = video.seconds, ImageStats(), 0
        height, width = feature.shape[:2]
        for image in images:
            if image.shape[:2] != (height, width):
                raise InputError(
                    f"{key}: expected images of {width}x{height}, got {image.shape[1::-1]}"
                )
            video.add(image, first=count == 0)
            stats.add(image[..., None] if feature.is_depth else image,
                      1.0 if feature.is_depth else 1 / 255)  # fmt: skip
            count += 1
        if count != frames:
            raise InputError(f"{key}: expected {frames} images, got {count}")
        placed = {
            f"videos/{key}/chunk_index": numbers[0],
            f"videos/{key}/file_index": numbers[1],
            f"videos/{key}/from_timestamp": start,
            f"videos/{key}/to_timestamp": video.seconds,
        }
        return placed, stats.result()

    def _finish(self) -> None:
        """Write what is kept; `info.json` last."""
        pa = load_pyarrow()
        episodes = self._episode_table()
        self._write_rows()
        chunk, file = self._files.meta
        name = f"{EPISODES}/{_CHUNK}.parquet".format(chunk_index=chunk, file_index=file)
        _write_tables(self.root / name, [episodes])
        tasks = pa.table(
            {"task_index": pa.array(self._tasks.values(), pa.int64()), "task": [*self._tasks]}
        )
        _write_tables(self.root / TASKS, [tasks.replace_schema_metadata(_pandas_index())])
        write_json(self.root / STATS, self._stats)
        self._info["total_tasks"] = len(self._tasks)
        self._info["splits"] = {"train": f"0:{self._info['total_episodes']}"}
        write_json(self.root / INFO, self._info)

    def _episode_table(self) -> Any:
        """Return the rows of the new episodes, in the columns of those that are there.

        Raises:
            InputError: their statistics are of other shapes.
        """
        pa = load_pyarrow()
        there = sorted((self.root / EPISODES).glob("*/*.parquet"), key=natural_order)
        if not there:
            return pa.Table.from_pylist(self._rows)
        with (
            opened_parquet(there[0]) as table,
            reading(there[0], "table of episodes to append to"),
        ):
            return pa.Table.from_pylist(self._rows, schema=table.schema)

    def _resume(
        self, given: dict[str, dict[str, Any]], fps: float
    ) -> tuple[dict[str, Any], _Files]:
        """Return the metadata of the dataset that is there, and the numbers of new files."""
        dataset = LeRobotDataset(self.root)
        known = {n: f for n, f in dataset.raw_info["features"].items() if n not in INDEX_COLUMNS}
        same = _comparable(known) == _comparable(given)
        if not same or dataset.info.fps != fps:
            differing = sorted(
                name
                for name in known.keys() | given.keys()
                if _comparable(known).get(name) != _comparable(given).get(name)
            )
            raise InputError(
                f"{self.root}: holds a dataset of other features or another frame rate "
                f"({', '.join(differing) or f'{dataset.info.fps:g} fps'}); choose another folder"
            )
        self._tasks = {task: index for index, task in dataset.tasks.items()}
        if (self.root / STATS).is_file():
            self._stats = read_json(self.root / STATS)
        info = dict(dataset.raw_info)
        data = meta = -1
        videos: dict[str, int] = {}
        size = info["chunks_size"] = dataset.info.chunks_size
        info["data_files_size_in_mb"] = dataset.info.data_files_size_in_mb
        info["video_files_size_in_mb"] = dataset.info.video_files_size_in_mb
        for episode in dataset.episodes():
            data = max(data, episode.chunk * size + episode.file)
            for key, (chunk, file, *_) in episode.videos.items():
                videos[key] = max(videos.get(key, -1), chunk * size + file)
        for path in (self.root / EPISODES).glob("chunk-*/file-*.parquet"):
            chunk, file = (int(part.split("-")[1]) for part in (path.parent.name, path.stem))
            meta = max(meta, chunk * size + file)
        place: Callable[[int], tuple[int, int]] = lambda last: divmod(last + 1, size)  # noqa: E731
        files = _Files(place(data), place(meta), {key: place(last) for key, last in videos.items()})
        return info, files

    def _next(self, numbers: tuple[int, int]) -> tuple[int, int]:
        """Return the chunk and file after a file."""
        size = self._info["chunks_size"]
        return divmod(numbers[0] * size + numbers[1] + 1, size)


def _new_info(
    features: dict[str, Any], fps: float, robot_type: str | None, videos: bool
) -> dict[str, Any]:
    whole = int(fps) if fps == int(fps) else fps
    return {
        "codebase_version": "v3.0",
        "robot_type": robot_type,
        "total_episodes": 0,
        "total_frames": 0,
        "total_tasks": 0,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": whole,
        "splits": {},
        "data_path": _DATA_PATH,
        "video_path": _VIDEO_PATH if videos else None,
        "features": features,
    }


def _comparable(features: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be the same in all episodes of a dataset, by feature."""
    return {
        name: (f["dtype"], list(f["shape"]), json.dumps(f.get("names")))
        for name, f in features.items()
    }


def _write_tables(path: Path, tables: Sequence[Any]) -> None:
    """Write tables of one schema as a parquet file, a row group each."""
    for first, other in pairwise(tables):
        assert first.schema.equals(other.schema), "episodes have the features of the dataset"
    with (
        atomic_path(path) as temporary,
        load_pyarrow("pyarrow.parquet").ParquetWriter(temporary, tables[0].schema) as writer,
    ):
        for table in tables:
            writer.write_table(table, row_group_size=max(len(table), 1))


def _pandas_index() -> dict[bytes, bytes]:
    """Return the metadata by which pandas takes the column of tasks for the index of the table."""
    columns = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64",
         "numpy_type": "int64", "metadata": None},
        {"name": "task", "field_name": "task", "pandas_type": "unicode",
         "numpy_type": "object", "metadata": None},
    ]  # fmt: skip
    text = {"index_columns": ["task"], "column_indexes": [], "columns": columns,
            "creator": {"library": "msdyn", "version": "1"}, "pandas_version": "2.0.0"}  # fmt: skip
    return {b"pandas": json.dumps(text).encode()}
