"""RealEstate10K's clips in the layout that evaluations of feed-forward methods share.

    test/index.json   {key: name of the file}
    test/*.torch      a list of clips, each a dict: `key`, `url`, `timestamps` [F] integers (us),
                      `cameras` [F, 18], `images`, a list of F JPEG files as uint8 tensors

A row of `cameras` is fx/W, fy/H, cx/W, cy/H, two zeros, and cam_from_world 3x4, row by row, OpenCV
axes. An evaluation index is a JSON file with frames by key, or null for clips that are not used:

    {key: {"context": [first, ..., last], "target": [frame, ...]}}

Reference: the files are those of Charatan et al., "pixelSplat", 2024 (README and
src/dataset/dataset_re10k.py in github.com/dcharatan/pixelsplat), of Zhou et al., "Stereo
Magnification", 2018.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.io.posed_images import checked_cameras
from msdyn.reading import read_json, read_rgb, read_torch, reading

__all__ = ["RealEstate10K", "RealEstateClip", "RealEstatePair", "read_evaluation_index"]

_NUMBERS = 18


@dataclass(frozen=True)
class RealEstatePair:
    """Frames of a clip: those that are given, and those that are to be predicted."""

    context: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True)
class RealEstateClip:
    """A clip.

    Attributes:
        key: its name.
        cameras: one per frame, of the size of the first image.
        microseconds: timestamps.
        jpegs: image files.
    """

    key: str
    cameras: Cameras
    microseconds: Int64[np.ndarray, " frames"]
    jpegs: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.jpegs)

    def image(self, frame: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return an RGB image.

        Raises:
            InputError: it cannot be decoded, or is of another size than the first.
        """
        image = read_rgb(self.jpegs[frame], f"{self.key}: image {frame}")
        if image.shape[:2] != (self.cameras.height, self.cameras.width):
            raise InputError(
                f"{self.key}: image {frame}: expected {self.cameras.width}x{self.cameras.height}, "
                f"got {image.shape[1]}x{image.shape[0]}"
            )
        return image


class RealEstate10K:
    """A folder of clips; files are read when their clips are asked for."""

    def __init__(self, directory: str | os.PathLike) -> None:
        """Read the index of a folder.

        Args:
            directory: folder with `index.json`, or the one above it, with `test/`.

        Raises:
            FileNotFoundError: there is no index.
            InputError: the index is not of this layout.
        """
        directory = Path(directory)
        if not (directory / "index.json").is_file() and (directory / "test").is_dir():
            directory = directory / "test"
        path = directory / "index.json"
        content = read_json(path)
        names = content.values() if isinstance(content, dict) else [None]
        if not all(isinstance(name, str) for name in names):
            raise InputError(f"{path}: expected the name of a file by clip")
        self.directory = directory
        self._files: dict[str, str] = content

    def __len__(self) -> int:
        return len(self._files)

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of all clips."""
        return tuple(self._files)

    def clips(self, keys: tuple[str, ...] | None = None) -> Iterator[RealEstateClip]:
        """Yield the clips of some keys, file by file; of all by default.

        Raises:
            FileNotFoundError: a file of the index does not exist.
            InputError: a key is not in the index, or a file is not of this layout.
        """
        wanted = self.keys if keys is None else keys
        for key in wanted:
            if key not in self._files:
                raise InputError(f"{self.directory / 'index.json'}: {key} is missing")
        for name in sorted({self._files[key] for key in wanted}):
            path = self.directory / name
            found = {str(_entry(path, clip, "key")): clip for clip in _read_chunk(path)}
            for key in wanted:
                if self._files[key] != name:
                    continue
                if key not in found:
                    raise InputError(f"{path}: {key} is missing, which index.json expects there")
                yield _clip(path, key, found[key])


def read_evaluation_index(path: str | os.PathLike) -> dict[str, RealEstatePair]:
    """Read an evaluation index: context and target frames by clip; unused clips are left out.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not of this layout.
    """
    content = read_json(path)
    pairs = {}
    for key, entry in content.items() if isinstance(content, dict) else [("", content)]:
        if entry is None:
            continue
        frames: list[tuple[int, ...]] = []
        for name in ("context", "target"):
            value = entry.get(name) if isinstance(entry, dict) else None
            if not isinstance(value, list) or not value or not all(type(f) is int for f in value):
                raise InputError(
                    f"{path}: {key}: expected lists of frames `context` and `target`, got {entry!r}"
                )
            frames.append(tuple(value))
        pairs[key] = RealEstatePair(*frames)
    return pairs


def _read_chunk(path: Path) -> list[Any]:
    content = read_torch(path, "file of clips, which index.json names")
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a list of clips, got {type(content).__name__}")
    return content


def _clip(path: Path, key: str, content: Any) -> RealEstateClip:
    what = f"{path}: {key}"
    with reading(what, "clip"):
        return _parse(path, key, content, what)


def _parse(path: Path, key: str, content: Any, what: str) -> RealEstateClip:
    rows = _numbers(what, content, "cameras").astype(np.float64)
    microseconds = _numbers(what, content, "timestamps").astype(np.int64)
    images = _entry(path, content, "images")
    if not isinstance(images, list) or not images:
        raise InputError(f"{what}: images: expected a list of JPEG files")
    count = len(images)
    if rows.shape != (count, _NUMBERS) or microseconds.shape != (count,):
        raise InputError(
            f"{what}: expected cameras {(count, _NUMBERS)} and timestamps {(count,)} for {count} "
            f"images, got {rows.shape} and {microseconds.shape}"
        )
    jpegs = []
    for number, image in enumerate(images):
        if not isinstance(image, torch.Tensor) or image.dtype != torch.uint8 or image.ndim != 1:
            raise InputError(f"{what}: images: {number}: expected the bytes of a file as uint8")
        jpegs.append(image.numpy().tobytes())
    height, width = read_rgb(jpegs[0], f"{what}: image 0").shape[:2]
    cameras = checked_cameras(what, *_pinhole(rows, width, height), width, height)
    return RealEstateClip(key, cameras, microseconds, tuple(jpegs))


def _pinhole(
    rows: Float64[np.ndarray, "frames 18"], width: int, height: int
) -> tuple[Float64[np.ndarray, "frames 3 3"], Float64[np.ndarray, "frames 4 4"]]:
    """Return intrinsics, px, and poses of rows of the file."""
    k = np.zeros((len(rows), 3, 3))
    k[:, 0, 0], k[:, 0, 2] = rows[:, 0] * width, rows[:, 2] * width
    k[:, 1, 1], k[:, 1, 2] = rows[:, 1] * height, rows[:, 3] * height
    k[:, 2, 2] = 1
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows[:, 6:].reshape(-1, 3, 4)
    return k, poses


def _numbers(what: str, content: Any, key: str) -> np.ndarray:
    value = _entry(what, content, key)
    if not isinstance(value, torch.Tensor):
        raise InputError(f"{what}: {key}: expected a tensor, got {type(value).__name__}")
    return value.numpy()


def _entry(what: str | Path, content: Any, key: str) -> Any:
    if not isinstance(content, dict) or key not in content:
        raise InputError(f"{what}: {key} is missing")
    return content[key]
