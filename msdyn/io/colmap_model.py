"""The files `cameras` and `images` of COLMAP's sparse model, text and binary.

They are read here and not by COLMAP, whose reader of binary files believes every count: a file of a
hundred bytes may take all memory, or never end. The 2D points of images are passed over.

Reference: the page "Output Format" of COLMAP's documentation; src/colmap/sensor/models.h for the
numbers of camera models.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float64

from msdyn.errors import InputError
from msdyn.geometry import LENS_MODELS
from msdyn.reading import MOST_FRAMES, check_image_size, opened_file, read_lines, reading, shown

__all__ = ["ColmapCamera", "ColmapImage", "read_model"]

_NUMBERS = (
    "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE",
    "FULL_OPENCV", "FOV", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE",
    "RAD_TAN_THIN_PRISM_FISHEYE", "SIMPLE_DIVISION", "DIVISION", "SIMPLE_FISHEYE", "FISHEYE",
    "EUCM",
)  # fmt: skip
"""Camera models by their numbers, from 0."""
_KNOWN = ", ".join(_NUMBERS)
_LONGEST_NAME = 4096
_POINT = 24
"""Bytes of a 2D point: x, y, number of the 3D point."""


@dataclass(frozen=True)
class ColmapCamera:
    """A camera: model, size in px, parameters as in COLMAP's documentation."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclass(frozen=True)
class ColmapImage:
    """An image with a pose.

    Attributes:
        name: of its file.
        camera: number of its camera.
        cam_from_world: rigid.
    """

    name: str
    camera: int
    cam_from_world: Float64[np.ndarray, "4 4"]


def read_model(folder: Path) -> tuple[dict[int, ColmapCamera], list[ColmapImage]]:
    """Read the cameras, by number, and the images of a model; binary files where there are both.

    Raises:
        FileNotFoundError: there are no images.
        InputError: a file is damaged, or of another format; the message names it.
    """
    suffixes = [s for s in (".bin", ".txt") if (folder / f"cameras{s}").is_file()]
    found = [suffix for suffix in suffixes if (folder / f"images{suffix}").is_file()]
    if not found:
        raise FileNotFoundError(f"{folder}: images.bin or images.txt is missing")
    cameras, images = folder / f"cameras{found[0]}", folder / f"images{found[0]}"
    if found[0] == ".bin":
        return dict(_binary_cameras(cameras)), list(_binary_images(images))
    return dict(_text_cameras(cameras)), list(_text_images(images))


def _binary_cameras(path: Path) -> Iterator[tuple[int, ColmapCamera]]:
    with opened_file(path, "COLMAP model") as file:
        for _ in range(_count(file, path, least=24)):
            number, model, width, height = _unpacked(file, "<IiQQ")
            if not 0 <= model < len(_NUMBERS):
                raise InputError(
                    f"camera {number}: expected one of the models {_KNOWN}, got number {model}"
                )
            name = _NUMBERS[model]
            params = _unpacked(file, f"<{len(LENS_MODELS[name].names)}d")
            yield number, _camera(number, name, width, height, params)


def _binary_images(path: Path) -> Iterator[ColmapImage]:
    with opened_file(path, "COLMAP model") as file:
        size = path.stat().st_size
        for _ in range(_count(file, path, least=73)):
            number, *pose, camera = _unpacked(file, "<I7dI")
            data = file.read(_LONGEST_NAME)
            name, end, _ = data.partition(b"\0")
            if not end:
                raise InputError(f"image {number}: expected a name that ends with a zero byte")
            file.seek(len(name) + 1 - len(data), 1)
            (points,) = _unpacked(file, "<Q")
            if points * _POINT > size - file.tell():
                raise InputError(f"image {number}: {points} points declared, more than there are")
            file.seek(points * _POINT, 1)
            yield _image(number, pose, camera, name.decode())


def _text_cameras(path: Path) -> Iterator[tuple[int, ColmapCamera]]:
    for number, line in read_lines(path):
        if line.strip() and not line.lstrip().startswith("#"):
            with _at_line(path, number):
                key, model, width, height, *params = line.split()
                if model not in LENS_MODELS:
                    raise InputError(f"expected one of the models {_KNOWN}, got {shown(model)}")
                if len(params) != len(LENS_MODELS[model].names):
                    raise InputError(
                        f"{model}: expected {len(LENS_MODELS[model].names)} parameters"
                    )
                values = tuple(float(value) for value in params)
                yield int(key), _camera(int(key), model, int(width), int(height), values)


def _text_images(path: Path) -> Iterator[ColmapImage]:
    lines = read_lines(path)
    for number, line in lines:
        if line.strip() and not line.lstrip().startswith("#"):
            with _at_line(path, number):
                key, *pose, camera, name = line.strip().split(maxsplit=9)
                yield _image(int(key), [float(value) for value in pose], int(camera), name)
            next(lines, None)  # its 2D points, possibly none


@contextlib.contextmanager
def _at_line(path: Path, number: int) -> Iterator[None]:
    """Turn what goes wrong with a line into an error that names it."""
    with reading(f"{path}: line {number}", "line of a COLMAP model"):
        yield


def _camera(
    number: int, model: str, width: int, height: int, params: tuple[float, ...]
) -> ColmapCamera:
    check_image_size(width, height, f"camera {number}")
    if not np.isfinite(params).all():
        raise InputError(f"camera {number}: expected finite parameters, got {params}")
    return ColmapCamera(model, width, height, params)


def _image(number: int, pose: list[float], camera: int, name: str) -> ColmapImage:
    """Return an image of its quaternion wxyz and translation."""
    from scipy.spatial.transform import Rotation

    quat_wxyz, translation = pose[:4], pose[4:]
    if not np.isfinite(pose).all() or not 0 < math.hypot(*quat_wxyz) < math.inf:
        raise InputError(f"image {number}: expected a quaternion and a translation, got {pose}")
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = Rotation.from_quat([*quat_wxyz[1:], quat_wxyz[0]]).as_matrix()
    cam_from_world[:3, 3] = translation
    return ColmapImage(name, camera, cam_from_world)


def _count(file: BinaryIO, path: Path, least: int) -> int:
    """Return the number of entries of at least so many bytes, checked against the file's size."""
    (count,) = _unpacked(file, "<Q")
    if count > MOST_FRAMES or count * least > path.stat().st_size - file.tell():
        raise InputError(f"{count} entries declared, more than there are")
    return count


def _unpacked(file: BinaryIO, form: str) -> tuple:
    return struct.unpack(form, file.read(struct.calcsize(form)))
