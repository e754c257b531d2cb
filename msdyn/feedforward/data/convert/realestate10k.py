"""RealEstate10K: cameras of videos of houses; the videos are on YouTube.

    <split>/<clip>.txt      the address of the video, then 19 columns per frame: timestamp in
                            microseconds, fx, fy, cx, cy as shares of the image's width and height,
                            two zeros, and a 3x4 matrix by rows, world to camera, OpenCV axes
    <split>/<clip>/<timestamp>.jpg or .png, or the same in <split>/<clip>/images

The text files are published; the frames are extracted by the user, and this is the place where they
are expected. Frames without image, and clips without any, are left out. Scenes are static and
cameras are from structure from motion, so that each clip has a scale of its own; there is no depth.
(MoVieS estimates depth and cameras anew by networks; that is not part of this converter.)

Reference: google.github.io/realestate10k/download.html: columns 1 to 19, K P maps a world point to
the image, its upper left corner is (0, 0), the lower right (1, 1). It has four intrinsics in
columns 2 to 6 and a pose in 7 to 19; files have zeros in columns 6 and 7, as in the line quoted in
issue 14 of github.com/facebookresearch/synsin.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from msdyn.errors import InputError
from msdyn.feedforward.data.clip import Clip
from msdyn.feedforward.data.convert.files import FrameFiles, clip_cameras, clip_name, read_numbers
from msdyn.feedforward.data.convert.registry import LazyClips, register_converter
from msdyn.reading import image_size

_COLUMNS = 19
_SUFFIXES = (".jpg", ".png")
_ABOUT = {
    "source": "https://google.github.io/realestate10k",
    "licence": "CC BY 4.0 (cameras); the videos belong to their owners",
}


@register_converter(
    "realestate10k", layout="<split>/<clip>.txt and frames in <split>/<clip>/<timestamp>.jpg"
)
def clips(source: Path) -> Iterator[LazyClips]:
    """Yield the clips of which there are frames."""
    for path in sorted({*source.glob("*.txt"), *source.glob("*/*.txt")}):
        if images := _images(path.with_suffix("")):
            yield partial(_clip, path, images)


def _images(folder: Path) -> dict[int, Path]:
    """Return the images of a folder by timestamp."""
    folder = folder / "images" if (folder / "images").is_dir() else folder
    if not folder.is_dir():
        return {}
    return {
        int(path.stem): path
        for path in sorted(folder.iterdir())
        if path.suffix in _SUFFIXES and path.stem.isdecimal()
    }


def _clip(path: Path, images: dict[int, Path]) -> Clip:
    """Return the clip of the frames that have an image."""
    table = read_numbers(path, _COLUMNS, skip=1)
    table = table[np.argsort(table[:, 0], kind="stable")]
    if (np.diff(table[:, 0]) <= 0).any():
        raise InputError(f"{path}: expected one line per timestamp")
    if table[:, 5:7].any():
        raise InputError(f"{path}: expected zeros in columns 6 and 7, as of undistorted images")
    table = table[[int(time) in images for time in table[:, 0]]]
    if not len(table):
        raise InputError(f"{path}: no line has the timestamp of one of the {len(images)} images")
    files = tuple(images[int(time)] for time in table[:, 0])
    width, height = image_size(files[0])
    world_from_cam, intrinsics = clip_cameras(
        path,
        table[:, 1:5] * [width, height, width, height],
        _cam_from_world(table[:, 7:]),
        width,
        height,
    )
    return Clip(
        clip_name(path.parent.name, path.stem),
        "realestate10k",
        table[:, 0],
        world_from_cam,
        intrinsics,
        "static",
        FrameFiles(files, width, height),
        about=dict(_ABOUT),
    )


def _cam_from_world(
    rows: Float64[np.ndarray, "times 12"],
) -> Float64[np.ndarray, "times 4 4"]:
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows.reshape(-1, 3, 4)
    return poses
