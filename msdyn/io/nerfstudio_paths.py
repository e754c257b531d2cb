"""nerfstudio's `transforms.json` and `camera_path.json`.

Both give `world_from_cam` with OpenGL's axes (x right, y up, z backward), as `transform_matrix` in
`transforms.json` and as `camera_to_world` in a camera path. Intrinsics are in pixels with pixel
centres at +0.5; a camera path has the vertical field of view in degrees instead. Camera paths of
nerfstudio's viewer are in its normalised world, unless normalisation was off in training.

Reference: docs.nerf.studio, "Data conventions", and `get_path_from_json` in
github.com/nerfstudio-project/nerfstudio.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from msdyn.errors import InputError
from msdyn.geometry import LENS_MODELS, Cameras, Lens, invert_transforms
from msdyn.io.posed_images import checked_cameras, pinhole_matrix
from msdyn.reading import image_size, shown
from msdyn.writing import write_json

__all__ = ["image_of", "parse_camera_path", "parse_times", "parse_transforms", "write_transforms"]

_OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


def write_transforms(
    path: str | os.PathLike,
    cameras: Cameras,
    names: Sequence[str],
    times: Float[np.ndarray, " cameras"],
    *,
    world_units: str = "arbitrary",
    lenses: Sequence[Lens] | None = None,
) -> None:
    """Write `transforms.json`, atomically.

    Args:
        path: file name.
        cameras: one per image.
        names: paths of the image files, relative to the file.
        times: normalised times, for nerfstudio's dynamic methods.
        world_units: recorded in the file.
        lenses: one per image, with the distortion of images that are not undistorted.

    Raises:
        InputError: a lens whose model nerfstudio does not have.
    """
    if lenses is None:
        values = cameras.intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]].tolist()
        lenses = [Lens("PINHOLE", tuple(row), cameras.width, cameras.height) for row in values]
    frames = [
        {
            "file_path": name,
            **_lens_entries(lens),
            "w": lens.width,
            "h": lens.height,
            "time": float(time),
            "transform_matrix": (pose @ _OPENGL_FROM_OPENCV).tolist(),
        }
        for name, lens, pose, time in zip(names, lenses, cameras.world_from_cam, times, strict=True)
    ]
    size = (lenses[0].width, lenses[0].height) if lenses else (cameras.width, cameras.height)
    fisheye = bool(lenses) and lenses[0].model in _FISHEYES
    write_json(
        path,
        {
            "camera_model": "OPENCV_FISHEYE" if fisheye else "OPENCV",
            "w": size[0],
            "h": size[1],
            "world_units": world_units,
            "frames": frames,
        },
    )


_FISHEYES = ("OPENCV_FISHEYE", "RADIAL_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "FISHEYE",
             "SIMPLE_FISHEYE")  # fmt: skip
_PERSPECTIVE = ("FULL_OPENCV", "OPENCV", "RADIAL", "SIMPLE_RADIAL", "PINHOLE", "SIMPLE_PINHOLE")


def _lens_entries(lens: Lens) -> dict[str, float]:
    """Return the intrinsics and the distortion of a lens."""
    values = dict(zip(LENS_MODELS[lens.model].names, lens.params, strict=True))
    fisheye = lens.model in _FISHEYES
    # k4 and further ones are of the denominator in OpenCV's model, which nerfstudio does not have.
    unknown = () if fisheye else ("k4", "k5", "k6")
    if lens.model not in _FISHEYES + _PERSPECTIVE or lens.skew or any(map(values.get, unknown)):
        raise InputError(
            f"nerfstudio: expected a lens of OpenCV's models with k1 k2 k3 p1 p2, or its fisheye "
            f"model, got {lens.model} {lens.params}; leave --lens out"
        )
    names = DISTORTION[:4] if fisheye else ("k1", "k2", "k3", "p1", "p2")
    fx, fy, cx, cy = lens.pinhole
    focal = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}
    return focal | {name: values[name] for name in names if values.get(name)}


def parse_transforms(
    path: Path, content: dict[str, Any], *, distorted: bool = False
) -> tuple[Cameras, Float64[np.ndarray, " cameras"] | None]:
    """Return the cameras of a `transforms.json`, and their times if all frames have one.

    Intrinsics are those of the frame or of the top level, or from NeRF's `camera_angle_x`. Where
    the file has no `w` and `h`, they are those of the first image, which lies beside it.

    Args:
        path: of the file.
        content: of the file.
        distorted: whether images may have a distortion; the cameras are the same without it.

    Raises:
        InputError: a key is missing or wrong, or images have a distortion or differ in size.
    """
    intrinsics, poses, times, sizes = [], [], [], set()
    content = _with_size(path, content)
    for number, frame in enumerate(content["frames"]):
        where = f"{path}: frame {number}"
        values = {**content, **(frame if isinstance(frame, dict) else {})}
        if not distorted and any(values.get(key) for key in DISTORTION):
            raise InputError(
                f"{where}: expected no distortion ({', '.join(DISTORTION)} = 0); "
                "undistort the images first"
            )
        width = int(number_of(values, "w", where))
        height = int(number_of(values, "h", where))
        if "fl_x" in values:
            fx = number_of(values, "fl_x", where)
            fy = number_of(values, "fl_y", where) if "fl_y" in values else fx
        elif "camera_angle_x" in values:
            fx = fy = width / 2 / np.tan(number_of(values, "camera_angle_x", where) / 2)
        else:
            raise InputError(f"{where}: fl_x is missing; expected it or camera_angle_x")
        cx = number_of(values, "cx", where) if "cx" in values else width / 2
        cy = number_of(values, "cy", where) if "cy" in values else height / 2
        intrinsics.append(pinhole_matrix(fx, fy, cx, cy))
        poses.append(matrix_of(values, "transform_matrix", where))
        times.append(values.get("time"))
        sizes.add((width, height))
    if len(sizes) != 1:
        raise InputError(f"{path}: expected images of one size, got {sorted(sizes)}")
    return _cameras(path, intrinsics, poses, *sizes.pop()), parse_times(times)


def image_of(path: Path, frame: dict[str, Any], where: str) -> Path:
    """Return the image of a frame of a `transforms.json`, whose name may lack its suffix.

    Raises:
        FileNotFoundError: there is no such image.
        InputError: it has no name.
    """
    name = frame.get("file_path")
    if not isinstance(name, str) or not name or "\0" in name or len(name) > _LONGEST:
        raise InputError(f"{where}: file_path: expected the name of an image, got {shown(name)}")
    named = path.parent / os.path.normpath(name)
    for suffix in ("", *_SUFFIXES, *(s.upper() for s in _SUFFIXES)):
        found = named.parent / (named.name + suffix)
        if found.is_file() and found.suffix.lower() in _SUFFIXES:
            return found
    raise FileNotFoundError(f"{where}: {named}: no such image (nor with {', '.join(_SUFFIXES)})")


_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_LONGEST = 4096


def _with_size(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a `transforms.json` with w and h: its own, or of the first image."""
    first = content["frames"][0] if content["frames"] else None
    if not isinstance(first, dict) or {"w", "h"} <= content.keys() | first.keys():
        return content
    try:
        width, height = image_size(image_of(path, first, f"{path}: frame 0"))
    except (FileNotFoundError, InputError) as error:
        raise InputError(
            f"{path}: w is missing; expected w and h, or the images, to read their size ({error})"
        ) from error
    return {**content, "w": width, "h": height}


def parse_camera_path(
    path: Path, content: dict[str, Any]
) -> tuple[Cameras, Float64[np.ndarray, " cameras"] | None]:
    """Return the cameras of a `camera_path.json`, and their `render_time`s if all have one.

    Raises:
        InputError: a key is missing or wrong, or the cameras are not perspective cameras.
    """
    if content.get("camera_type", "perspective") != "perspective":
        raise InputError(
            f"{path}: camera_type: expected perspective, got {shown(content['camera_type'])}"
        )
    width = int(number_of(content, "render_width", str(path)))
    height = int(number_of(content, "render_height", str(path)))
    intrinsics, poses, times = [], [], []
    for number, frame in enumerate(content["camera_path"]):
        where = f"{path}: camera {number}"
        if not isinstance(frame, dict):
            raise InputError(f"{where}: expected an object, got {type(frame).__name__}")
        fov = number_of(frame, "fov", where)
        if not 0 < fov < 180:
            raise InputError(f"{where}: fov: expected degrees between 0 and 180, got {fov}")
        focal = height / 2 / np.tan(np.radians(fov) / 2)
        intrinsics.append(pinhole_matrix(focal, focal, width / 2, height / 2))
        poses.append(matrix_of(frame, "camera_to_world", where))
        times.append(frame.get("render_time"))
    return _cameras(path, intrinsics, poses, width, height), parse_times(times)


def number_of(values: dict[str, Any], key: str, where: str) -> float:
    """Return a finite number of a JSON object.

    Raises:
        InputError: it is missing or not a number; the message begins with `where`.
    """
    if key not in values:
        raise InputError(f"{where}: {key} is missing")
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise InputError(f"{where}: {key}: expected a number, got {shown(value)}")
    return float(value)


def matrix_of(values: dict[str, Any], key: str, where: str) -> Float64[np.ndarray, "4 4"]:
    """Return a matrix of a JSON object, given as rows or as its 16 (or 12) numbers row by row.

    Raises:
        InputError: it is missing or not a matrix; the message begins with `where`.
    """
    if key not in values:
        raise InputError(f"{where}: {key} is missing")
    try:
        matrix = np.asarray(values[key], np.float64).reshape(-1, 4)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {key}: expected a 4x4 matrix ({error})") from error
    if matrix.shape == (3, 4):
        matrix = np.concatenate([matrix, [[0, 0, 0, 1.0]]])
    if matrix.shape != (4, 4):
        raise InputError(f"{where}: {key}: expected a 4x4 matrix, got {matrix.size} numbers")
    return matrix


def _cameras(
    path: Path,
    intrinsics: list[np.ndarray],
    poses: list[np.ndarray],
    width: int,
    height: int,
) -> Cameras:
    """Return cameras from matrices of intrinsics and world_from_cam with OpenGL's axes."""
    cam_from_world = invert_transforms(np.stack(poses) @ _OPENGL_FROM_OPENCV)
    return checked_cameras(path, np.stack(intrinsics), cam_from_world, width, height)


def parse_times(times: Sequence[object]) -> Float64[np.ndarray, " times"] | None:
    """Return the times of a JSON file, None unless all of them are numbers."""
    known = all(isinstance(time, (int, float)) and abs(time) < 1e300 for time in times)
    return np.array(times, np.float64) if known else None
