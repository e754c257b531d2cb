"""LeRobotDataset v3.0: episodes of robots, as parquet tables and videos that hold several episodes.

    meta/info.json                              frame rate, features, templates of the paths
    meta/tasks.parquet                          task, task_index
    meta/episodes/chunk-000/file-000.parquet    a row per episode: where its rows and videos are
    data/chunk-000/file-000.parquet             a row per frame
    videos/KEY/chunk-000/file-000.mp4           frame k of an episode at from_timestamp + k / fps

Reference: the documentation and the reader of huggingface/lerobot, `src/lerobot/datasets`, 0.4 to
0.6. Links are followed, as the cache of the hub consists of them; paths in the metadata stay below
the folder of the dataset.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from msdyn.errors import InputError
from msdyn.reading import (
    MOST_FRAMES,
    ParquetFile,
    as_schema,
    natural_order,
    opened_parquet,
    read_json,
    required_file,
    shown,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Episode",
    "Feature",
    "LeRobotDataset",
    "LeRobotInfo",
    "VideoSegment",
    "formatted_path",
    "manifest_rows",
]

INFO, STATS, TASKS, EPISODES = (
    "meta/info.json",
    "meta/stats.json",
    "meta/tasks.parquet",
    "meta/episodes",
)
INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""The columns that every table of frames has."""
_IMAGE_DTYPES = ("image", "video")
_FIELD = re.compile(r"\{([a-z_]+)(?::0(\d)d)?\}")
_Count = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True)
class Feature:
    """A feature of `info.json`.

    Attributes:
        dtype: "video", "image", "string" or numpy's name of the type.
        shape: of a frame's value; of images (height, width, channels) or (channels, height, width),
            as `names` say.
        names: of the elements, of any form.
        info: of a video: its codec, whether it is depth, and how that is stored.
        video_info: the same, of older writers.
    """

    dtype: str
    shape: tuple[_Count, ...]
    names: Any = None
    info: dict[str, Any] | None = None
    video_info: dict[str, Any] | None = None

    @property
    def is_image(self) -> bool:
        """Whether its values are images, in videos or in the table."""
        return self.dtype in _IMAGE_DTYPES

    @property
    def is_depth(self) -> bool:
        """Whether its images are depth maps."""
        said = {**(self.video_info or {}), **(self.info or {})}
        return bool(said.get("is_depth_map", said.get("video.is_depth_map", False)))


@dataclass(frozen=True)
class LeRobotInfo:
    """The content of `info.json`.

    Attributes:
        codebase_version: "v3.0".
        fps: frames per second of all episodes.
        features: by name.
        data_path, video_path: templates of paths in the dataset.
        total_episodes, total_frames, total_tasks: of the dataset.
        robot_type: as the recorder named it.
        chunks_size: most files in a folder.
        data_files_size_in_mb, video_files_size_in_mb: size at which a new file is begun.
        splits: ranges of episodes, as "0:50", by name.
    """

    codebase_version: str
    fps: Annotated[float, msgspec.Meta(gt=0, le=100_000)]
    features: dict[str, Feature]
    data_path: str
    total_episodes: _Count
    total_frames: _Count
    total_tasks: _Count = 0
    video_path: str | None = None
    robot_type: str | None = None
    chunks_size: Annotated[int, msgspec.Meta(ge=1)] = 1000
    data_files_size_in_mb: Annotated[float, msgspec.Meta(gt=0)] = 100
    video_files_size_in_mb: Annotated[float, msgspec.Meta(gt=0)] = 200
    splits: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class VideoSegment:
    """The part of a video that is one episode of one camera.

    Attributes:
        path: of the video.
        start: seconds in it, of the first frame.
        end: seconds in it, of the end of the last frame.
        frames: number of frames.
        fps: frames per second.
    """

    path: Path
    start: float
    end: float
    frames: int
    fps: float

    @property
    def window(self) -> tuple[float, float]:
        """Seconds from half a frame before the first frame to half a frame after the last."""
        half = 0.5 / self.fps
        return self.start - half, self.start + self.frames / self.fps - half


@dataclass(frozen=True)
class Episode:
    """A row of the table of episodes.

    Attributes:
        index: of the episode.
        length: number of frames.
        tasks: in natural language.
        from_index, to_index: of its frames in the dataset; `to_index` is not in it.
        chunk, file: numbers in the path of its table.
        videos: by feature: chunk, file, from_timestamp and to_timestamp.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    from_index: int
    to_index: int
    chunk: int
    file: int
    videos: dict[str, tuple[int, int, float, float]]


class LeRobotDataset:
    """A LeRobotDataset v3.0 on this disk, opened for reading.

    Attributes:
        root: its folder.
        raw_info: `info.json` as it is.
        info: the same, checked.
    """

    def __init__(self, root: str | os.PathLike) -> None:
        """Read `info.json`.

        Raises:
            FileNotFoundError: there is no such dataset.
            InputError: of another version, or not as documented.
        """
        self.root = Path(root)
        path = required_file(
            self.root / INFO,
            "; expected the folder of a LeRobotDataset, with meta/, data/, videos/",
        )
        self.raw_info: dict[str, Any] = _read_info(path)
        self.info = as_schema(self.raw_info, LeRobotInfo, str(path))
        for name in self.info.features:
            if not name or "/" in name or "\\" in name or name in (".", "..") or "\0" in name:
                raise InputError(f"{path}: features: expected names without '/', got {shown(name)}")

    def __repr__(self) -> str:
        info = self.info
        return f"LeRobotDataset({str(self.root)!r}, {info.total_episodes} episodes)"

    def __len__(self) -> int:
        return self.info.total_episodes

    @property
    def cameras(self) -> list[str]:
        """Names of the features that are videos in colour."""
        features = self.info.features.items()
        return [name for name, f in features if f.dtype == "video" and not f.is_depth]

    @property
    def depth_cameras(self) -> list[str]:
        """Names of the features that are depth, as videos."""
        features = self.info.features.items()
        return [name for name, f in features if f.dtype == "video" and f.is_depth]

    @cached_property
    def tasks(self) -> dict[int, str]:
        """The tasks in natural language, by their index.

        Raises:
            FileNotFoundError: there is no table of tasks.
            InputError: not as documented.
        """
        tasks: dict[int, str] = {}
        with opened_parquet(self.root / TASKS) as table:
            # pandas calls the column of an index without a name __index_level_0__.
            text = next((n for n in ("task", "__index_level_0__") if n in table.columns), "task")
            for batch in table.batches(["task_index", text]):
                for index, task in zip(*(column.to_pylist() for column in batch), strict=True):
                    if type(index) is not int or not isinstance(task, str):
                        raise InputError(f"expected numbers and texts, got {shown((index, task))}")
                    tasks[index] = task
        return tasks

    def episodes(self) -> Iterator[Episode]:
        """Yield the episodes in the order of the files, without holding them all.

        Raises:
            FileNotFoundError: there is no table of episodes.
            InputError: a table is damaged or not as documented.
        """
        for path in self._episode_files():
            with opened_parquet(path) as table:
                for batch in table.batches(self._episode_columns(table)):
                    yield from (_episode(row, self.cameras_and_depth) for row in batch.to_pylist())

    def episode(self, index: int) -> Episode:
        """Return one episode.

        Raises:
            FileNotFoundError: there is no table of episodes.
            InputError: there is no such episode, or a table is not as documented.
        """
        for path in self._episode_files():
            with opened_parquet(path) as table:
                columns = self._episode_columns(table)
                rows = table.rows_of("episode_index", index, columns).to_pylist()
                if rows:
                    return _episode(rows[0], self.cameras_and_depth)
        raise InputError(
            f"{self.root}: episode: expected 0 to {self.info.total_episodes - 1}, got {index}"
        )

    @property
    def cameras_and_depth(self) -> list[str]:
        """Names of all features that are videos."""
        return [name for name, f in self.info.features.items() if f.dtype == "video"]

    def frames(self, episode: Episode) -> pa.Table:
        """Return the rows of an episode, in the order of its frames, without images.

        Raises:
            FileNotFoundError: the table is missing.
            InputError: the table is damaged, or its rows are not those that the metadata says.
        """
        numbers = {"chunk_index": episode.chunk, "file_index": episode.file}
        path = self.root / formatted_path(self.info.data_path, numbers, f"{self.root / INFO}")
        with opened_parquet(path) as table:
            images = {name for name, f in self.info.features.items() if f.is_image}
            columns = [name for name in table.columns if name not in images]
            for name in ("frame_index", "timestamp"):
                if name not in columns:
                    raise InputError(f"{name}: expected a column of this name, found none")
            rows = table.rows_of("episode_index", episode.index, columns)
            order = rows.column("frame_index").to_pylist()
            if sorted(o for o in order if o is not None) != list(range(episode.length)):
                raise InputError(
                    f"episode {episode.index}: expected frames 0 to {episode.length - 1}, "
                    f"got {len(order)} rows with other numbers"
                )
            seconds = np.array(rows.column("timestamp").to_pylist(), object)
            if not all(isinstance(s, float) and np.isfinite(s) for s in seconds):
                raise InputError(f"timestamp: expected finite seconds in episode {episode.index}")
            return rows if order == sorted(order) else rows.sort_by("frame_index")

    def video_segment(self, episode: Episode, key: str) -> VideoSegment:
        """Return where a camera's frames of an episode are.

        Raises:
            FileNotFoundError: the video is missing.
            InputError: there is no such camera, or the path leaves the dataset.
        """
        if key not in episode.videos:
            raise InputError(
                f"{self.root}: camera: expected one of {', '.join(self.cameras) or 'none'}, "
                f"got {shown(key)}"
            )
        if self.info.video_path is None:
            raise InputError(f"{self.root / INFO}: video_path: missing")
        chunk, file, start, end = episode.videos[key]
        numbers = {"video_key": key, "chunk_index": chunk, "file_index": file}
        path = self.root / formatted_path(self.info.video_path, numbers, f"{self.root / INFO}")
        required_file(path, f"; {INFO} and {EPISODES} of the dataset name it")
        return VideoSegment(path, start, end, episode.length, self.info.fps)

    def _episode_files(self) -> list[Path]:
        paths = sorted((self.root / EPISODES).glob("*/*.parquet"), key=natural_order)
        if not paths:
            raise FileNotFoundError(f"{self.root / EPISODES}: no parquet file of episodes in it")
        return paths

    def _episode_columns(self, table: ParquetFile) -> list[str]:
        columns = [
            *("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"),
            *("data/chunk_index", "data/file_index"),
        ]
        names = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        videos = (f"videos/{key}/{name}" for key in self.cameras_and_depth for name in names)
        return columns + [name for name in videos if name in table.columns]


def manifest_rows(dataset: LeRobotDataset, camera: str) -> Iterator[dict[str, Any]]:
    """Yield a row per episode of what `msdyn-batch` takes, one at a time.

    Args:
        dataset: of any number of episodes.
        camera: a feature that is a video in colour.

    Returns:
        Rows with `clip` ("episode_000003"), `uri` (the video), `start` and `end` (seconds in the
        video, of the first and of the last frame), `episode`, `camera`, `dataset` and `task`.

    Raises:
        FileNotFoundError: a file is missing.
        InputError: there is no such camera, or a table is not as documented.
    """
    for episode in dataset.episodes():
        segment = dataset.video_segment(episode, camera)
        yield {
            "clip": f"episode_{episode.index:06d}",
            "uri": str(segment.path),
            "start": segment.start,
            "end": segment.start + (segment.frames - 1) / segment.fps,
            "episode": episode.index,
            "camera": camera,
            "dataset": str(dataset.root),
            "task": "; ".join(episode.tasks),
        }


def formatted_path(template: str, values: Mapping[str, int | str], where: str) -> str:
    """Return a path of a template such as "data/chunk-{chunk_index:03d}/file-{file_index:03d}".

    Args:
        template: of a file of anybody: fields are names, with a number of digits at most.
        values: of the fields.
        where: the file, for the message.

    Raises:
        InputError: another kind of field, or a path that leaves the folder.
    """

    def text(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if value is None or (match[2] and not isinstance(value, int)):
            raise InputError(
                f"{where}: path {shown(template)}: expected fields of {', '.join(values)}, "
                f"got {shown(match[0])}"
            )
        return f"{value:0{match[2]}d}" if match[2] else str(value)

    path = _FIELD.sub(text, template)
    parts = Path(path).parts
    if not parts or Path(path).is_absolute() or ".." in parts or set(path) & set("{}\\\0"):
        raise InputError(
            f"{where}: path {shown(template)}: expected a path in the folder of the dataset, "
            f"got {shown(path)}"
        )
    return path


def _read_info(path: Path) -> dict[str, Any]:
    """Return `info.json` of a supported version."""
    content = read_json(path)
    version = content.get("codebase_version") if isinstance(content, dict) else None
    if not isinstance(version, str):
        raise InputError(f"{path}: codebase_version: expected a text such as 'v3.0'")
    if re.fullmatch(r"v?[12](\.\d+)*", version):
        raise InputError(
            f"{path}: codebase_version: expected v3.0, got {shown(version)}; convert the dataset "
            "with lerobot's convert_dataset_v21_to_v30"
        )
    if not re.fullmatch(r"v?3(\.\d+)*", version):
        raise InputError(f"{path}: codebase_version: expected v3.0, got {shown(version)}")
    return content


def _episode(row: dict[str, Any], keys: list[str]) -> Episode:
    """Return an episode from its row, checked."""

    def number(name: str, kind: type = int) -> Any:
        value: Any = row.get(name)
        if type(value) not in (int, kind) or not np.isfinite(value) or value < 0:
            raise InputError(f"{name}: expected a number of at least 0, got {shown(value)}")
        return kind(value)

    tasks = row["tasks"]
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise InputError(f"tasks: expected a list of texts, got {shown(tasks)}")
    length = number("length")
    if not 0 < length <= MOST_FRAMES:
        raise InputError(f"length: expected 1 to {MOST_FRAMES} frames, got {length}")
    videos = {
        key: (
            number(f"videos/{key}/chunk_index"),
            number(f"videos/{key}/file_index"),
            number(f"videos/{key}/from_timestamp", float),
            number(f"videos/{key}/to_timestamp", float),
        )
        for key in keys
        if row.get(f"videos/{key}/chunk_index") is not None
    }
    return Episode(
        number("episode_index"),
        length,
        tuple(tasks),
        number("dataset_from_index"),
        number("dataset_to_index"),
        number("data/chunk_index"),
        number("data/file_index"),
        videos,
    )
