"""Masks from files: an index image a frame, or a folder of images an object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msdyn.errors import InputError
from msdyn.files import natural_order
from msdyn.preprocess.contracts import CameraSolution
from msdyn.preprocess.frame_matching import frame_files, nearest, scale_factor
from msdyn.preprocess.progress import progress
from msdyn.scene import IGNORE, STATIC, Scene, Tracks

__all__ = ["FileMasks"]

MAX_OBJECTS = 254


@dataclass(frozen=True)
class FileMasks:
    """Index masks from a folder of 8-bit `.png`, or black and white ones from a folder an object.

    A palette is taken for its indices. Where every pixel of every index image is 0 or 255, 255 is
    the one object, not "ignore". Folders are objects 1, 2, ... in the order of their names (as in
    SA-V); where two overlap, the smaller one lies on top.
    """

    path: Path

    name = "files"

    def segment(
        self, scene: Scene, tracks: Tracks, solution: CameraSolution | None
    ) -> tuple[Iterator[np.ndarray], dict[str, Any]]:
        """Return the masks, and how they were resampled.

        Raises:
            FileNotFoundError: there is no such folder.
            InputError: files that are not masks, or do not fit the frames or their size.
        """
        folders = _object_folders(self.path)
        if folders:
            return _of_objects(scene, folders)
        files = frame_files(scene, self.path, (".png",))
        values = set()
        for file in files:
            mask = _read_index_mask(file)
            factor = scale_factor(scene, mask.shape, file)
            values |= set(np.unique(mask).tolist())
        binary = IGNORE in values and values <= {STATIC, IGNORE}
        masks = (_read_index_mask(file) for file in progress(files, "masks"))
        if binary:
            masks = (np.minimum(mask, 1) for mask in masks)
        quality = {"resampled": factor, "binary": binary}
        return (nearest(mask, scene.size) for mask in masks), quality


def _object_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    if any(path.glob("*.png")):
        return []
    folders = [p for p in path.iterdir() if p.is_dir() and any(p.glob("*.png"))]
    if len(folders) > MAX_OBJECTS:
        raise InputError(f"{path}: expected at most {MAX_OBJECTS} objects, got {len(folders)}")
    return sorted(folders, key=natural_order)


def _of_objects(scene: Scene, folders: list[Path]) -> tuple[Iterator[np.ndarray], dict[str, Any]]:
    files = [frame_files(scene, folder, (".png",)) for folder in folders]
    quality: dict[str, Any] = {"folders": [folder.name for folder in folders]}

    def masks() -> Iterator[np.ndarray]:
        for of_frame in progress(list(zip(*files, strict=True)), "masks"):
            regions = []
            for file in of_frame:
                mask = _read_index_mask(file)
                quality["resampled"] = scale_factor(scene, mask.shape, file)
                regions.append(nearest(mask, scene.size) > 0)
            result = np.full(scene.size, STATIC, np.uint8)
            for label in np.argsort([-int(region.sum()) for region in regions], kind="stable"):
                result[regions[label]] = label + 1
            yield result

    return masks(), quality


def _read_index_mask(path: Path) -> np.ndarray:
    """Read one index mask [H, W] uint8."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            image = np.array(opened)
    except OSError as error:
        raise InputError(f"{path}: not a readable image ({error})") from error
    if image.ndim != 2 or image.dtype not in (np.uint8, np.bool_):
        raise InputError(
            f"{path}: expected one 8-bit channel (or a palette) of object numbers, "
            f"got {image.dtype} {image.shape}"
        )
    return image.astype(np.uint8)
