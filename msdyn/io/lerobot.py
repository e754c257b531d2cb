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
import shlex
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msdyn.errors import InputError
from msdyn.io.lerobot_layout import (
    EPISODES,
    INFO,
    TASKS,
    Episode,
    LeRobotInfo,
    VideoSegment,
    episode_of_row,
    formatted_path,
    read_info,
)
from msdyn.reading import (
    ParquetFile,
    as_schema,
    natural_order,
    opened_parquet,
    required_file,
    shown,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LeRobotDataset", "manifest_rows"]


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
        self.raw_info: dict[str, Any] = read_info(path)
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
                    yield from (
                        episode_of_row(row, self.cameras_and_depth) for row in batch.to_pylist()
                    )

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
                    return episode_of_row(rows[0], self.cameras_and_depth)
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
    """Yield a row per episode, as a manifest of `msdyn-batch` has them, one at a time.

    Args:
        dataset: of any number of episodes.
        camera: a feature that is a video in colour.

    Returns:
        Rows with `clip` ("episode_000003"), `uri` (the dataset), `preprocess` (the options that
        choose the episode and the camera), `episode`, `camera`, `dataset` (its name) and `task`.

    Raises:
        FileNotFoundError: a file is missing.
        InputError: there is no such camera, or a table is not as documented.
    """
    if camera not in dataset.cameras:
        raise InputError(
            f"{dataset.root}: camera: expected one of {', '.join(dataset.cameras)}, got {camera!r}"
        )
    for episode in dataset.episodes():
        yield {
            "clip": f"episode_{episode.index:06d}",
            "uri": str(dataset.root),
            "preprocess": shlex.join(
                ["--from", "lerobot", "--episode", str(episode.index), f"--camera={camera}"]
            ),
            "episode": episode.index,
            "camera": camera,
            "dataset": dataset.root.resolve().name,
            "task": "; ".join(episode.tasks),
        }
