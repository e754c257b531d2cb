"""Masks from files: one index image per frame, or one folder of images per object."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msdyn.errors import InputError
from msdyn.preprocess.contracts import (
    BackendOptions,
    CameraSolution,
    Figures,
    FileBackend,
    Mask,
    MaskResult,
)
from msdyn.preprocess.frame_matching import (
    Numbering,
    frame_files,
    in_scene,
    is_stray,
    listed,
    scale_factor,
)
from msdyn.preprocess.masks.pixel_values import MAX_OBJECTS, PixelValues, read_mask_file
from msdyn.preprocess.progress import progress
from msdyn.preprocess.registry import register_backend
from msdyn.preprocess.streamed import Streamed
from msdyn.reading import natural_order
from msdyn.scene import IGNORE, STATIC, Scene, Tracks

__all__ = ["FileMasks"]

MASK_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@register_backend("masks", "files", needs=("frames", "tracks"))
@dataclass(frozen=True)
class FileMasks(FileBackend):
    """Index masks from a folder of images, or binary ones from one folder per object.

    Of a palette image the indices are taken; colours are objects, black is static. Where every
    pixel of every index image is 0 or 255, 255 is the one object, not "ignore"; soft edges and the
    errors of JPEG are then cut halfway (`pixel_values`). Folders are objects 1, 2, ... in the order
    of their names (as in SA-V); where two overlap, the smaller one is in front.
    """

    numbering: Numbering | None = None
    """What the numbers in names of files count; by default told by the names."""

    @classmethod
    def from_options(cls, options: BackendOptions) -> FileMasks:
        """Return the backend that reads the path of the options."""
        return cls(cls.given_path(options), options.numbering)

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
            files = [frame_files(scene, f, MASK_SUFFIXES, self.numbering) for f in folders]
            names = [folder.name for folder in folders]
            return MaskResult(Streamed(_merge_objects(scene, files, names)))
        files = frame_files(scene, self.path, MASK_SUFFIXES, self.numbering)
        values, factor = _values_of(scene, self.path, files)
        masks = (values.labels(read_mask_file(file)[0]) for file in progress(files, "masks"))
        resized = (in_scene(scene, frame, mask, IGNORE) for frame, mask in enumerate(masks))
        figures: Figures = {"resampled": factor, "binary": values.binary}
        if values.kind == "colours" or values.soft:
            figures["stored_as"] = "colours" if values.kind == "colours" else "soft edges"
        return MaskResult(Streamed.of(resized, figures))


def _values_of(scene: Scene, path: Path, files: list[Path]) -> tuple[PixelValues, float]:
    """Return what the values of mask files mean, and the factor of their size."""
    values, factor = PixelValues(f"{path}: masks"), 1.0
    for file in files:
        stored, palette = read_mask_file(file)
        factor = scale_factor(scene, stored.shape[:2], file)
        values.add(file, stored, palette)
    values.decide()
    return values, factor


def _object_folders(path: Path) -> list[Path]:
    """Return the folders of the objects, none where there are index images."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    if listed(path, MASK_SUFFIXES):
        return []
    folders = [
        folder
        for folder in path.iterdir()
        if folder.is_dir() and not is_stray(folder) and listed(folder, MASK_SUFFIXES)
    ]
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
    read = [_values_of(scene, of_object[0].parent, of_object) for of_object in files]
    factor = read[-1][1]
    for frame, of_frame in enumerate(progress(list(zip(*files, strict=True)), "masks")):
        regions = []
        for file, (values, _) in zip(of_frame, read, strict=True):
            mask = values.labels(read_mask_file(file)[0])
            regions.append(in_scene(scene, frame, mask) > 0)
        result = np.full(scene.size, STATIC, np.uint8)
        for label in np.argsort([-int(region.sum()) for region in regions], kind="stable"):
            result[regions[label]] = label + 1
        yield result
    return {"folders": names, "resampled": factor}
