"""`cameras.json`: cameras in the conventions of msdyn, one file for a clip or a single view."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Real

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.reading import MOST_FRAMES, read_json, reading, shown
from msdyn.writing import write_json

__all__ = ["parse_cameras", "read_cameras", "write_cameras"]

_FORMAT = "msdyn-cameras"
_KEYS = ("fx", "fy", "cx", "cy", "cam_from_world")


def write_cameras(
    path: str | os.PathLike, cameras: Cameras, times: Real[np.ndarray, " cameras"] | None = None
) -> None:
    """Write cameras: fx fy cx cy in pixels and `cam_from_world` 4x4 for every frame.

    Args:
        path: the file, replaced atomically.
        cameras: one per frame.
        times: normalised times of a camera path; not written if None.
    """
    frames: list[dict[str, Any]] = [
        {
            "fx": float(k[0, 0]),
            "fy": float(k[1, 1]),
            "cx": float(k[0, 2]),
            "cy": float(k[1, 2]),
            "cam_from_world": pose.tolist(),
        }
        for k, pose in zip(cameras.intrinsics, cameras.cam_from_world, strict=True)
    ]
    for frame, time in zip(frames, () if times is None else times, strict=False):
        frame["time"] = float(time)
    write_json(
        path,
        {
            "format": _FORMAT,
            "version": 1,
            "convention": "OpenCV axes, cam_from_world, pixel centres at +0.5",
            "width": cameras.width,
            "height": cameras.height,
            "frames": frames,
        },
    )


def read_cameras(path: str | os.PathLike) -> Cameras:
    """Read a file written by `write_cameras`, or a single camera with its keys at the top level.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: a key is missing or of a wrong type or shape; the message names it.
    """
    return parse_cameras(Path(path), read_json(path))


def parse_cameras(path: Path, content: Any) -> Cameras:
    """Return the cameras in the JSON content of a file; errors name the file.

    Raises:
        InputError: see `read_cameras`.
    """
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(content).__name__}")
    frames = content.get("frames", [content])
    if not isinstance(frames, list) or not 0 < len(frames) <= MOST_FRAMES:
        raise InputError(f"{path}: frames: expected a list of at least one camera")
    for key in ("width", "height"):
        if type(content.get(key)) is not int:
            raise InputError(
                f"{path}: {key}: expected an integer, got {shown(content.get(key))}" + _HINT
            )
    intrinsics = np.zeros((len(frames), 3, 3))
    poses = np.zeros((len(frames), 4, 4))
    for i, frame in enumerate(frames):
        values = {key: _number(path, i, frame, key) for key in _KEYS}
        intrinsics[i] = [
            [values["fx"], 0, values["cx"]],
            [0, values["fy"], values["cy"]],
            [0, 0, 1],
        ]
        poses[i] = values["cam_from_world"]
    with reading(path, "camera file"):
        return Cameras(intrinsics, poses, content["width"], content["height"])


_HINT = (
    "; a camera file has width, height and, for each of `frames` (or at the top level), "
    "fx, fy, cx, cy in pixels and cam_from_world 4x4 (OpenCV axes)"
)


def _number(path: Path, index: int, frame: Any, key: str) -> Any:
    if not isinstance(frame, dict) or key not in frame:
        raise InputError(f"{path}: frame {index}: {key} is missing" + _HINT)
    shape = (4, 4) if key == "cam_from_world" else ()
    try:
        value = np.asarray(frame[key], np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: frame {index}: {key}: expected numbers ({error})") from error
    if value.shape != shape:
        raise InputError(
            f"{path}: frame {index}: {key}: expected shape {shape}, got {value.shape}" + _HINT
        )
    return value
