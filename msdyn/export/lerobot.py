"""`lerobot`: the episode of a robot that a scene was made of, with what the fit adds to it.

The columns of the episode are written as they were read. New features, with CAM for the camera's
name, NAME for novel_0, novel_1, ..., and k for the index of an object:

- `observation.images.NAME`: renderings of cameras that move with the input camera, rotated about
  the moving objects; `observation.masks.NAME.supported`, white where the input video supports the
  pixel, and `observation.supported.NAME`, the share of these pixels;
- `observation.images.CAM_depth`: rendered z-depth; `observation.masks.CAM.object_k`;
- `observation.object_pose.object_k`: position and quaternion xyzw of an object in the world;
  where the number of objects is given, `observation.objects_present`, whether there is each;
- `observation.tracks.xyz`, `.visible`, `.object`: 3D tracks of points of the canonical frame;
- `observation.intrinsics.*`, `observation.extrinsics.*`: of every camera, the pose in the world.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8

from msdyn.errors import InputError
from msdyn.geometry import Cameras, invert_transforms, quats_wxyz_from_rotations, turned_about
from msdyn.indices import evenly_spaced
from msdyn.io import DepthCodes, LeRobotWriter, video_feature
from msdyn.io.lerobot_layout import INDEX_COLUMNS, INFO
from msdyn.progress import track
from msdyn.render import (
    InputViews,
    draw,
    focus_points,
    grid_points,
    point_tracks,
    render_image,
    render_images,
)
from msdyn.scene import RobotEpisode, Scene, read_robot
from msdyn.sequence import GaussianSequence, object_poses

__all__ = ["export_episode"]

_log = logging.getLogger(__name__)

_IMAGES = "observation.images."
_PITCH = 0.4
"""Largest pitch of a novel view, relative to its yaw; as that of camera paths."""
_SUPPORT_SIDE, _SUPPORT_VIEWS = 320, 16
"""Longer side, px, and number of the input views with which novel views are compared."""
_RANGES = (10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Largest depth that a dataset can store."""


def export_episode(
    sequence: GaussianSequence,
    scene: Scene,
    out: Path,
    *,
    views: int = 2,
    degrees: float = 10.0,
    tracks: int = 64,
    objects: int | None = None,
    append: bool = False,
) -> list[Path]:
    """Write the episode of a scene as a LeRobotDataset, or add it to one; return its files.

    Args:
        sequence: the fit of the scene.
        scene: made by `msdyn-preprocess --from lerobot` of a whole episode.
        out: folder of the dataset.
        views: number of novel views.
        degrees: of their largest rotation about the moving objects.
        tracks: number of 3D tracks.
        objects: that have features, so that episodes with more and with fewer objects fit into one
            dataset; by default those of the sequence. Further ones are left out. One that is not
            there has empty masks, and a pose of zeros without rotation.
        append: add to the dataset that is there.

    Raises:
        InputError: the scene is of no episode or of a part of one, or the dataset is there and
            `append` is not set, or has other features.
        MissingExtraError: pyarrow is not installed.
    """
    robot = read_robot(scene.directory)
    if robot is None:
        raise InputError(
            f"{scene.directory}: lerobot: expected the scene of an episode (no robot.json); "
            "msdyn-preprocess --from lerobot makes one"
        )
    if (out / INFO).is_file() and not append:
        raise InputError(f"{out}: holds a dataset; --append adds the episode to it")
    rows = robot.rows_of(scene)
    if rows[0] != 0 or rows[-1] != len(robot) - 1:
        raise InputError(
            f"{scene.directory}: lerobot: expected a scene of all {len(robot)} rows of the "
            f"episode, got rows {rows[0]} to {rows[-1]}; do without --start, --end and --fps"
        )
    labels = tuple(sequence.objects if objects is None else range(1, objects + 1))
    episode = _Episode(sequence, scene, robot, rows, views, degrees, labels, objects is not None)
    if left_out := [str(label) for label in sequence.objects if label not in labels]:
        _log.warning("objects %s are left out (--object-count)", ", ".join(left_out))
    features, columns, videos = _carried(episode)
    for part in (_poses(episode), _tracks(episode, tracks), _cameras(episode)):
        for name, (feature, values) in part.items():
            if name not in columns:  # calibration of the dataset is kept as it is
                features[name], columns[name] = feature, values
    _add_novel_views(episode, features, columns, videos)
    _add_depth(episode, features, videos)
    _add_masks(episode, features, videos)
    with LeRobotWriter(out, features, robot.fps, robot_type=robot.robot_type) as writer:
        writer.add_episode(columns, videos, list(robot.tasks), timestamps=robot.seconds)
    return sorted(p for p in out.rglob("*") if p.is_file() and not p.name.startswith("."))


@dataclass(frozen=True)
class _Episode:
    """What is exported.

    Attributes:
        sequence, scene, robot: of the episode.
        rows: the row of each frame of the scene.
        views, degrees: of the novel views.
        objects: those that have features.
        tells_present: whether it is told which of them are there.
    """

    sequence: GaussianSequence
    scene: Scene
    robot: RobotEpisode
    rows: Int[np.ndarray, " scene_frames"]
    views: int
    degrees: float
    objects: tuple[int, ...]
    tells_present: bool

    @cached_property
    def positions(self) -> Float[np.ndarray, " rows"]:
        """The fractional frame of the scene of every row."""
        return np.interp(np.arange(len(self.robot)), self.rows, np.arange(len(self.rows)))

    @cached_property
    def times(self) -> Float[np.ndarray, " rows"]:
        """The normalised time of every row."""
        times = self.sequence.timeline.times
        return np.interp(self.positions, np.arange(len(times)), times)

    @cached_property
    def cameras(self) -> Cameras:
        """The input camera of every row, of an even size."""
        cameras = self.sequence.cameras.interpolated(self.positions)
        width, height = cameras.width // 2 * 2, cameras.height // 2 * 2
        return Cameras(cameras.intrinsics, cameras.cam_from_world, width, height)

    @cached_property
    def novel(self) -> dict[str, Cameras]:
        """The cameras of the novel views by name: the input cameras, rotated about the objects."""
        focus = focus_points(self.sequence, self.times).mean(0)
        found = {}
        for view in range(self.views):
            phase = np.pi / 2 + 2 * np.pi * view / self.views
            yaw = np.deg2rad(self.degrees) * np.sin(phase)
            pitch = _PITCH * np.deg2rad(self.degrees) * (1 - np.cos(phase)) / 2
            turned = [turned_about(camera, focus, yaw, pitch) for camera in self.cameras]
            found[f"novel_{view}"] = Cameras(
                np.concatenate([c.intrinsics for c in turned]),
                np.concatenate([c.cam_from_world for c in turned]),
                self.cameras.width,
                self.cameras.height,
            )
        return found

    @property
    def camera(self) -> str:
        """The name of the input camera, without the prefix of images."""
        return self.robot.camera.removeprefix(_IMAGES)

    def video(self, **kind: Any) -> dict[str, Any]:
        """Return the feature of a video of the size of the cameras."""
        return video_feature(self.cameras.height, self.cameras.width, self.robot.fps, **kind)


def _carried(episode: _Episode) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the features of the episode, its columns, and the video of its camera.

    Without a frame of the scene for every row, the video is left out.
    """
    robot, scene = episode.robot, episode.scene
    columns = {n: v for n, v in robot.columns.items() if n not in INDEX_COLUMNS}
    features = {name: dict(robot.features[name]) for name in columns}
    if len(episode.rows) < len(robot):
        _log.warning(
            "lerobot: the scene has %d of %d frames: %s is left out, the other features are "
            "interpolated", len(episode.rows), len(robot), robot.camera
        )  # fmt: skip
        return features, columns, {}
    features[robot.camera] = episode.video()
    height, width = episode.cameras.height, episode.cameras.width
    images = (scene.image(frame)[:height, :width] for frame in range(len(scene)))
    return features, columns, {robot.camera: images}


def _poses(episode: _Episode) -> dict[str, tuple[dict[str, Any], Any]]:
    """Return the poses of the objects."""
    found: dict[str, tuple[dict[str, Any], Any]] = {}
    units, every = episode.sequence.world_units, object_poses(episode.sequence, episode.positions)
    for label in episode.objects:
        missing = np.tile(np.eye(4), (len(episode.positions), 1, 1))
        poses = every.get(label, missing)
        wxyz = quats_wxyz_from_rotations(torch.from_numpy(poses[:, :3, :3])).numpy()
        values = np.column_stack([poses[:, :3, 3], wxyz[:, 1:], wxyz[:, :1]])
        feature = {
            "dtype": "float32",
            "shape": [7],
            "names": ["x", "y", "z", "qx", "qy", "qz", "qw"],
            "info": {"convention": "world_from_object", "world_units": units},
        }
        found[f"observation.object_pose.object_{label}"] = feature, values.astype(np.float32)
    if episode.tells_present and episode.objects:
        names = [f"object_{label}" for label in episode.objects]
        present = np.array([label in every for label in episode.objects], np.int64)
        found["observation.objects_present"] = (
            _column("int64", [len(names)], names),
            np.broadcast_to(present, (len(episode.positions), len(names))),
        )
    return found


def _tracks(episode: _Episode, count: int) -> dict[str, tuple[dict[str, Any], Any]]:
    """Return 3D tracks of points that are evenly spaced in the canonical frame, half on objects."""
    if count == 0:
        return {}
    sequence = episode.sequence
    area = sequence.cameras.width * sequence.cameras.height
    step = max(1, int(np.sqrt(area / (16 * count))))
    tracks = point_tracks(
        sequence,
        grid_points(sequence, step),
        sequence.canonical_frame,
        frames=episode.positions,
    )
    tracks = tracks.select(np.flatnonzero(np.isfinite(tracks.xyz).all((1, 2))))
    on_objects, static = (np.flatnonzero(m) for m in (tracks.object > 0, tracks.object == 0))
    half = min(count // 2, len(on_objects)) if len(static) else count
    chosen = np.concatenate([_evenly(on_objects, half), _evenly(static, count - half)])
    if len(chosen) == 0:
        raise InputError("lerobot: expected something rendered in the canonical frame, got nothing")
    tracks = tracks.select(np.resize(chosen, count))  # where there are fewer, some are repeated
    of_frames = np.broadcast_to(tracks.object.astype(np.int64), (len(episode.robot), count))
    info = {"world_units": sequence.world_units}
    return {
        "observation.tracks.xyz": (
            {"dtype": "float32", "shape": [count, 3], "names": ["track", "xyz"], "info": info},
            tracks.xyz.swapaxes(0, 1).astype(np.float32),
        ),
        "observation.tracks.visible": (_column("bool", [count], ["track"]), tracks.visible.T),
        "observation.tracks.object": (_column("int64", [count], ["track"]), of_frames),
    }


def _evenly(index: Int[np.ndarray, " all"], count: int) -> Int[np.ndarray, " chosen"]:
    """Return at most `count` of some indices, evenly spaced."""
    return index[evenly_spaced(len(index), count)]


def _cameras(episode: _Episode) -> dict[str, tuple[dict[str, Any], Any]]:
    """Return intrinsics and poses of the input camera and of the novel ones."""
    found: dict[str, tuple[dict[str, Any], Any]] = {}
    units = episode.sequence.world_units
    info = {"convention": "world_from_cam, OpenCV axes", "world_units": units}
    for name, cameras in {episode.camera: episode.cameras, **episode.novel}.items():
        found[f"observation.intrinsics.{name}"] = (
            _column("float32", [3, 3], None),
            cameras.intrinsics.astype(np.float32),
        )
        found[f"observation.extrinsics.{name}"] = (
            {**_column("float32", [4, 4], None), "info": info},
            invert_transforms(cameras.cam_from_world).astype(np.float32),
        )
    return found


def _add_novel_views(
    episode: _Episode, features: dict[str, Any], columns: dict[str, Any], videos: dict[str, Any]
) -> None:
    """Add renderings of the novel views, and where the input video supports them."""
    if not episode.novel:
        return
    count = len(episode.sequence.timeline)
    spaced = evenly_spaced(count, _SUPPORT_VIEWS)
    side = min(_SUPPORT_SIDE, max(episode.cameras.width, episode.cameras.height))
    inputs = InputViews(episode.sequence, spaced, side)
    for name, cameras in episode.novel.items():
        pairs = zip(cameras, episode.times, strict=True)
        pairs = track(pairs, f"support of {name}", len(episode.times))
        supported = _Masks([~inputs.unsupported(camera, float(time)) for camera, time in pairs])
        features[f"{_IMAGES}{name}"] = episode.video()
        videos[f"{_IMAGES}{name}"] = _renderings(episode, cameras)
        features[f"observation.masks.{name}.supported"] = episode.video(mask=True)
        videos[f"observation.masks.{name}.supported"] = supported.images(cameras)
        features[f"observation.supported.{name}"] = _column("float32", [1], None)
        columns[f"observation.supported.{name}"] = supported.shares


def _add_depth(episode: _Episode, features: dict[str, Any], videos: dict[str, Any]) -> None:
    """Add the rendered depth of the input camera."""
    name = f"{_IMAGES}{episode.camera}_depth"
    units = episode.sequence.world_units
    first = render_image(episode.sequence, episode.cameras[0], float(episode.times[0])).depth
    deepest = 1.2 * float(first.max())
    codes = DepthCodes(depth_max=next((r for r in _RANGES if deepest <= r), _RANGES[-1]))
    features[name] = episode.video(depth=codes)
    features[name]["info"]["world_units"] = units

    def maps() -> Iterator[Float32[np.ndarray, "height width"]]:
        images = render_images(episode.sequence, episode.cameras, episode.times)
        for image in track(images, "depth", len(episode.times)):
            yield np.where(image.alpha > 0.5, image.depth, 0)

    videos[name] = maps()


def _add_masks(episode: _Episode, features: dict[str, Any], videos: dict[str, Any]) -> None:
    """Add where the input camera sees each object."""
    found: dict[int, list[Any]] = {label: [] for label in episode.objects}
    pairs = zip(episode.cameras, episode.times, strict=True)
    nothing = np.zeros((episode.cameras.height, episode.cameras.width), bool)
    for camera, time in track(pairs, "masks", len(episode.times)):
        masks = _object_masks(episode.sequence, camera, float(time))
        for label in episode.objects:
            found[label].append(masks.get(label, nothing))
    for label, masks in found.items():
        name = f"observation.masks.{episode.camera}.object_{label}"
        features[name] = episode.video(mask=True)
        videos[name] = _Masks(masks).images(episode.cameras)


def _renderings(
    episode: _Episode, cameras: Cameras
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    images = render_images(episode.sequence, cameras, episode.times)
    return (image.rgb8 for image in track(images, "novel view", len(episode.times)))


@torch.no_grad()
def _object_masks(
    sequence: GaussianSequence, camera: Cameras, time: float
) -> dict[int, Bool[np.ndarray, "height width"]]:
    """Return where each object contributes most of the colour of a pixel."""
    posed = sequence.at(time)
    labels = torch.tensor(sequence.objects, device=sequence.device)
    weights = draw(
        posed,
        camera.tensors(sequence.device),
        extra=(posed.labels[:, None] == labels).float(),
        depth=False,
    ).features[0, ..., 3:]
    masks = (weights > 0.5).cpu().numpy()
    return {label: masks[..., index] for index, label in enumerate(sequence.objects)}


class _Masks:
    """Masks of a clip, eight pixels a byte, of any size."""

    def __init__(self, masks: list[Bool[np.ndarray, "h w"]]) -> None:
        self.size = masks[0].shape
        self.packed = [np.packbits(mask) for mask in masks]
        self.shares = np.array([mask.mean() for mask in masks], np.float32)

    def images(self, cameras: Cameras) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield the masks in white on black, resampled to the size of cameras."""
        height, width = self.size
        y = ((np.arange(cameras.height) + 0.5) * height / cameras.height).astype(int)
        x = ((np.arange(cameras.width) + 0.5) * width / cameras.width).astype(int)
        for packed in self.packed:
            mask = np.unpackbits(packed, count=height * width).reshape(height, width)
            white = mask[y[:, None], x] * np.uint8(255)
            yield np.repeat(white[..., None], 3, axis=2)


def _column(dtype: str, shape: list[int], names: list[str] | None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "names": names}
