"""COLMAP's sparse model, text or binary: reading posed images. `colmap_writer` writes them.

A folder of `cameras.bin`, `images.bin`, `points3D.bin` (and, from COLMAP 4, `rigs.bin`,
`frames.bin`), or of the same names with `.txt`. The conventions are those of msdyn: OpenCV axes,
`cam_from_world`, pixel centres at +0.5.

`colmap_model` reads the files.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import numpy as np

from msdyn.errors import InputError
from msdyn.geometry import NEGLIGIBLE_PX, Lens
from msdyn.interruption import reinstall
from msdyn.io.colmap_model import ColmapCamera, read_model
from msdyn.io.posed_images import PosedImages, checked_cameras, pinhole_matrix
from msdyn.reading import natural_order, reading

__all__ = ["find_colmap_model", "load_pycolmap", "read_colmap"]

_MODEL_FOLDERS = ("", "sparse/0", "sparse", "colmap/sparse/0", "0")


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
        InputError: the files cannot be read, no image is registered, sizes differ, or a distortion
            cannot be inverted.
    """
    model = find_colmap_model(folder)
    if model is None:
        raise FileNotFoundError(f"{folder}: no COLMAP model in it (cameras.bin or cameras.txt)")
    all_cameras, images = read_model(model)
    if not images:
        raise InputError(f"{model}: expected at least one registered image, got none")
    images.sort(key=lambda image: natural_order(image.name))
    for image in images:
        if image.camera not in all_cameras:
            raise InputError(f"{model}: {image.name}: there is no camera {image.camera}")
    used = {image.camera: all_cameras[image.camera] for image in images}
    sizes = {(camera.width, camera.height) for camera in used.values()}
    if len(sizes) > 1:
        raise InputError(f"{model}: expected images of one size, got {sorted(sizes)}")
    ((width, height),) = sizes
    lenses = {key: _lens(camera, f"{model}: camera {key}") for key, camera in used.items()}
    distorted = any(lens.displacement > NEGLIGIBLE_PX for lens in lenses.values())
    k = np.stack([pinhole_matrix(*lenses[image.camera].pinhole) for image in images])
    poses = np.stack([image.cam_from_world for image in images])
    cameras = checked_cameras(model, k, poses, width, height)
    return PosedImages(
        "COLMAP",
        cameras,
        names=tuple(image.name for image in images),
        lenses=tuple(lenses[image.camera] for image in images) if distorted else None,
    )


def _lens(camera: ColmapCamera, where: str) -> Lens:
    """Return the lens of a camera, checked to be invertible."""
    with reading(where, "camera"):
        lens = Lens(camera.model, camera.params, camera.width, camera.height)
        _ = lens.displacement
        return lens
