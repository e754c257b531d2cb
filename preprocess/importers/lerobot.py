"""`msdyn-preprocess --from lerobot DIR`: an episode of a LeRobotDataset as a scene directory.

The frames are those of the episode in the video of one camera: frame k of the clip is row k of the
episode's table. Intrinsics, poses and depth of the dataset are used where it has them and no other
backend is named; else everything is estimated as for any video.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from msdyn.errors import InputError, PoorInputError
from msdyn.io import (
    Calibration,
    Episode,
    LeRobotDataset,
    VideoSegment,
    column_values,
    depth_codes,
    depth_feature,
    find_calibration,
    image_size,
    read_depth_segment,
)
from msdyn.io.lerobot_layout import INFO
from msdyn.preprocess.config import PreprocessConfig
from msdyn.preprocess.lerobot_config import EpisodeConfig, LerobotConfig
from msdyn.preprocess.pipeline import preprocess_video
from msdyn.preprocess.progress import progress
from msdyn.preprocess.records import content_digest
from msdyn.scene import RobotEpisode, Scene, write_cameras, write_depth, write_robot
from msdyn.writing import writing_to

__all__ = ["preprocess_lerobot"]

_log = logging.getLogger(__name__)


def preprocess_lerobot(config: LerobotConfig) -> Scene:
    """Make, or bring up to date, the scene directory of an episode.

    `robot.json` and `robot.npz` in it have the states, actions and other columns of the episode,
    see `RobotEpisode`.

    Raises:
        FileNotFoundError: not a LeRobotDataset, or a file of it is missing.
        InputError: a file is invalid, there is no such episode or camera, or as for
            `preprocess_video`.
        MissingExtraError: pyarrow is not installed.
        PoorInputError, ResourceError: as for `preprocess_video`.
    """
    dataset = LeRobotDataset(config.video)
    camera = _chosen_camera(dataset, config.camera)
    episode = dataset.episode(config.episode)
    segment = dataset.video_segment(episode, camera)
    table = dataset.frames(episode)
    calibration = find_calibration(dataset, table, camera)
    directory = config.directory
    if directory.resolve().is_relative_to(config.video.resolve()):
        raise InputError(f"{directory}: is in the dataset itself; choose another with --out")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / ".cache").is_dir():
        raise InputError(
            f"{directory}: exists and was not made by msdyn-preprocess; choose another with --out"
        )
    with writing_to(directory):
        name = f"{config.video.resolve().name} episode {episode.index} {camera}"
        files = directory / ".cache" / "lerobot" / f"{episode.index:06d}-{camera}"
        given, found = _given(config, dataset, episode, camera, calibration, files)
        for line in found:
            _log.warning("lerobot: %s: %s", name, line)
        options = _episode_options(config, segment, name, given)
        columns = {n: column_values(table, n) for n in table.column_names}
        robot = RobotEpisode(
            dataset=config.video.resolve().name,
            dataset_digest=content_digest(dataset.root / INFO),
            episode=episode.index,
            camera=camera,
            fps=dataset.info.fps,
            tasks=_tasks_of_rows(dataset, episode, columns),
            features={n: f for n, f in dataset.raw_info["features"].items() if n in columns},
            columns=columns,
            robot_type=dataset.info.robot_type,
            found=tuple(found),
        )
        try:
            scene = preprocess_video(options)
        except PoorInputError:  # what is done so far is kept, and is of this episode
            write_robot(directory, robot)
            raise
        write_robot(directory, robot)
    return scene


def _chosen_camera(dataset: LeRobotDataset, camera: str | None) -> str:
    """Return the camera that is asked for, or the only one.

    Raises:
        InputError: there is no such camera, or there are several and none is chosen.
    """
    found = dataset.cameras
    if camera is None and len(found) == 1:
        return found[0]
    if camera in found:
        return camera
    images = [name for name, f in dataset.info.features.items() if f.dtype == "image"]
    if not found and images:
        raise InputError(
            f"{dataset.root}: its cameras ({', '.join(images)}) are images in tables; expected "
            "videos: convert them with lerobot-edit-dataset"
        )
    if not found:
        raise InputError(f"{dataset.root}: expected a dataset with a camera, found none")
    got = "none" if camera is None else repr(camera)
    raise InputError(f"--camera: expected one of {', '.join(found)}, got {got}")


def _episode_options(
    config: LerobotConfig, segment: VideoSegment, name: str, given: dict[str, Any]
) -> EpisodeConfig:
    """Return the options of the video of an episode."""
    options = {f.name: getattr(config, f.name) for f in dataclasses.fields(PreprocessConfig)}
    start, end = segment.window
    return EpisodeConfig(
        **{
            **options,
            "video": segment.path,
            "out": config.directory,
            **given,
            "name": name,
            "first_second": start,
            "last_second": end,
            "length": segment.frames,
        }
    )


def _given(
    config: LerobotConfig,
    dataset: LeRobotDataset,
    episode: Episode,
    camera: str,
    calibration: Calibration,
    files: Path,
) -> tuple[dict[str, Any], list[str]]:
    """Write cameras and depth of the dataset in the layout of the `files` backends.

    Returns:
        The options that they give, and what was found, in words.
    """
    given: dict[str, Any] = {}
    found = []
    size = image_size(dataset.info.features[camera])
    shutil.rmtree(files, ignore_errors=True)
    if config.cameras is None and config.intrinsics is None:
        cameras = calibration.cameras(size, f"{config.video}: episode {episode.index}")
        if cameras is not None:
            write_cameras(files / "cameras.json", cameras)
            given = {
                "cameras": "files",
                "cameras_path": files / "cameras.json",
                "world_units": "metric",
            }
        elif calibration.intrinsics is not None:
            k = calibration.intrinsics
            if np.abs(k - k[0]).max() < 1e-3:
                given = {"intrinsics": tuple(map(float, k[0][[0, 1, 0, 1], [0, 1, 2, 2]]))}
        used = {"cameras": "used", "intrinsics": "kept by structure from motion"}
        use = next((text for key, text in used.items() if key in given), "cameras are estimated")
        found.append(f"{calibration.found}: {use}")
    name = depth_feature(dataset, camera)
    if name is not None and config.depth is None:
        try:
            maps = _depth(dataset, episode, name)
            for frame, depth in enumerate(progress(maps, "reading depth", total=episode.length)):
                write_depth(files, frame, depth)
            given |= {"depth": "files", "depth_path": files / "depth"}
            if "cameras" in given:
                given["depth_scale"] = 1.0
            found.append(f"depth of {name}: used")
        except InputError as error:
            found.append(f"depth of {name} is not read, and estimated: {error}")
    return given, found


def _depth(
    dataset: LeRobotDataset, episode: Episode, name: str
) -> Iterator[Float32[np.ndarray, "height width"]]:
    """Return the depth maps of an episode, metres.

    Raises:
        InputError: they are stored in another way than lerobot 0.6 stores depth.
    """
    feature = dataset.info.features[name]
    if feature.dtype != "video" or not feature.is_depth:
        raise InputError(
            f"{name}: expected a depth video, got {feature.dtype} without is_depth_map"
        )
    return read_depth_segment(dataset.video_segment(episode, name), depth_codes(feature, name))


def _tasks_of_rows(
    dataset: LeRobotDataset, episode: Episode, columns: dict[str, Any]
) -> tuple[str, ...]:
    """Return the task of every row: of its index, else those of the episode."""
    every = "; ".join(episode.tasks)
    indices = columns.get("task_index")
    tasks = dataset.tasks if indices is not None else {}
    indices = np.full(episode.length, -1) if indices is None else indices
    return tuple(tasks.get(int(index), every) for index in indices)
