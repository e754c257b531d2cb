"""Depth maps from a folder of files, or from the npz of a model that also gives cameras."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msdyn.errors import InputError
from msdyn.io import DEPTH_SUFFIXES, read_depth_map, read_posed_images
from msdyn.preprocess.cameras.from_files import MODEL_STEP_PX
from msdyn.preprocess.contracts import (
    BackendOptions,
    CameraSolution,
    DepthMap,
    DepthResult,
    Figures,
    FileBackend,
    Masks,
)
from msdyn.preprocess.depth.units import DepthUnit, find_unit
from msdyn.preprocess.frame_matching import (
    Numbering,
    frame_files,
    nearest,
    rows_of_frames,
    scale_factor,
)
from msdyn.preprocess.progress import progress
from msdyn.preprocess.registry import register_backend
from msdyn.preprocess.streamed import Streamed
from msdyn.scene import STATIC, Scene, Tracks

__all__ = ["FileDepth"]

_log = logging.getLogger(__name__)


@register_backend("depth", "files", needs=("frames",), helped_by=("tracks", "masks", "cameras"))
@dataclass(frozen=True)
class FileDepth(FileBackend):
    """Depth from files: `.npy`, `.exr`, or 16-bit `.png` in units of `scale`; or from one `.npz`
    of MegaSaM or Depth Anything 3."""

    scale: float | None = None
    """Scene units per unit of the files; None: as static tracks tell."""
    numbering: Numbering | None = None
    """What the numbers in names of files count; by default told by the names."""

    @classmethod
    def from_options(cls, options: BackendOptions) -> FileDepth:
        """Return the backend that reads the path of the options."""
        return cls(cls.given_path(options), options.depth_scale, options.numbering)

    def estimate(
        self,
        scene: Scene,
        tracks: Tracks | None,
        masks: Masks | None,
        solution: CameraSolution | None,
    ) -> DepthResult:
        """Return the depth maps in scene units.

        Without a scale of the user, values that are in other units than the cameras, or inverse
        depth, are converted where static tracks leave no doubt, and a line says so (`units`).

        The figures: `resampled`, the factor of their size; `known`, the share of pixels with depth;
        `unit`, in words, where values were converted.

        Args:
            scene: the frames.
            tracks: those with object 0 are static.
            masks: not used, `tracks.object` is made of them.
            solution: the cameras.

        Raises:
            FileNotFoundError: there is no such file or folder.
            InputError: files that are not depth, or do not fit the frames or their size.
        """
        files, read, slack = self._open(scene)
        unit = None if self.scale is None else DepthUnit(self.scale)
        if unit is None and tracks is not None and solution is not None:
            unit = find_unit(tracks.select(tracks.object == STATIC), solution.cameras, read)
            if unit is not None and unit.text:
                _log.warning("depth: %s: %s, as static tracks show", self.path, unit.text)
        if unit is None and files[0].suffix == ".png":
            raise InputError(
                f"{files[0]}: a .png of depth needs --depth-scale, "
                "the scene units of one step (0.001 for millimetres in metres)"
            )
        maps = ((file, read(frame)) for frame, file in enumerate(files))
        return DepthResult(Streamed(self._maps(scene, maps, slack, unit or DepthUnit())))

    def _open(self, scene: Scene) -> tuple[list[Path], Callable[[int], np.ndarray], float]:
        """Return the file of each frame, a function to its stored values, and the slack, px, of
        their size (see `scale_factor`)."""
        if self.path.suffix != ".npz":
            files = frame_files(scene, self.path, DEPTH_SUFFIXES, self.numbering)
            stored = self._straight(scene, lambda frame: read_depth_map(files[frame]))
            return files, stored, 1.0
        depths = read_posed_images(self.path).depths
        assert depths is not None, "every npz of cameras has depth"
        rows = rows_of_frames(scene, len(depths), f"{self.path}: depth")

        def read(frame: int) -> np.ndarray:
            depth = depths[rows[frame]].astype(np.float32)
            return np.where(np.isfinite(depth) & (depth > 0), depth, 0)

        return [self.path] * len(scene), self._straight(scene, read), MODEL_STEP_PX

    def _straight(
        self, scene: Scene, read: Callable[[int], np.ndarray]
    ) -> Callable[[int], np.ndarray]:
        """Return a function to the stored values of a frame as of its undistorted image."""
        lenses = scene.lenses
        if lenses is None:
            return read
        # Of the size of the file: its shape is still to be checked.
        return lambda frame: lenses[frame].nearest(values := read(frame), values.shape)

    def _maps(
        self,
        scene: Scene,
        maps: Iterator[tuple[Path, np.ndarray]],
        slack: float,
        unit: DepthUnit,
    ) -> Generator[DepthMap, None, Figures]:
        """Yield depth maps of the size of the scene.

        Args:
            scene: the frames.
            maps: the file and the stored depth [h, w] of each frame.
            slack: px, see `scale_factor`.
            unit: of the stored values.
        """
        known, factor = [], 1.0
        for file, stored in progress(maps, "depth", total=len(scene)):
            depth = unit.depth(stored)
            factor = scale_factor(scene, depth.shape, file, slack)
            known.append(float((depth > 0).mean()))
            yield DepthMap(nearest(depth, scene.size))
        figures: Figures = {"resampled": factor, "known": round(float(np.mean(known)), 4)}
        return figures | ({"unit": unit.text} if unit.text else {})
