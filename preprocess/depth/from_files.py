"""Depth maps from a folder of files, or from the npz of a model that gives cameras too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msdyn.errors import InputError
from msdyn.io import DEPTH_SUFFIXES, read_depth_map, read_posed_images
from msdyn.preprocess.cameras.from_files import MODEL_STEP_PX
from msdyn.preprocess.contracts import CameraSolution
from msdyn.preprocess.frame_matching import (
    frame_files,
    nearest,
    rows_of_frames,
    scale_factor,
)
from msdyn.preprocess.progress import progress
from msdyn.scene import Scene, Tracks

__all__ = ["FileDepth"]


@dataclass(frozen=True)
class FileDepth:
    """Depth from files: `.npy`, `.exr`, or 16-bit `.png` whose unit `scale` gives; or one `.npz`
    of MegaSaM or Depth Anything 3."""

    path: Path
    scale: float | None = None

    name = "files"

    def estimate(
        self,
        scene: Scene,
        tracks: Tracks | None,
        masks: np.ndarray | None,
        solution: CameraSolution | None,
    ) -> tuple[Iterator[np.ndarray], dict[str, Any]]:
        """Return the depth maps in scene units, and how they were resampled.

        Raises:
            FileNotFoundError: there is no such file or folder.
            InputError: files that are not depth, or do not fit the frames or their size.
        """
        quality: dict[str, Any] = {}
        if self.path.suffix == ".npz":
            return self._maps(scene, self._stack(scene), quality, MODEL_STEP_PX), quality
        files = frame_files(scene, self.path, DEPTH_SUFFIXES)
        if files[0].suffix == ".png" and self.scale is None:
            raise InputError(
                f"{files[0]}: a .png of depth needs --depth-scale, "
                "the scene units of one step (0.001 for millimetres in metres)"
            )
        maps = ((file, read_depth_map(file)) for file in files)
        return self._maps(scene, maps, quality, 1.0), quality

    def _stack(self, scene: Scene) -> Iterator[tuple[Path, np.ndarray]]:
        depths = read_posed_images(self.path).depths
        assert depths is not None, "every npz of cameras has depth"
        rows = rows_of_frames(scene, len(depths), f"{self.path}: depth")
        for row in rows:
            depth = depths[row].astype(np.float32)
            yield self.path, np.where(np.isfinite(depth) & (depth > 0), depth, 0)

    def _maps(
        self,
        scene: Scene,
        maps: Iterator[tuple[Path, np.ndarray]],
        quality: dict[str, Any],
        slack: float,
    ) -> Iterator[np.ndarray]:
        known = []
        for file, stored in progress(maps, "depth", total=len(scene)):
            depth = stored * np.float32(1.0 if self.scale is None else self.scale)
            quality["resampled"] = scale_factor(scene, depth.shape, file, slack)
            known.append(float((depth > 0).mean()))
            quality["known"] = round(float(np.mean(known)), 4)
            yield nearest(depth, scene.size)
