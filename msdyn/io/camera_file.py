"""Camera files of any known format: msdyn, nerfstudio, DyCheck, or a list of cameras with times."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.io.dycheck_cameras import read_dycheck_camera
from msdyn.io.nerfstudio_paths import parse_camera_path, parse_times, parse_transforms
from msdyn.reading import read_json, reading
from msdyn.scene import parse_cameras

__all__ = ["TimedCameras", "read_camera_file"]

_FORMATS = (
    "supported are: msdyn's (width, height and, in `frames` or at the top level, fx fy cx cy and "
    "cam_from_world), a list of such cameras with time, nerfstudio's transforms.json (frames with "
    "transform_matrix) and camera_path.json (camera_path with camera_to_world and fov), and "
    "DyCheck's (orientation, position, focal_length)"
)


@dataclass(frozen=True)
class TimedCameras:
    """Cameras of a file, and their normalised times where the file gives them."""

    cameras: Cameras
    times: Float64[np.ndarray, " cameras"] | None


def read_camera_file(path: str | os.PathLike) -> TimedCameras:
    """Read a camera file of any supported format.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: another format, or a key is missing or wrong; the message names it and the
            supported formats.
    """
    path = Path(path)
    content = read_json(path)
    if isinstance(content, list):
        content = {"frames": content}
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: expected a JSON object or list, got {type(content).__name__}; {_FORMATS}"
        )
    try:
        with reading(path, "camera file"):
            return _parse(path, content)
    except InputError as error:
        raise InputError(f"{error}; {_FORMATS}") from error


def _parse(path: Path, content: dict[str, Any]) -> TimedCameras:
    if isinstance(content.get("camera_path"), list) and content["camera_path"]:
        return TimedCameras(*parse_camera_path(path, content))
    if "orientation" in content:
        return TimedCameras(read_dycheck_camera(path), None)
    frames = content.get("frames", [content])
    if not isinstance(frames, list) or not frames:
        got = "an empty list" if isinstance(frames, list) else type(frames).__name__
        raise InputError(f"{path}: frames: expected a list of at least one camera, got {got}")
    first = frames[0]
    if isinstance(first, dict) and "transform_matrix" in first:
        return TimedCameras(*parse_transforms(path, content))
    # `parse_cameras` expects one image size at the top level; in a list, each camera has its own.
    if isinstance(first, dict):
        content = {key: first[key] for key in ("width", "height") if key in first} | content
    times = [frame.get("time") if isinstance(frame, dict) else None for frame in frames]
    return TimedCameras(parse_cameras(path, content), parse_times(times))
