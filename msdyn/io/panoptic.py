"""CMU Panoptic as Dynamic 3D Gaussians packages it: static cameras around a stage.

    train_meta.json, test_meta.json   w, h; k [T, C, 3, 3], w2c [T, C, 4, 4], fn [T, C] names of
                                      images, cam_id [T, C]; every frame has the same cameras
    ims/<camera>/<frame>.jpg          images
    seg/<camera>/<frame>.png          not 0: foreground (people and what they hold); may be missing
    init_pt_cld.npz                   data [N, 7]: xyz, rgb, seg (1: foreground) of the first frame;
                                      may be missing

Matrices are `cam_from_world` with OpenCV's axes, pixel centres are at +0.5. The files have no
times: frames are 1/30 s apart.

Reference: Luiten et al., "Dynamic 3D Gaussians: Tracking by Persistent Dynamic View Synthesis",
3DV 2024; train.py and helpers.py in github.com/JonathonLuiten/Dynamic3DGaussians.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.io.multi_camera import MultiCamera, RecordedCamera, inside
from msdyn.io.posed_images import (
    ScenePoints,
    checked_cameras,
    checked_points,
    pinhole_intrinsics,
)
from msdyn.reading import MOST_FRAMES, load_npz, read_json, reading, shown

__all__ = ["read_panoptic"]

TRAIN, TEST, POINTS = "train_meta.json", "test_meta.json", "init_pt_cld.npz"
FPS = 30.0
_COLUMNS = 7
_FOREGROUND = 0.5


def read_panoptic(directory: str | os.PathLike) -> MultiCamera:
    """Open a sequence: its cameras, those of test_meta.json held out.

    Raises:
        FileNotFoundError: not such a sequence.
        InputError: a file has another format.
    """
    directory = Path(directory)
    if not (directory / TRAIN).is_file():
        raise FileNotFoundError(f"{directory}: not a sequence of Panoptic (no {TRAIN} in it)")
    cameras = _read_meta(directory, directory / TRAIN)
    held_out: dict[str, RecordedCamera] = {}
    if (directory / TEST).is_file():
        held_out = _read_meta(directory, directory / TEST)
        both = sorted(cameras.keys() & held_out.keys())
        if both:
            raise InputError(
                f"{directory / TEST}: cam_id: camera {both[0]} is in {TRAIN} too; expected each "
                "camera in one of the two"
            )
        lengths = {len(camera) for camera in (*cameras.values(), *held_out.values())}
        if len(lengths) != 1:
            raise InputError(
                f"{directory / TEST}: expected as many frames as in {TRAIN}, got {sorted(lengths)}"
            )
    return MultiCamera(
        "panoptic", directory, cameras | held_out, tuple(held_out), _read_points(directory)
    )


def _read_meta(directory: Path, path: Path) -> dict[str, RecordedCamera]:
    """Return the cameras of a list, by name."""
    with reading(path, "list of cameras"):
        content = read_json(path)
        if not isinstance(content, dict):
            raise InputError(f"{path}: expected a JSON object, got {type(content).__name__}")
        missing = [key for key in ("w", "h", "k", "w2c", "fn", "cam_id") if key not in content]
        if missing:
            raise InputError(f"{path}: {missing[0]} is missing; expected w, h, k, w2c, fn, cam_id")
        for key in ("w", "h"):
            if type(content[key]) is not int:
                raise InputError(f"{path}: {key}: expected an integer, got {shown(content[key])}")
        ids = _table(content, "cam_id", path)
        frames, count = len(ids), len(ids[0])
        k = _matrices(content, "k", (frames, count, 3, 3), path)
        w2c = _matrices(content, "w2c", (frames, count, 4, 4), path)
        names = _table(content, "fn", path)
        if (len(names), len(names[0])) != (frames, count):
            raise InputError(
                f"{path}: fn: expected {frames} frames of {count} cameras, as in cam_id, got "
                f"{len(names)} of {len(names[0])}"
            )
    changed = next((t for t, row in enumerate(ids) if row != ids[0]), None)
    if changed is not None:
        raise InputError(f"{path}: cam_id: expected the same cameras in every frame, not so in "
                         f"frame {changed}")  # fmt: skip
    order = [str(name) for name in ids[0]]
    twice = next((name for name in order if order.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: cam_id: camera {twice} is listed twice")
    return {
        name: _camera(directory, path, name, [row[c] for row in names], k[:, c], w2c[:, c], content)
        for c, name in enumerate(order)
    }


def _camera(
    directory: Path,
    path: Path,
    name: str,
    files: list[Any],
    k: Float64[np.ndarray, "frames 3 3"],
    w2c: Float64[np.ndarray, "frames 4 4"],
    content: dict[str, Any],
) -> RecordedCamera:
    """Return one camera of a list."""
    where = f"{path}: camera {name}"
    with reading(where, "camera"):
        intrinsics = pinhole_intrinsics(k, f"{where}: k")
        cameras: Cameras = checked_cameras(where, intrinsics, w2c, content["w"], content["h"])
    images = tuple(inside(directory / "ims", file, f"{where}: fn") for file in files)
    masks = tuple(
        inside(directory / "seg", file, f"{where}: fn").with_suffix(".png") for file in files
    )
    has_masks = (directory / "seg").is_dir()
    seconds = np.arange(len(images)) / FPS
    return RecordedCamera(name, cameras, seconds, images, masks if has_masks else None)


def _table(content: dict[str, Any], key: str, path: Path) -> list[list[Any]]:
    """Return a list of lists of one length of texts or integers."""
    value = content[key]
    good = isinstance(value, list) and all(isinstance(row, list) and row for row in value)
    if not good or not value or any(len(row) != len(value[0]) for row in value):
        raise InputError(f"{path}: {key}: expected a list of frames, each a list of all cameras")
    if len(value) < 2 or len(value) > MOST_FRAMES:
        raise InputError(f"{path}: {key}: expected at least 2 frames, got {len(value)}")
    for row in value:
        wrong = [item for item in row if type(item) not in (str, int)]
        if wrong:
            raise InputError(f"{path}: {key}: expected names or numbers, got {shown(wrong[0])}")
    return value


def _matrices(
    content: dict[str, Any], key: str, shape: tuple[int, ...], path: Path
) -> Float64[np.ndarray, "frames cameras rows columns"]:
    """Return finite numbers of a shape."""
    try:
        value = np.array(content[key], np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: {key}: expected numbers of the shape {shape} (frames, cameras, rows, "
            "columns), got lists of differing lengths or other values"
        ) from error
    if value.shape != shape:
        raise InputError(
            f"{path}: {key}: expected the shape {shape} (frames, cameras, rows, columns), got "
            f"{value.shape}"
        )
    if not np.isfinite(value).all():
        raise InputError(f"{path}: {key}: expected finite numbers, got NaN or infinity")
    return value


def _read_points(directory: Path) -> ScenePoints | None:
    """Return the points of the first frame; None without a file."""
    path = directory / POINTS
    if not path.is_file():
        return None
    with reading(path, "file of points"):
        data = load_npz(path, ("data",))["data"]
        if data.ndim != 2 or data.shape[1] != _COLUMNS or data.dtype.kind not in "fiu":
            raise InputError(f"{path}: data: expected points [N, 7], got {data.shape}")
        return checked_points(
            data[:, :3].astype(np.float64), data[:, 6] > _FOREGROUND, f"{path}: data"
        )
