"""NVIDIA's dynamic scenes: a rig of twelve synchronised cameras, one folder per scene.

    SCENE/dense/mv_images/00000/cam01.jpg ... cam12.jpg   all cameras at each time
    SCENE/dense/mv_masks/00000/cam01.png ...              moving objects (not 0), if there are masks
    SCENE/dense/poses_bounds_cvd.npy (or poses_bounds.npy)  [T, 17], a row per frame of the clip

The input clip is a monocular video of which each frame is of the next camera of the rig: frame i
is of camera i mod 12, and the row i of the poses is that camera's. The rig is static, so a camera's
pose is that of the first frame which shows it. A row is LLFF's: a 3x5 matrix, row by row, whose
columns are the camera's down, right and backward axes in the world, its centre, and (height, width,
focal length) in px; then the nearest and farthest depth.

Reference: Yoon et al., "Novel View Synthesis of Dynamic Scenes with Globally Coherent Depths",
2020; the folders and the clip are those of Li et al., "Neural Scene Flow Fields", 2021, and
"DynIBaR", 2023 (eval_nvidia.py in github.com/google/dynibar), as also used in pgdvs/datasets/
nvidia_eval.py in github.com/apple/ml-pgdvs.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from msdyn.errors import InputError
from msdyn.geometry import Cameras, invert_transforms
from msdyn.io.photos import resampled
from msdyn.io.posed_images import checked_cameras
from msdyn.reading import natural_order, read_npy, read_pixels, read_rgb

__all__ = ["NvidiaScene", "find_nvidia_scenes"]

_IMAGES, _MASKS = "mv_images", "mv_masks"
_POSES = ("poses_bounds_cvd.npy", "poses_bounds.npy")
_SUFFIXES = (".jpg", ".jpeg", ".png")


def find_nvidia_scenes(directory: str | os.PathLike) -> list[Path]:
    """Return the scenes of a folder, by name; the folder itself if it is a scene.

    Raises:
        FileNotFoundError: there is none.
    """
    directory = Path(directory)
    if _is_scene(directory):
        return [directory]
    found = sorted(p for p in (directory.iterdir() if directory.is_dir() else []) if _is_scene(p))
    if not found:
        raise FileNotFoundError(f"{directory}: no scene with dense/{_IMAGES}")
    return found


class NvidiaScene:
    """A scene, with its images at a common size.

    Attributes:
        name: of its folder.
        frames: number of frames of the clip.
        rig: one camera for each of the rig; of those that the clip does not show, there is none.
        clip: cameras of the clip, one per frame.
    """

    def __init__(self, directory: str | os.PathLike, height: int | None = 288) -> None:
        """Open a scene.

        Args:
            directory: folder of the scene, or `dense` in it.
            height: of the images, px; larger ones are resampled. None keeps their size.

        Raises:
            FileNotFoundError: no images or no poses.
            InputError: files that contradict one another or this layout.
        """
        directory = Path(directory)
        self.name = directory.resolve().name
        self._folder = directory / "dense" if (directory / "dense").is_dir() else directory
        if self.name == "dense":
            self.name = directory.resolve().parent.name
        times = self._folder / _IMAGES
        folders = sorted(
            (p for p in (times.iterdir() if times.is_dir() else []) if p.name.isdecimal()),
            key=natural_order,
        )
        if not folders:
            raise FileNotFoundError(f"{times}: no folders of images, as {_IMAGES}/00000")
        self._files = [_camera_files(folder) for folder in folders]
        cameras = {len(files) for files in self._files}
        if len(cameras) != 1 or not all(set(f) == set(range(len(f))) for f in self._files):
            raise InputError(
                f"{times}: expected the same cameras, from cam01 on, in all folders, got "
                f"{sorted(cameras)} images"
            )
        self.frames, self._cameras = len(folders), cameras.pop()
        self._times = [folder.name for folder in folders]
        first = read_rgb(self._files[0][0])
        self._height = first.shape[0] if height is None else min(height, first.shape[0])
        self._width = round(first.shape[1] * self._height / first.shape[0])
        self.clip = self._read_cameras()
        self.rig = self.clip[: min(self._cameras, self.frames)]

    @cached_property
    def has_masks(self) -> bool:
        """Whether there are masks of moving objects."""
        return (self._folder / _MASKS).is_dir()

    def input_camera(self, frame: int) -> int:
        """Return the camera of the rig that takes a frame of the clip, from 0."""
        return frame % self._cameras

    def held_out(self, frame: int) -> list[int]:
        """Return the cameras with a known pose that do not take a frame of the clip."""
        return [camera for camera in range(len(self.rig)) if camera != self.input_camera(frame)]

    def image(self, frame: int, camera: int | None = None) -> UInt8[np.ndarray, "height width 3"]:
        """Return an RGB image; that of the clip by default."""
        camera = self.input_camera(frame) if camera is None else camera
        return resampled(read_rgb(self._files[frame][camera]), self._width, self._height)

    def moving(self, frame: int, camera: int) -> Bool[np.ndarray, "height width"] | None:
        """Return which pixels show something that moves; None without masks.

        Raises:
            FileNotFoundError: there are masks, but not this one.
        """
        if not self.has_masks:
            return None
        path = self._folder / _MASKS / self._times[frame] / f"cam{camera + 1:02d}.png"
        mask = read_pixels(path)
        mask = (mask if mask.ndim == 2 else mask[..., 0]) > 0
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(int)
            for new, old in zip((self._height, self._width), mask.shape, strict=True)
        )
        return mask[rows[:, None], columns]

    def _read_cameras(self) -> Cameras:
        path = next((p for name in _POSES if (p := self._folder / name).is_file()), None)
        if path is None:
            raise FileNotFoundError(f"{self._folder}: no {' or '.join(_POSES)}")
        rows = read_npy(path)
        if rows.ndim != 2 or rows.shape[1] != 17 or len(rows) not in (self.frames, self._cameras):
            raise InputError(
                f"{path}: expected [{self.frames}, 17], a row per frame, got {rows.shape}"
            )
        if len(rows) != self.frames:  # one row per camera of the rig
            rows = rows[np.arange(self.frames) % self._cameras]
        k, world_from_cam = _llff(rows.astype(np.float64), self._width, self._height)
        poses = invert_transforms(world_from_cam)
        return checked_cameras(path, k, poses, self._width, self._height)


def _llff(
    rows: Float64[np.ndarray, "frames 17"], width: int, height: int
) -> tuple[Float64[np.ndarray, "frames 3 3"], Float64[np.ndarray, "frames 4 4"]]:
    """Return intrinsics, px of images of a size, and `world_from_cam` of rows of LLFF."""
    matrices = rows[:, :15].reshape(-1, 3, 5)
    down, right, back, centre, size = (matrices[:, :, column] for column in range(5))
    world_from_cam = np.tile(np.eye(4), (len(rows), 1, 1))
    world_from_cam[:, :3] = np.stack([right, down, -back, centre], axis=-1)
    k = np.zeros((len(rows), 3, 3))
    k[:, 0, 0] = size[:, 2] * width / size[:, 1]
    k[:, 1, 1] = size[:, 2] * height / size[:, 0]
    k[:, 0, 2], k[:, 1, 2], k[:, 2, 2] = width / 2, height / 2, 1
    return k, world_from_cam


def _is_scene(directory: Path) -> bool:
    return (directory / "dense" / _IMAGES).is_dir() or (directory / _IMAGES).is_dir()


def _camera_files(folder: Path) -> dict[int, Path]:
    """Return the images of a time by camera, from 0."""
    files = {}
    for path in folder.iterdir():
        digits = path.stem.removeprefix("cam")
        if path.suffix.lower() in _SUFFIXES and path.stem != digits and digits.isdecimal():
            files[int(digits) - 1] = path
    return files
