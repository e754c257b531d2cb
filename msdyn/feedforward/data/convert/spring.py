"""Spring: frames of a computer-animated film with disparity and cameras.

    <split>/<sequence>/frame_left/frame_left_0001.png    numbered from 1
    <split>/<sequence>/disp1_left/disp1_left_0001.dsp5   HDF5, `disparity` of twice the size, in px
                                                         of the image
    <split>/<sequence>/cam_data/intrinsics.txt           a line per frame: fx fy cx cy, px
    <split>/<sequence>/cam_data/extrinsics.txt           a line per frame: a 4x4 matrix by rows,
                                                         world to left camera, OpenCV axes, metres

and the same with `right`, whose camera is 0.065 m to the right of the left one. Cameras without
disparity, and the test split, are left out. Z-depth is fx times 0.065 m over the disparity of every
second row and column, as by the authors, which is that of a point a quarter of a pixel up and left
of the pixel's centre. Disparity 0 is sky, NaN unknown. The motion is unknown: scene flow is not
read. That the principal point of a centred image is at half of its size is assumed.

Reference: `dataloader.py` and `pointcloud.py` (`get_depth`) of github.com/cv-stuttgart/spring_utils
for layout, disparity and intrinsics; cameras as in `data_processing/wai_processing/scripts/
conversion/spring.py` of github.com/facebookresearch/map-anything.
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
from msdyn.reading import image_size, load_h5py, read_hdf5

_BASELINE = 0.065
_ABOUT = {"source": "https://spring-benchmark.org", "licence": "CC BY 4.0"}


@register_converter(
    "spring",
    layout="<split>/<sequence> with frame_left/frame_left_0001.png, "
    "disp1_left/disp1_left_0001.dsp5 and cam_data/intrinsics.txt, extrinsics.txt",
)
def clips(source: Path) -> Iterator[LazyClips]:
    """Yield one clip per sequence and camera with disparity."""
    for folder in find_folders(source, "disp1_*", 2):
        load_h5py()
        for camera in ("left", "right"):
            if (folder / f"disp1_{camera}").is_dir():
                yield partial(_clip, folder, camera)


def _clip(folder: Path, camera: str) -> Clip:
    images = numbered_files(folder / f"frame_{camera}", rf"frame_{camera}_(\d+)\.png")
    disparity_folder = folder / f"disp1_{camera}"
    disparities = numbered_files(disparity_folder, rf"disp1_{camera}_(\d+)\.dsp5")
    frames = list(images)
    if frames[0] < 1:
        raise InputError(f"{images[frames[0]]}: expected frames numbered from 1")
    width, height = image_size(images[frames[0]])
    rows = [frame - 1 for frame in frames]
    path = folder / "cam_data" / "extrinsics.txt"
    intrinsics = folder / "cam_data" / "intrinsics.txt"
    pixels = rows_of(intrinsics, read_numbers(intrinsics, 4), rows)
    cam_from_world = rows_of(path, read_numbers(path, 16), rows).reshape(-1, 4, 4)
    if camera == "right":
        cam_from_world[:, 0, 3] -= _BASELINE
    world_from_cam, normalised = clip_cameras(path, pixels, cam_from_world, width, height)
    return Clip(
        clip_name(folder.parent.name, folder.name, camera),
        "spring",
        np.array(frames, np.float64),
        world_from_cam,
        normalised,
        "unknown",
        FrameFiles(
            tuple(images.values()),
            width,
            height,
            matching(frames, disparities, disparity_folder),
            partial(_read_depth, pixels[:, 0]),
        ),
        about=dict(_ABOUT),
    )


def _read_depth(
    focal: Float64[np.ndarray, " times"], path: Path, index: int
) -> Float32[np.ndarray, "height width"]:
    disparity = read_hdf5(path, "disparity")
    if disparity.ndim != 2 or disparity.dtype.kind != "f" or any(n % 2 for n in disparity.shape):
        raise InputError(
            f"{path}: disparity: expected numbers of twice the image's size, got "
            f"{disparity.dtype} {disparity.shape}"
        )
    disparity = disparity[::2, ::2].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return known_depth(focal[index] * _BASELINE / disparity)
