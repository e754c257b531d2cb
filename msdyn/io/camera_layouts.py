"""Files and folders of cameras of any known format, detected by their content."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msdyn.errors import InputError
from msdyn.geometry import invert_transforms
from msdyn.io.colmap import find_colmap_model, read_colmap
from msdyn.io.depth_anything3 import read_depth_anything3
from msdyn.io.dycheck import Dycheck
from msdyn.io.megasam import read_megasam
from msdyn.io.nerfstudio import read_nerfstudio
from msdyn.io.posed_images import (
    PosedImages,
    ScenePoints,
    checked_cameras,
    checked_points,
    pinhole_matrix,
)
from msdyn.io.tum import read_tum
from msdyn.reading import load_npz, npz_keys, read_json, reading
from msdyn.scene import read_cameras

__all__ = ["CAMERA_LAYOUTS", "read_posed_images", "read_scene_points"]

CAMERA_LAYOUTS = (
    "cameras.json of msdyn (or a folder of it and points.npz), transforms.json of nerfstudio, a "
    "COLMAP model (folder), a DyCheck sequence (folder), an npz of MegaSaM or Depth Anything 3, or "
    "a TUM trajectory (.txt, with --intrinsics)"
)


def read_posed_images(
    path: str | os.PathLike,
    intrinsics: Sequence[float] | None = None,
    size: tuple[int, int] | None = None,
) -> PosedImages:
    """Read cameras of any known format.

    Args:
        path: a file or folder.
        intrinsics: fx fy cx cy, px, for formats without them (TUM).
        size: (height, width) of the images that `intrinsics` belong to.

    Raises:
        FileNotFoundError: there is no such file or folder.
        InputError: an unknown format, or content that is missing or wrong.
    """
    path = Path(path)
    with reading(path, "file of cameras"):
        return _read(path, intrinsics, size)


def _read(
    path: Path, intrinsics: Sequence[float] | None, size: tuple[int, int] | None
) -> PosedImages:
    if path.is_dir():
        if find_colmap_model(path) is not None:
            return read_colmap(path)
        if (path / "dataset.json").is_file():
            sequence = Dycheck(path)
            names = tuple(sequence.names)
            return PosedImages("DyCheck", sequence.cameras, names=names, lenses=sequence.lenses)
        if (path / "cameras.json").is_file():
            return PosedImages(
                "cameras.json", read_cameras(path / "cameras.json"), points=read_scene_points(path)
            )
        raise InputError(f"{path}: no cameras in this folder; expected {CAMERA_LAYOUTS}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.suffix == ".npz":
        keys = npz_keys(path)
        if "cam_c2w" in keys:
            return read_megasam(path)
        if "extrinsics" in keys:
            return read_depth_anything3(path)
        raise InputError(
            f"{path}: no cameras in this npz (it holds {', '.join(keys) or 'nothing'}); expected "
            "cam_c2w (MegaSaM) or extrinsics (Depth Anything 3)"
        )
    if path.suffix == ".txt":
        return _read_trajectory(path, intrinsics, size)
    content = read_json(path)
    frames = content.get("frames") if isinstance(content, dict) else None
    first = frames[0] if isinstance(frames, list) and frames else None
    if isinstance(first, dict) and "transform_matrix" in first:
        return read_nerfstudio(path)
    return PosedImages("cameras.json", read_cameras(path))


def read_scene_points(folder: Path) -> ScenePoints | None:
    """Return the points of a points.npz: xyz [N, 3], and moving [N] where it is there.

    None without a file.
    """
    path = folder / "points.npz"
    if not path.is_file():
        return None
    with reading(path, "file of points"):
        keys = ("xyz", "moving") if "moving" in npz_keys(path) else ("xyz",)
        arrays = load_npz(path, keys)
        moving = arrays.get("moving", np.zeros(len(arrays["xyz"]), bool))
        return checked_points(arrays["xyz"], moving, str(path))


def _read_trajectory(
    path: Path, intrinsics: Sequence[float] | None, size: tuple[int, int] | None
) -> PosedImages:
    seconds, world_from_cam = read_tum(path)
    if not len(seconds):
        raise InputError(f"{path}: no poses in it; expected lines of: seconds tx ty tz qx qy qz qw")
    if not np.isfinite(seconds).all() or (np.diff(seconds) <= 0).any():
        raise InputError(f"{path}: expected finite, increasing timestamps")
    if intrinsics is None or size is None:
        raise InputError(
            f"{path}: a TUM trajectory has no focal length; add --intrinsics FX FY CX CY, in "
            "pixels of the video at its full size"
        )
    k = pinhole_matrix(*intrinsics)[None]
    height, width = size
    cameras = checked_cameras(path, k, invert_transforms(world_from_cam), width, height)
    return PosedImages("TUM", cameras, seconds=seconds)
