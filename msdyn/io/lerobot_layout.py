"""The metadata of a LeRobotDataset v3.0: what its files say, checked; paths of its files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from msdyn.errors import InputError
from msdyn.reading import MOST_FRAMES, read_json, shown

__all__ = [
    "EPISODES",
    "INDEX_COLUMNS",
    "INFO",
    "STATS",
    "TASKS",
    "Episode",
    "Feature",
    "LeRobotInfo",
    "VideoSegment",
    "episode_of_row",
    "formatted_path",
    "read_info",
]

INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes"
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


def read_info(path: Path) -> dict[str, Any]:
    """Return `info.json` of a supported version, as it is.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not JSON, or of another version.
    """
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


def episode_of_row(row: dict[str, Any], keys: list[str]) -> Episode:
    """Return an episode from its row in the table of episodes.

    Args:
        row: values by column.
        keys: names of the features that are videos.

    Raises:
        InputError: a value is missing or of another type.
    """

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
