"""The robot in a scene directory: states and actions of the episode that its frames are from.

    robot.json   dataset, episode, camera, tasks, features of the columns, columns of texts
    robot.npz    the other columns, a row per frame of the episode

Rows are those of the whole episode; frame t of the scene is row `source_frames[t]` of the record of
the frames stage.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from jaxtyping import Float, Int, Shaped

from msdyn.errors import InputError
from msdyn.reading import as_schema, load_npz, read_json, reading
from msdyn.scene.npz import save_npz
from msdyn.scene.scene import Scene
from msdyn.writing import write_json

__all__ = ["RobotEpisode", "read_robot", "write_robot"]

JSON, NPZ = "robot.json", "robot.npz"
FORMAT, VERSION = "msdyn-robot", 1


@dataclass(frozen=True)
class RobotEpisode:
    """An episode of a robot dataset.

    Attributes:
        dataset: name of the dataset's folder.
        dataset_digest: of its metadata.
        episode: index in the dataset.
        camera: name of the feature that the frames are from.
        fps: frames per second of the dataset.
        tasks: in natural language, of each row.
        features: of the columns, as the dataset has them: dtype, shape, names.
        columns: values by name, a row per frame of the episode; texts are arrays of texts.
        robot_type: as the dataset has it.
        found: in words, what cameras and depth of the dataset are used.
    """

    dataset: str
    dataset_digest: str
    episode: int
    camera: str
    fps: float
    tasks: tuple[str, ...]
    features: dict[str, dict[str, Any]]
    columns: dict[str, Shaped[np.ndarray, "frames ..."]]
    robot_type: str | None = None
    found: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            if len(values) != len(self.tasks):
                raise InputError(f"{name}: expected {len(self.tasks)} rows, got {len(values)}")

    def __len__(self) -> int:
        """The number of frames of the episode."""
        return len(self.tasks)

    def column(self, name: str) -> Shaped[np.ndarray, "frames ..."]:
        """Return a column.

        Raises:
            InputError: there is no such column.
        """
        if name not in self.columns:
            raise InputError(
                f"{self.dataset}: expected one of {', '.join(self.columns)}, got {name!r}"
            )
        return self.columns[name]

    @property
    def state(self) -> Shaped[np.ndarray, "frames ..."]:
        """The column `observation.state`."""
        return self.column("observation.state")

    @property
    def action(self) -> Shaped[np.ndarray, "frames ..."]:
        """The column `action`."""
        return self.column("action")

    @property
    def seconds(self) -> Float[np.ndarray, " frames"]:
        """The column `timestamp`: seconds from the first frame of the episode."""
        return self.column("timestamp")

    def names(self, name: str) -> Any:
        """Return the names of the elements of a column, as the dataset has them."""
        return self.features.get(name, {}).get("names")

    def rows_of(self, scene: Scene) -> Int[np.ndarray, " scene_frames"]:
        """Return the row of each frame of the scene.

        Raises:
            InputError: the frames of the scene are not of this episode.
        """
        record = scene.info.stages.get("frames")
        rows = np.array(record["options"].get("source_frames", []) if record else [], int)
        if len(rows) != len(scene) or not ((rows >= 0) & (rows < len(self))).all():
            raise InputError(f"{scene.directory}: its frames are not those of {JSON}")
        return rows


@dataclass(frozen=True)
class _File:
    """The content of `robot.json`."""

    dataset: str
    dataset_digest: str
    episode: Annotated[int, msgspec.Meta(ge=0)]
    camera: str
    fps: Annotated[float, msgspec.Meta(gt=0)]
    tasks: tuple[str, ...]
    features: dict[str, dict[str, Any]]
    arrays: dict[str, str]
    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    robot_type: str | None = None
    found: tuple[str, ...] = ()


def write_robot(directory: str | os.PathLike, robot: RobotEpisode) -> None:
    """Write the robot of a scene directory."""
    directory = Path(directory)
    texts = {n: values for n, values in robot.columns.items() if values.dtype.kind == "U"}
    numbers = {n: values for n, values in robot.columns.items() if n not in texts}
    arrays = {name: f"column_{index}" for index, name in enumerate(numbers)}
    save_npz(directory / NPZ, **{arrays[name]: values for name, values in numbers.items()})
    write_json(
        directory / JSON,
        {
            "format": FORMAT,
            "version": VERSION,
            "dataset": robot.dataset,
            "dataset_digest": robot.dataset_digest,
            "robot_type": robot.robot_type,
            "episode": robot.episode,
            "camera": robot.camera,
            "fps": robot.fps,
            "tasks": list(robot.tasks),
            "found": list(robot.found),
            "features": robot.features,
            "arrays": arrays,
            "texts": {name: values.tolist() for name, values in texts.items()},
        },
    )


def read_robot(directory: str | os.PathLike) -> RobotEpisode | None:
    """Return the robot of a scene directory; None where it has none.

    Raises:
        InputError: a file is damaged, or of another format or version.
    """
    path = Path(directory) / JSON
    if not path.is_file():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: format: expected {FORMAT!r}")
    if content.get("version") != VERSION:
        raise InputError(f"{path}: version: expected {VERSION}, got {content.get('version')!r}")
    file = as_schema(content, _File, str(path))
    columns = load_npz(path.with_name(NPZ), tuple(file.arrays.values()))
    values = {name: columns[key] for name, key in file.arrays.items()}
    values |= {name: np.array(texts, str) for name, texts in file.texts.items()}
    with reading(path.with_name(NPZ), "robot"):
        return RobotEpisode(
            file.dataset,
            file.dataset_digest,
            file.episode,
            file.camera,
            file.fps,
            file.tasks,
            file.features,
            {name: values[name] for name in [*file.features, *values] if name in values},
            file.robot_type,
            file.found,
        )
