"""COLMAP's sparse model, text or binary: reading posed images. `colmap_writer` writes them.

A folder of `cameras.bin`, `images.bin`, `points3D.bin` (and, from COLMAP 4, `rigs.bin`,
`frames.bin`), or of the same names with `.txt`. The conventions are those of msdyn: OpenCV axes,
`cam_from_world`, pixel centres at +0.5.

Reference: the page "Output Format" of COLMAP's documentation; pycolmap reads the files.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float64

from msdyn.errors import InputError
from msdyn.files import natural_order
from msdyn.geometry import Cameras
from msdyn.interruption import reinstall
from msdyn.io.posed_images import PosedImages

if TYPE_CHECKING:
    import pycolmap

__all__ = ["find_colmap_model", "load_pycolmap", "read_colmap"]

_MODEL_FOLDERS = ("", "sparse/0", "sparse", "colmap/sparse/0", "0")
_MAX_DISTORTION_PX = 0.5
"""Maximum displacement of a border pixel by distortion for images to count as undistorted."""


def load_pycolmap() -> ModuleType:
    """Return the module pycolmap, imported after zlib."""
    import zlib  # noqa: F401  if imported after pycolmap, pycolmap's PNG writer aborts the process

    import pycolmap

    # COLMAP's log handles SIGTERM by printing a stack of C++ calls.
    reinstall()
    return pycolmap


def find_colmap_model(folder: str | os.PathLike) -> Path | None:
    """Return the folder of a sparse model at or below `folder`, or None."""
    for name in _MODEL_FOLDERS:
        model = Path(folder) / name
        if any((model / f"cameras{suffix}").is_file() for suffix in (".bin", ".txt")):
            return model
    return None


def read_colmap(folder: str | os.PathLike) -> PosedImages:
    """Read the cameras of the registered images of a sparse model, sorted by image name.

    Raises:
        FileNotFoundError: there is no model in the folder.
        InputError: the files cannot be read, no image is registered, sizes differ, or the cameras
            have a distortion of more than half a pixel.
    """
    model = find_colmap_model(folder)
    if model is None:
        raise FileNotFoundError(f"{folder}: no COLMAP model in it (cameras.bin or cameras.txt)")
    if not any((model / f"images{suffix}").is_file() for suffix in (".bin", ".txt")):
        raise FileNotFoundError(f"{model}: images.bin or images.txt is missing")
    try:
        reconstruction = load_pycolmap().Reconstruction(str(model))
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{model}: not a readable COLMAP model ({reason[-1] if reason else error})"
        ) from error
    images = [image for image in reconstruction.images.values() if image.has_pose]
    if not images:
        raise InputError(f"{model}: expected at least one registered image, got none")
    images.sort(key=lambda image: natural_order(image.name))
    used = {image.camera_id: reconstruction.cameras[image.camera_id] for image in images}
    sizes = {(camera.width, camera.height) for camera in used.values()}
    if len(sizes) > 1:
        raise InputError(f"{model}: expected images of one size, got {sorted(sizes)}")
    ((width, height),) = sizes
    intrinsics = {key: _pinhole(camera, f"{model}: camera {key}") for key, camera in used.items()}
    poses = np.tile(np.eye(4), (len(images), 1, 1))
    poses[:, :3] = [_matrix(image) for image in images]
    cameras = Cameras(
        np.stack([intrinsics[image.camera_id] for image in images]), poses, width, height
    )
    return PosedImages("COLMAP", cameras, names=tuple(image.name for image in images))


def _matrix(image: pycolmap.Image) -> Float[np.ndarray, "3 4"]:
    """Return `cam_from_world`, a method since pycolmap 3.12 and a property before."""
    pose: Any = image.cam_from_world
    rigid: Any = pose() if callable(pose) else pose
    return np.asarray(rigid.matrix())


def _pinhole(camera: pycolmap.Camera, where: str) -> Float64[np.ndarray, "3 3"]:
    """Return the intrinsics of a camera, checked to have negligible distortion."""
    k = np.asarray(camera.calibration_matrix(), np.float64)
    across = np.linspace(0, camera.width, 9)
    down = np.linspace(0, camera.height, 9)
    border = np.concatenate(
        [
            *([[x, 0], [x, camera.height]] for x in across),
            *([[0, y], [camera.width, y]] for y in down),
        ]
    )
    rays = (border - k[:2, 2]) / k[[0, 1], [0, 1]]
    distorted = np.asarray(
        camera.img_from_cam(np.concatenate([rays, np.ones((len(rays), 1))], axis=1))
    )
    displacement = np.abs(distorted - border).max()
    if not displacement <= _MAX_DISTORTION_PX:
        raise InputError(
            f"{where}: the images are distorted ({camera.model.name}, up to "
            f"{displacement:.1f} px); undistort them first (colmap image_undistorter)"
        )
    return k
