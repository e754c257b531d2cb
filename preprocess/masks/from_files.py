"""Masks from files: one index image per frame, or one folder of images per object."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msdyn.errors import InputError
from msdyn.files import natural_order
from msdyn.preprocess.contracts import (
    CameraSolution,
    Figures,
    FileBackend,
    Mask,
    MaskResult,
)
from msdyn.preprocess.frame_matching import frame_files, nearest, scale_factor
from msdyn.preprocess.progress import progress
from msdyn.preprocess.registry import register_backend
from msdyn.preprocess.streamed import Streamed
from msdyn.reading import read_pixels
from msdyn.scene import IGNORE, STATIC, Scene, Tracks

__all__ = ["FileMasks"]

MAX_OBJECTS = 254


@register_backend("masks", "files", needs=("frames", "tracks"))
@dataclass(frozen=True)
class FileMasks(FileBackend):
    """Index masks from a folder of 8-bit `.png`, or binary ones from one folder per object.

    Of a palette image the indices are taken. Where every pixel of every index image is 0 or 255,
    255 is the one object, not "ignore". Folders are objects 1, 2, ... in the order of their names
    (as in SA-V); where two overlap, the smaller one is in front.
    """

    def segment(self, scene: Scene, tracks: Tracks, solution: CameraSolution | None) -> MaskResult:
        """Return the masks of the files.

        The figures: `resampled`, the factor of their size; `binary`, whether 255 is an object; of
        folders, `folders`, their names.

        Raises:
            FileNotFoundError: there is no such folder.
            InputError: files that are not masks, or do not fit the frames or their size.
        """
        folders = _object_folders(self.path)
        if folders:
            files = [frame_files(scene, folder, (".png",)) for folder in folders]
            names = [folder.name for folder in folders]
            return MaskResult(Streamed(_merge_objects(scene, files, names)))
        files = frame_files(scene, self.path, (".png",))
        values, factor = set(), 1.0
        for file in files:
            mask = _read_index_mask(file)
            factor = scale_factor(scene, mask.shape, file)
            values |= set(np.unique(mask).tolist())
        binary = IGNORE in values and values <= {STATIC, IGNORE}
        masks = (_read_index_mask(file) for file in progress(files, "masks"))
        if binary:
            masks = (np.minimum(mask, 1) for mask in masks)
        resized = (nearest(mask, scene.size) for mask in masks)
        return MaskResult(Streamed.of(resized, {"resampled": factor, "binary": binary}))


def _object_folders(path: Path) -> list[Path]:
    """Return the folders of the objects, none where there are index images."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    if any(path.glob("*.png")):
        return []
    folders = [p for p in path.iterdir() if p.is_dir() and any(p.glob("*.png"))]
    if len(folders) > MAX_OBJECTS:
        raise InputError(f"{path}: expected at most {MAX_OBJECTS} objects, got {len(folders)}")
    return sorted(folders, key=natural_order)


def _merge_objects(
    scene: Scene, files: list[list[Path]], names: list[str]
) -> Generator[Mask, None, Figures]:
    """Yield index masks from the binary masks of each object, smaller objects in front.

    Args:
        scene: the frames.
        files: for each object a file per frame.
        names: of the folders.
    """
    factor = 1.0
    for of_frame in progress(list(zip(*files, strict=True)), "masks"):
        regions = []
        for file in of_frame:
            mask = _read_index_mask(file)
            factor = scale_factor(scene, mask.shape, file)
            regions.append(nearest(mask, scene.size) > 0)
        result = np.full(scene.size, STATIC, np.uint8)
        for label in np.argsort([-int(region.sum()) for region in regions], kind="stable"):
            result[regions[label]] = label + 1
        yield result
    return {"folders": names, "resampled": factor}


def _read_index_mask(path: Path) -> Mask:
    """Return the index mask [H, W] of a file."""
    image = read_pixels(path)
    if image.ndim != 2 or image.dtype not in (np.uint8, np.bool_):
        raise InputError(
            f"{path}: expected one 8-bit channel (or a palette) of object numbers, "
            f"got {image.dtype} {image.shape}"
        )
    return image.astype(np.uint8)
