"""A folder of calibrated cameras in our own simple layout.

    cameras.json              fps or times (s); cameras: a list, each with name, w, h, K 3x3 or
                              fx, fy, cx, cy, and w2c or c2w: 4x4, or one 4x4 per frame (K likewise)
    <name>/*.png or *.jpg     images in the order of their numbers; or <name>.mp4
    masks/<name>/*.png        optional, anything but 0 is foreground
    depth/<name>/*.npy        optional, z-depth; also .exr, .png of 16 bits
    points.npz                optional, points of the first frame: xyz [N, 3], moving [N]

Further keys of the file: `axes`, opencv (default: x right, y down, z forward) or opengl (x right,
y up, z backward), of the camera's axes; `input`, the name of the camera to reconstruct from;
`held_out`, names of those to evaluate on; `world_units`, metric or arbitrary (default);
`depth_scale`, units of the world per unit of the depth files. Pixel centres are at +0.5.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from msdyn.errors import InputError
from msdyn.geometry import invert_transforms
from msdyn.io.camera_layouts import read_scene_points
from msdyn.io.depth_maps import DEPTH_SUFFIXES
from msdyn.io.multi_camera import MultiCamera, RecordedCamera, checked_times
from msdyn.io.nerfstudio_paths import number_of
from msdyn.io.posed_images import checked_cameras, pinhole_intrinsics, pinhole_matrix
from msdyn.io.video import scan_video
from msdyn.reading import natural_order, opened_image, read_json, reading, shown
from msdyn.scene.stages import WORLD_UNITS

__all__ = ["read_camera_folder"]

FILE = "cameras.json"
FPS = 30.0
_AXES = {"opencv": np.eye(4), "opengl": np.diag([1.0, -1.0, -1.0, 1.0])}
_IMAGES = (".png", ".jpg", ".jpeg", ".webp")


def read_camera_folder(directory: str | os.PathLike) -> MultiCamera:
    """Open a folder of cameras.

    Raises:
        FileNotFoundError: there is no cameras.json, or no images of a camera.
        InputError: a key is missing or wrong, or numbers of files differ.
    """
    directory = Path(directory)
    path = directory / FILE
    if not path.is_file():
        raise FileNotFoundError(f"{directory}: not a folder of cameras (no {FILE} in it)")
    content = read_json(path)
    rows = content.get("cameras") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: cameras: expected a list of at least one camera")
    names = [row.get("name") for row in rows]
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name.startswith("."):
            raise InputError(f"{path}: name: expected the name of a folder, got {shown(name)}")
        if names.count(name) > 1:
            raise InputError(f"{path}: name: camera {name} is listed twice")
    cameras = {row["name"]: _camera(directory, path, content, row) for row in rows}
    units = content.get("world_units", "arbitrary")
    if units not in WORLD_UNITS:
        raise InputError(f"{path}: world_units: expected one of {WORLD_UNITS}, got {shown(units)}")
    held_out = content.get("held_out", [])
    clip = content.get("input")
    named = [*(held_out if isinstance(held_out, list) else [held_out]), clip]
    wrong = [name for name in named if name is not None and name not in names]
    if wrong:
        raise InputError(
            f"{path}: held_out, input: expected names of its cameras, got {shown(wrong[0])}"
        )
    return MultiCamera(
        "recording",
        directory,
        cameras,
        tuple(name for name in held_out if name != clip),
        read_scene_points(directory),
        metric=units == "metric",
        clip=clip,
    )


def _camera(
    directory: Path, path: Path, content: dict[str, Any], row: dict[str, Any]
) -> RecordedCamera:
    """Return one camera, with all of its files."""
    name, where = row["name"], f"{path}: camera {row['name']}"
    images = _files(directory / name, _IMAGES)
    video = directory / f"{name}.mp4"
    if bool(images) == video.is_file():
        raise InputError(
            f"{where}: expected images in {directory / name} or a video {video.name}, "
            f"{'and found both' if images else 'and found neither'}"
        )
    seconds = None
    if not images:
        scanned = scan_video(video)
        images, seconds = (video,), scanned.seconds
    count = len(images) if seconds is None else len(seconds)
    size = [int(number_of(row, key, where)) for key in ("w", "h")]
    axes = row.get("axes", content.get("axes", "opencv"))
    if axes not in _AXES:
        raise InputError(f"{where}: axes: expected one of {', '.join(_AXES)}, got {shown(axes)}")
    given = [key for key in ("w2c", "c2w") if key in row]
    if len(given) != 1:
        raise InputError(
            f"{where}: expected one of w2c and c2w, got {' and '.join(given) or 'none'}"
        )
    pose = _matrices(row[given[0]], (4, 4), count, f"{where}: {given[0]}")
    if "K" in row:
        k = _matrices(row["K"], (3, 3), count, f"{where}: K")
    else:
        k = pinhole_matrix(*(number_of(row, key, where) for key in ("fx", "fy", "cx", "cy")))[None]
    with reading(where, "camera"):
        # Checked before it is inverted, so that the message is of what the file says.
        checked_cameras(where, pinhole_intrinsics(k, f"{where}: K"), pose, *size)
        flip = _AXES[axes]
        w2c = flip @ pose if given[0] == "w2c" else invert_transforms(pose @ flip)
        intrinsics = pinhole_intrinsics(k, f"{where}: K")
        cameras = checked_cameras(where, intrinsics, w2c, *size)
    if seconds is None:
        seconds = _times(content, row, count, where)
    scale = content.get("depth_scale", 1.0)
    if not isinstance(scale, (int, float)) or not np.isfinite(scale) or scale <= 0:
        raise InputError(f"{path}: depth_scale: expected a number > 0, got {shown(scale)}")
    parts = {}
    for folder, suffixes in (("masks", (".png",)), ("depth", DEPTH_SUFFIXES)):
        files = _files(directory / folder / name, suffixes)
        if files and len(files) != count:
            raise InputError(
                f"{directory / folder / name}: expected {count} files, one per image, got "
                f"{len(files)}"
            )
        parts[folder] = files or None
    transparent = False
    if len(images) == count:
        with opened_image(images[0]) as image:
            transparent = image.mode == "RGBA"
    return RecordedCamera(
        name, cameras, seconds, images, parts["masks"], parts["depth"], float(scale), transparent
    )


def _files(folder: Path, suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the files of a folder with one of some suffixes, by the numbers in their names."""
    if not folder.is_dir():
        return ()
    found = (p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.name[0] != ".")
    return tuple(sorted(found, key=natural_order))


def _matrices(
    value: Any, shape: tuple[int, int], count: int, where: str
) -> Float64[np.ndarray, "frames rows columns"]:
    """Return one matrix per frame, of one for all or one for each."""
    try:
        matrices = np.array(value, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: expected a matrix of numbers, got {shown(value)}") from error
    if matrices.shape == shape:
        matrices = np.repeat(matrices[None], count, axis=0)
    if matrices.shape != (count, *shape):
        raise InputError(
            f"{where}: expected the shape {shape}, or {(count, *shape)} with one per image, got "
            f"{matrices.shape}"
        )
    if not np.isfinite(matrices).all():
        raise InputError(f"{where}: expected finite numbers, got NaN or infinity")
    return matrices


def _times(
    content: dict[str, Any], row: dict[str, Any], count: int, where: str
) -> Float64[np.ndarray, " images"]:
    """Return the time of each image in seconds, of `times` or by `fps`."""
    times = row.get("times", content.get("times"))
    if times is None:
        fps = number_of({"fps": FPS, **content}, "fps", where)
        if fps <= 0:
            raise InputError(f"{where}: fps: expected a number > 0, got {fps:g}")
        return np.arange(count) / fps
    with reading(f"{where}: times", "list of seconds"):
        seconds = np.array(times, np.float64)
    if seconds.shape != (count,):
        raise InputError(f"{where}: times: expected {count}, one per image, got {seconds.shape}")
    return checked_times(seconds, f"{where}: times")
