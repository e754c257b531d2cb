"""TartanAir: synthetic stereo videos of scenes with depth and cameras.

    <environment>/<Easy or Hard>/<trajectory>/image_left/000000_left.png          640x480
    <environment>/<Easy or Hard>/<trajectory>/depth_left/000000_left_depth.npy    z-depth, m
    <environment>/<Easy or Hard>/<trajectory>/pose_left.txt                       a line per frame

and the same with `right`; a camera without images is left out. The lines of poses are tx ty tz qx
qy qz qw, camera to world, of a camera with the axes x forward, y right, z down (NED), in a world of
the same kind. fx = fy = 320, cx = 320, cy = 240, where the image's centre is at half of its size.
The sky is far away but not infinite: depth of 1000 m and more is unknown. Scenes are taken to be
static, as by MoVieS; some have dynamic objects, which the data set masks in its optical flow only.
TartanAir V2 has another layout and is not supported.

Reference: `README.md` and `data_type.md` of github.com/castacks/tartanair_tools; `ned2cam` in its
`evaluation/trajectory_transform.py`; z-depth ("DepthPlanar") as the authors say in its issue 67.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

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
    read_numbers,
    rows_of,
)
from msdyn.feedforward.data.convert.registry import LazyClips, register_converter
from msdyn.geometry import invert_transforms
from msdyn.reading import image_size, read_npy

_SIZE = (640, 480)
_INTRINSICS = (320.0, 320.0, 320.0, 240.0)
_FARTHEST = 1000.0
_NED_FROM_OPENCV = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
_ABOUT = {"source": "https://theairlab.org/tartanair-dataset", "licence": "CC BY 4.0"}


@register_converter(
    "tartanair",
    layout="<environment>/<Easy or Hard>/<trajectory> with pose_left.txt, "
    "image_left/000000_left.png and depth_left/000000_left_depth.npy",
)
def clips(source: Path) -> Iterator[LazyClips]:
    """Yield one clip per trajectory and camera."""
    for folder in find_folders(source, "pose_*.txt", 4):
        for camera in ("left", "right"):
            if (folder / f"image_{camera}").is_dir():
                yield partial(_clip, folder, camera)


def _clip(folder: Path, camera: str) -> Clip:
    path = folder / f"pose_{camera}.txt"
    images = numbered_files(folder / f"image_{camera}", rf"(\d+)_{camera}\.png")
    depth_folder = folder / f"depth_{camera}"
    depths = matching(
        images, numbered_files(depth_folder, rf"(\d+)_{camera}_depth\.npy"), depth_folder
    )
    frames = list(images)
    size = image_size(images[frames[0]])
    if size != _SIZE:
        raise InputError(f"{images[frames[0]]}: expected 640x480 px, got {size[0]}x{size[1]}")
    poses = rows_of(path, read_numbers(path, 7), frames)
    world_from_cam, intrinsics = clip_cameras(
        path,
        np.tile(_INTRINSICS, (len(frames), 1)),
        invert_transforms(_world_from_cam(path, poses)),
        *_SIZE,
    )
    return Clip(
        clip_name(*folder.parts[-3:], camera),
        "tartanair",
        np.array(frames, np.float64),
        world_from_cam,
        intrinsics,
        "static",
        FrameFiles(tuple(images.values()), *_SIZE, depths, _read_depth),
        about=dict(_ABOUT),
    )


def _world_from_cam(
    path: Path, poses: Float64[np.ndarray, "times 7"]
) -> Float64[np.ndarray, "times 4 4"]:
    from scipy.spatial.transform import Rotation

    lengths = np.linalg.norm(poses[:, 3:], axis=1)
    if (np.abs(lengths - 1) > 1e-2).any():
        row = int(np.abs(lengths - 1).argmax())
        raise InputError(f"{path}: expected unit quaternions, got length {lengths[row]:.3g}")
    world_from_cam = np.tile(np.eye(4), (len(poses), 1, 1))
    world_from_cam[:, :3, :3] = Rotation.from_quat(poses[:, 3:]).as_matrix() @ _NED_FROM_OPENCV
    world_from_cam[:, :3, 3] = poses[:, :3]
    return world_from_cam


def _read_depth(path: Path, index: int) -> Float32[np.ndarray, "height width"]:
    del index
    depth = read_npy(path)
    if depth.ndim != 2 or depth.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected a map [height, width] of numbers")
    return known_depth(depth.astype(np.float32), _FARTHEST)
