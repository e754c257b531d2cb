"""The scene directory, version 1: the data exchanged between the stages of msdyn.

    scene.json          format, version, frame count, size, fps, timestamps, world units, stages
    images/00000.png    8-bit RGB
    cameras.json        per frame fx fy cx cy, cam_from_world
    lens.json           of images that were undistorted: their lenses, see `FrameLenses`
    depth/00000.npy     float32 z-depth in scene units, 0 = unknown
    depth_confidence/   optional 8-bit images: 255 where other frames confirm the depth
    masks/00000.png     8-bit index: 0 static, 1..K object instance, 255 ignore
    tracks.npz          2D point tracks, see `Tracks`
    views/<name>/       held-out cameras for evaluation: images/, cameras.json, covisible/,
                        tracks3d.npz
    robot.json          of a robot dataset: the episode, its tasks; robot.npz: states and actions,
                        see `RobotEpisode`
    fit/                output of a fit
    predict/            output of the feed-forward network

Readers validate shape, type, range and finiteness; an error names file, key, expected and actual.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.reading import (
    as_schema,
    check_image_size,
    load_npz,
    read_json,
    read_npy,
    read_pixels,
    reading,
)
from msdyn.scene.camera_files import read_cameras
from msdyn.scene.lens_file import LENS_FILE, FrameLenses, read_lenses
from msdyn.scene.stages import SceneFile, StageRecord, check_stages
from msdyn.scene.timeline import Timeline
from msdyn.scene.tracks2d import Tracks, read_tracks

__all__ = ["IGNORE", "STATIC", "Scene", "SceneInfo", "Tracks3D", "View", "frame_path"]

FORMAT = "msdyn-scene"
VERSION = 1
STATIC = 0
IGNORE = 255
_CURE = "; msdyn-preprocess writes it"


def frame_path(directory: Path, frame: int, suffix: str) -> Path:
    """Return the path of a frame's file: five digits, as `images/00012.png`."""
    return directory / f"{frame:05d}{suffix}"


@dataclass(frozen=True)
class SceneInfo:
    """The content of `scene.json`.

    Attributes:
        width, height: image size in pixels.
        fps: nominal frames per second.
        timeline: the frames' timestamps.
        world_units: "metric" (metres) or "arbitrary".
        stages: a record for each finished stage: backend, model, licence, options, input hash,
            seconds, quality.
    """

    width: int
    height: int
    fps: float
    timeline: Timeline
    world_units: str
    stages: dict[str, StageRecord]

    @property
    def num_frames(self) -> int:
        return len(self.timeline)


@dataclass(frozen=True)
class Tracks3D:
    """Ground-truth trajectories of surface points, for evaluation.

    Attributes:
        xyz: [N, T, 3] world positions, scene units.
        visible: [N, T] visible in the input camera.
        query_frame: [N] frame in which the point is queried.
        query_xy: [N, 2] px in the input image of that frame.
        object: [N] 0 static, 1..K the true object.
    """

    # Files of users are checked below.
    xyz: Shaped[np.ndarray, ...]
    visible: Shaped[np.ndarray, ...]
    query_frame: Shaped[np.ndarray, ...]
    query_xy: Shaped[np.ndarray, ...]
    object: Shaped[np.ndarray, ...]

    def __post_init__(self) -> None:
        if self.xyz.ndim != 3 or self.xyz.shape[2] != 3:
            raise InputError(f"xyz: expected [tracks, frames, 3], got {self.xyz.shape}")
        count, frames = self.xyz.shape[:2]
        shapes = {
            "visible": (count, frames),
            "query_frame": (count,),
            "query_xy": (count, 2),
            "object": (count,),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"{name}: expected {shape}, got {getattr(self, name).shape}")
        for name in ("xyz", "query_xy"):
            value = getattr(self, name)
            if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
                raise InputError(f"{name}: expected finite numbers")
        if self.visible.dtype.kind != "b":
            raise InputError(f"visible: expected bool, got {self.visible.dtype}")
        query = self.query_frame
        if query.dtype.kind not in "iu" or not ((query >= 0) & (query < frames)).all():
            raise InputError(f"query_frame: expected indices from 0 to {frames - 1}")
        if self.object.dtype.kind not in "fiu" or not np.isfinite(self.object).all():
            raise InputError("object: expected finite numbers")


class View:
    """A held-out camera: its images, and the pixels covisible with the input camera."""

    def __init__(self, directory: Path, num_frames: int) -> None:
        """Read the cameras of a view folder.

        Raises:
            InputError: the number of cameras is not `num_frames`.
        """
        self.directory = directory
        self.name = directory.name
        self.cameras = read_cameras(directory / "cameras.json")
        if len(self.cameras) != num_frames:
            raise InputError(
                f"{directory / 'cameras.json'}: expected {num_frames} frames, "
                f"got {len(self.cameras)}"
            )

    @property
    def frames(self) -> list[int]:
        """The frames with an image."""
        names = (path.stem for path in (self.directory / "images").glob("*.png"))
        return sorted(int(name) for name in names if name.isascii() and name.isdecimal())

    def image(self, frame: int) -> UInt8[np.ndarray, "height width 3"]:
        """Read an RGB image [H, W, 3]."""
        return _read_rgb(
            frame_path(self.directory / "images", frame, ".png"),
            (self.cameras.height, self.cameras.width),
        )

    def covisible(self, frame: int) -> Bool[np.ndarray, "height width"]:
        """Read which pixels show surfaces visible in the input video; all if there is no file."""
        path = frame_path(self.directory / "covisible", frame, ".png")
        size = (self.cameras.height, self.cameras.width)
        return _read_gray(path, size) > 0 if path.is_file() else np.ones(size, bool)

    @cached_property
    def times(self) -> dict[int, float]:
        """Normalised times of the images that were not taken at the time of their frame."""
        path = self.directory / "times.json"
        if not path.is_file():
            return {}
        with reading(path, "file of times"):
            found = {int(frame): float(time) for frame, time in read_json(path).items()}
            if not all(0 <= time <= 1 for time in found.values()):
                raise InputError(f"{path}: expected normalised times, from 0 to 1")
            return found

    @cached_property
    def tracks3d(self) -> Tracks3D | None:
        """Ground-truth 3D tracks; None if there is no file."""
        path = self.directory / "tracks3d.npz"
        if not path.is_file():
            return None
        keys = ("xyz", "visible", "query_frame", "query_xy", "object")
        with reading(path, "file of tracks"):
            return Tracks3D(**load_npz(path, keys))


class Scene:
    """A scene directory opened for reading. All files but `scene.json` are read on demand."""

    def __init__(self, directory: str | os.PathLike) -> None:
        """Open a scene directory.

        Raises:
            FileNotFoundError: there is no scene directory at this path.
            InputError: `scene.json` is of another format or version, or invalid.
        """
        self.directory = Path(directory)
        path = self.directory / "scene.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.directory}: not a scene directory (no scene.json); "
                "make one with `msdyn-preprocess VIDEO`"
            )
        self.info = _parse_info(path)

    def __repr__(self) -> str:
        i = self.info
        return f"Scene({str(self.directory)!r}, {i.num_frames} frames, {i.width}x{i.height})"

    def __len__(self) -> int:
        return self.info.num_frames

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.info.height, self.info.width

    def image(self, frame: int) -> UInt8[np.ndarray, "height width 3"]:
        """Read an RGB image [H, W, 3]."""
        return _read_rgb(frame_path(self.directory / "images", frame, ".png"), self.size)

    def images(self) -> UInt8[np.ndarray, "frames height width 3"]:
        """Read all images [T, H, W, 3]."""
        return np.stack([self.image(i) for i in range(len(self))])

    @cached_property
    def cameras(self) -> Cameras:
        """One camera per frame, of the size of the images."""
        path = self.directory / "cameras.json"
        cameras = read_cameras(path)
        if len(cameras) != len(self):
            raise InputError(f"{path}: expected {len(self)} frames, got {len(cameras)}")
        if (cameras.height, cameras.width) != self.size:
            raise InputError(
                f"{path}: expected size {self.info.width}x{self.info.height}, "
                f"got {cameras.width}x{cameras.height}"
            )
        return cameras

    @cached_property
    def lenses(self) -> FrameLenses | None:
        """The lenses that the images were undistorted from; None where they were not."""
        path = self.directory / LENS_FILE
        return read_lenses(path, len(self)) if path.is_file() else None

    def depth(self, frame: int) -> Float[np.ndarray, "height width"]:
        """Read z-depth [H, W], float32 in scene units, 0 where unknown."""
        return read_depth(frame_path(self.directory / "depth", frame, ".npy"), self.size)

    def depth_confidence(self, frame: int) -> UInt8[np.ndarray, "height width"] | None:
        """Read the depth confidence [H, W], 0 to 255; None if there is no file."""
        path = frame_path(self.directory / "depth_confidence", frame, ".png")
        return _read_gray(path, self.size) if path.is_file() else None

    def depths(self) -> Float[np.ndarray, "frames height width"]:
        """Read all depth maps [T, H, W], see `depth`."""
        return np.stack([self.depth(i) for i in range(len(self))])

    def mask(self, frame: int) -> UInt8[np.ndarray, "height width"]:
        """Read an index mask [H, W]: 0 static, 1..K object instance, 255 ignore."""
        return _read_gray(frame_path(self.directory / "masks", frame, ".png"), self.size)

    def masks(self) -> UInt8[np.ndarray, "frames height width"]:
        """Read all masks [T, H, W], see `mask`."""
        return np.stack([self.mask(i) for i in range(len(self))])

    @property
    def object_names(self) -> dict[int, str]:
        """The names of objects, by label, of those that were found by name."""
        quality = self.info.stages.get("masks", {}).get("quality", {})
        names = quality.get("names", {}).items()
        return {n: name for n, name in ((_label(key), name) for key, name in names) if n}

    @cached_property
    def tracks(self) -> Tracks:
        """The 2D point tracks."""
        path = self.directory / "tracks.npz"
        return read_tracks(path, len(self))

    @cached_property
    def views(self) -> dict[str, View]:
        """Held-out cameras by name."""
        parent = self.directory / "views"
        return {
            p.name: View(p, len(self))
            for p in sorted(parent.iterdir() if parent.is_dir() else [])
            if p.is_dir()
        }


def _label(text: str) -> int:
    """Return the label of an object that a text is, 0 where it is none."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 3 else 0
    return number if number < IGNORE else 0


def _parse_info(path: Path) -> SceneInfo:
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: format: expected {FORMAT!r}; not a scene of msdyn")
    if content.get("version") != VERSION:
        raise InputError(
            f"{path}: version: expected {VERSION}, got {content.get('version')!r}; "
            "update msdyn or run msdyn-preprocess again"
        )
    with reading(path, "scene"):
        checked = as_schema(content, SceneFile, str(path))
        check_image_size(checked["width"], checked["height"], "width and height")
        count, times = checked["frame_count"], checked["timestamps"]
        if len(times) != count:
            raise InputError(f"timestamps: expected {count}, got {len(times)}")
        check_stages(checked["stages"], count)
        timeline = Timeline(np.array(times, np.float64))
    return SceneInfo(
        checked["width"],
        checked["height"],
        checked["fps"],
        timeline,
        checked["world_units"],
        checked["stages"],
    )


def _read_rgb(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    image = read_pixels(path, size=size, cure=_CURE)
    if image.dtype != np.uint8 or image.shape != (*size, 3):
        raise InputError(f"{path}: expected 8-bit RGB, got {image.dtype} {image.shape}")
    return image


def _read_gray(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "height width"]:
    image = read_pixels(path, size=size, cure=_CURE)
    if image.dtype != np.uint8 or image.shape != size:
        raise InputError(f"{path}: expected one 8-bit channel, got {image.dtype} {image.shape}")
    return image


def read_depth(path: Path, size: tuple[int, int]) -> Float[np.ndarray, "height width"]:
    """Read one depth map [H, W] float32.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: another shape or type, or values that are negative or not finite.
    """
    depth = read_npy(path, cure=_CURE)
    if depth.shape != size or depth.dtype.kind != "f":
        raise InputError(
            f"{path}: expected float32 depth of {size[1]}x{size[0]}, "
            f"got {depth.dtype} {depth.shape}"
        )
    if not np.isfinite(depth).all():
        bad = int((~np.isfinite(depth)).sum())
        raise InputError(f"{path}: expected finite depth (0 = unknown), got {bad} NaN or infinite")
    if (depth < 0).any():
        raise InputError(f"{path}: expected depth >= 0 (0 = unknown), got {depth.min():.4g}")
    return depth.astype(np.float32, copy=False)
