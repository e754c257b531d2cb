"""MatrixCity: pictures of two cities of Unreal Engine with depth and cameras.

    <city>/<aerial or street>/<split>/<block>/transforms.json     cameras as exported:
        camera_angle_x     horizontal field of view, radians
        frames             frame_index; rot_mat, a 4x4 matrix, camera to world, OpenGL axes, whose
                           rotation is divided by 100 and whose translation is in metres
    <block>/0000.png, or <block>/rgb/0000.png                     images by frame_index
    <block>/depth/0000.exr                                        z-depth in centimetres

The folder may also be that of a city or of a block. Pixels are square, the principal point is the
centre. Depth of 65504 (the largest float16, to which 16-bit archives are clipped) and of 10 km and
more (sky, assumed) is unknown. The archives of images and depth are separate. That images are in
the block's folder follows from the authors' scripts; where depth belongs is not documented: it is
expected in `depth` beside `transforms.json`, as by other programs. The files
`pose/.../transforms_train.json`, whose unit is 100 m, are not supported. Scenes are static. Frames
are in the order of their numbers.

Reference: `scripts/load_aerial.py`, `load_street.py` (rot_mat, names of images), `rgbd2pc.py`
(axes, units, z-depth), `load_data.py` (65504) of github.com/city-super/MatrixCity, and its issues
24 (depth is that of a plane) and 37 (metres); the folders `rgb` and `depth` as in
`internal/dataparsers/MatrixCity.md` of github.com/yzslab/gaussian-splatting-lightning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from msdyn.errors import InputError
from msdyn.feedforward.data.clip import Clip
from msdyn.feedforward.data.convert.files import (
    FrameFiles,
    clip_cameras,
    clip_name,
    find_folders,
    known_depth,
    matching,
    numbered_files,
)
from msdyn.feedforward.data.convert.registry import LazyClips, register_converter
from msdyn.geometry import invert_transforms
from msdyn.io import read_depth_map
from msdyn.reading import image_size, read_json

_CENTIMETRE = 0.01
_CLIPPED = 65504
_FARTHEST = 1e4
_ROTATION = 100.0
_OPENGL_FROM_OPENCV = np.diag([1.0, -1, -1, 1])
_ABOUT = {"source": "https://city-super.github.io/matrixcity", "licence": "CC BY-NC 4.0"}


@register_converter(
    "matrixcity",
    layout="<city>/<aerial or street>/<split>/<block> with transforms.json, 0000.png or "
    "rgb/0000.png, and depth/0000.exr",
)
def clips(source: Path) -> Iterator[LazyClips]:
    """Yield one clip per block."""
    for folder in find_folders(source, "transforms.json", 4):
        yield partial(_clip, folder)


def _clip(folder: Path) -> Clip:
    path = folder / "transforms.json"
    angle, poses = _read_transforms(path)
    image_folder = folder / "rgb" if (folder / "rgb").is_dir() else folder
    images = matching(poses, numbered_files(image_folder, r"(\d+)\.png"), image_folder)
    depth_folder = folder / "depth"
    depths = matching(poses, numbered_files(depth_folder, r"(\d+)\.exr"), depth_folder)
    width, height = image_size(images[0])
    focal = width / 2 / math.tan(angle / 2)
    world_from_cam, intrinsics = clip_cameras(
        path,
        np.tile([focal, focal, width / 2, height / 2], (len(poses), 1)),
        invert_transforms(np.stack(list(poses.values())) @ _OPENGL_FROM_OPENCV),
        width,
        height,
    )
    return Clip(
        clip_name(*folder.parts[-3:]),
        "matrixcity",
        np.array(list(poses), np.float64),
        world_from_cam,
        intrinsics,
        "static",
        FrameFiles(images, width, height, depths, _read_depth),
        about=dict(_ABOUT),
    )


def _read_transforms(path: Path) -> tuple[float, dict[int, Float64[np.ndarray, "4 4"]]]:
    """Return the field of view and the poses, camera to world, by number of the frame."""
    content = read_json(path)
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise InputError(f"{path}: frames: expected a list of at least one frame")
    angle = content.get("camera_angle_x")
    if not isinstance(angle, float) or not 0 < angle < math.pi:
        raise InputError(f"{path}: camera_angle_x: expected 0 to pi, got {angle!r}")
    poses = {}
    for frame in frames:
        number = frame.get("frame_index")
        if not isinstance(number, int) or number in poses:
            raise InputError(f"{path}: frame_index: expected different numbers, got {number!r}")
        poses[number] = _pose(path, frame)
    return angle, dict(sorted(poses.items()))


def _pose(path: Path, frame: dict[str, Any]) -> Float64[np.ndarray, "4 4"]:
    try:
        matrix = np.array(frame.get("rot_mat"), np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(())
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError(f"{path}: rot_mat: expected a 4x4 matrix of numbers in each frame")
    matrix[:3, :3] *= _ROTATION
    matrix[3] = (0, 0, 0, 1)
    return matrix


def _read_depth(path: Path, index: int) -> Float32[np.ndarray, "height width"]:
    del index
    stored = read_depth_map(path)
    return known_depth(np.where(stored == _CLIPPED, 0, stored * _CENTIMETRE), _FARTHEST)
