"""Depth maps from a folder of files, or from the npz of a model that also gives cameras."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

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
from msdyn.scene import Scene, Tracks

__all__ = ["FileDepth"]


@register_backend("depth", "files", needs=("frames",))
@dataclass(frozen=True)
class FileDepth(FileBackend):
    """Depth from files: `.npy`, `.exr`, or 16-bit `.png` in units of `scale`; or from one `.npz`
    of MegaSaM or Depth Anything 3."""

    scale: float | None = None
    """Scene units per unit of the files."""
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

        The figures: `resampled`, the factor of their size; `known`, the share of pixels with depth.

        Raises:
            FileNotFoundError: there is no such file or folder.
            InputError: files that are not depth, or do not fit the frames or their size.
        """
        if self.path.suffix == ".npz":
            return DepthResult(Streamed(self._maps(scene, self._stack(scene), MODEL_STEP_PX)))
        files = frame_files(scene, self.path, DEPTH_SUFFIXES, self.numbering)
        if files[0].suffix == ".png" and self.scale is None:
            raise InputError(
                f"{files[0]}: a .png of depth needs --depth-scale, "
                "the scene units of one step (0.001 for millimetres in metres)"
            )
        maps = ((file, read_depth_map(file)) for file in files)
        return DepthResult(Streamed(self._maps(scene, maps, 1.0)))

    def _stack(
        self, scene: Scene
    ) -> Iterator[tuple[Path, Float32[np.ndarray, "file_height file_width"]]]:
        """Yield the depth of each frame from an npz, and its path."""
        depths = read_posed_images(self.path).depths
        assert depths is not None, "every npz of cameras has depth"
        rows = rows_of_frames(scene, len(depths), f"{self.path}: depth")
        for row in rows:
            depth = depths[row].astype(np.float32)
            yield self.path, np.where(np.isfinite(depth) & (depth > 0), depth, 0)

    def _maps(
        self, scene: Scene, maps: Iterator[tuple[Path, np.ndarray]], slack: float
    ) -> Generator[DepthMap, None, Figures]:
        """Yield depth maps of the size of the scene.

        Args:
            scene: the frames.
            maps: the file and the stored depth [h, w] of each frame.
            slack: px, see `scale_factor`.
        """
        known, factor = [], 1.0
        for file, stored in progress(maps, "depth", total=len(scene)):
            depth = stored * np.float32(1.0 if self.scale is None else self.scale)
            factor = scale_factor(scene, depth.shape, file, slack)
            known.append(float((depth > 0).mean()))
            yield DepthMap(nearest(depth, scene.size))
        return {"resampled": factor, "known": round(float(np.mean(known)), 4)}
