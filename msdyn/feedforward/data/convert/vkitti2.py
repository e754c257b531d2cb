"""Virtual KITTI 2: synthetic stereo videos of roads with depth and cameras.

    <scene>/<variation>/frames/rgb/Camera_0/rgb_00000.jpg
    <scene>/<variation>/frames/depth/Camera_0/depth_00000.png   16 bits, z-depth in centimetres
    <scene>/<variation>/intrinsic.txt   frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]
    <scene>/<variation>/extrinsic.txt   frame cameraID and a 4x4 matrix by rows, world to camera,
                                        OpenCV axes, metres

and Camera_1. Text files have a line of names first. All archives may be unpacked into one folder,
or each into a folder of its name (`vkitti_2.0.3_rgb`, `vkitti_2.0.3_depth`, `vkitti_2.0.3_textgt`).
Pixel centres are whole numbers: the principal point (620.5, 187) is the centre of 1242x375 px; a
half is added to it. Depth of 65535 (sky, 655.35 m) is unknown, as is the motion of cars. That depth
is not the length of rays is assumed.

Reference: europe.naverlabs.com/research/computer-vision/proxy-virtual-worlds-vkitti-2; lines of the
text files as in `scripts/create_vkitti2_metadata.py` of github.com/hturki/suds, which inverts the
matrices as world to camera, as does issue 370 of github.com/facebookresearch/vggt.
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
)
from msdyn.feedforward.data.convert.registry import LazyClips, register_converter
from msdyn.reading import image_size, read_png16

_SKY = 65535
_ABOUT = {
    "source": "https://europe.naverlabs.com/research/computer-vision/proxy-virtual-worlds-vkitti-2",
    "licence": "CC BY-NC-SA 3.0",
}


@register_converter(
    "vkitti2",
    layout="<scene>/<variation> with frames/rgb/Camera_0/rgb_00000.jpg, "
    "frames/depth/Camera_0/depth_00000.png, intrinsic.txt and extrinsic.txt",
)
def clips(source: Path) -> Iterator[LazyClips]:
    """Yield one clip per scene, variation and camera."""
    images, depths, texts = (_archive(source, name) for name in ("rgb", "depth", "textgt"))
    for folder in find_folders(images, "Camera_*", 4):
        if folder.parts[-2:] == ("frames", "rgb"):
            sequence = folder.parents[1].relative_to(images)
            for camera in sorted(folder.glob("Camera_[01]")):
                yield partial(
                    _clip,
                    camera,
                    depths / sequence / "frames" / "depth" / camera.name,
                    texts / sequence,
                )


def _archive(source: Path, name: str) -> Path:
    folder = source / f"vkitti_2.0.3_{name}"
    return folder if folder.is_dir() else source


def _clip(image_folder: Path, depth_folder: Path, texts: Path) -> Clip:
    images = numbered_files(image_folder, r"rgb_(\d+)\.jpg")
    depths = matching(images, numbered_files(depth_folder, r"depth_(\d+)\.png"), depth_folder)
    frames, camera = list(images), int(image_folder.name.removeprefix("Camera_"))
    width, height = image_size(images[frames[0]])
    intrinsics = _rows(texts / "intrinsic.txt", frames, camera, 4)
    intrinsics[:, 2:] += 0.5
    world_from_cam, intrinsics = clip_cameras(
        texts / "extrinsic.txt",
        intrinsics,
        _rows(texts / "extrinsic.txt", frames, camera, 16).reshape(-1, 4, 4),
        width,
        height,
    )
    return Clip(
        clip_name(texts.parent.name, texts.name, str(camera)),
        "vkitti2",
        np.array(frames, np.float64),
        world_from_cam,
        intrinsics,
        "unknown",
        FrameFiles(tuple(images.values()), width, height, depths, _read_depth),
        about=dict(_ABOUT),
    )


def _rows(
    path: Path, frames: list[int], camera: int, columns: int
) -> Float64[np.ndarray, "times columns"]:
    """Return the numbers of the frames of a camera."""
    table = read_numbers(path, columns + 2, skip=1)
    found = {int(row[0]): row[2:] for row in table if row[1] == camera}
    missing = [frame for frame in frames if frame not in found]
    if missing:
        raise InputError(f"{path}: no line of frame {missing[0]} of camera {camera}")
    return np.array([found[frame] for frame in frames])


def _read_depth(path: Path, index: int) -> Float32[np.ndarray, "height width"]:
    del index
    stored = read_png16(path)
    return known_depth(np.where(stored == _SKY, 0, stored / 100))
