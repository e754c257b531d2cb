"""The `files` backends: bring your own cameras, depth, masks and tracks.

There may be one file for every frame of the video, or one for every frame that was kept of it; of
the former, those that belong to the kept frames are taken. Sizes other than the scene's are
resampled, and the factor is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msdyn.preprocess.base import CameraSolution, SparsePoints, Verdict
from msdyn.preprocess.frames import natural_order
from msdyn.preprocess.progress import progress

from msdyn.errors import InputError
from msdyn.scene import IGNORE, Scene, Tracks, read_cameras, read_tracks

__all__ = ["FileCameras", "FileDepth", "FileMasks", "FileTracks"]


@dataclass(frozen=True)
class FileCameras:
    """Cameras from a `cameras.json` of msdyn, their world and scale kept."""

    path: Path
    world_units: str = "arbitrary"

    name = "files"

    def solve(
        self, scene: Scene, tracks: Tracks | None, masks: np.ndarray | None
    ) -> CameraSolution:
        """Return the cameras of the kept frames, scaled to the scene's image size."""
        cameras = read_cameras(self.path)
        cameras = cameras[_rows_of_frames(scene, len(cameras), f"{self.path}: frames")]
        height, width = scene.size
        factor = _scale_factor(scene, (cameras.height, cameras.width), self.path)
        return CameraSolution(
            cameras.resized(width, height),
            motion="unknown",
            points=SparsePoints.empty(),
            verdict=Verdict("good"),
            world_units=self.world_units,
            quality={"resampled": factor},
        )


@dataclass(frozen=True)
class FileDepth:
    """Depth maps from a folder: `.npy` [H, W], or 16-bit `.png` whose unit `scale` gives."""

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
        """Return the depth maps in scene units, and how they were resampled."""
        files = _frame_files(scene, self.path, (".npy", ".png"))
        if files[0].suffix == ".png" and self.scale is None:
            raise InputError(
                f"{files[0]}: a .png of depth needs --depth-scale, "
                "the scene units of one step (0.001 for millimetres in metres)"
            )
        quality: dict[str, Any] = {}
        return self._maps(scene, files, quality), quality

    def _maps(
        self, scene: Scene, files: list[Path], quality: dict[str, Any]
    ) -> Iterator[np.ndarray]:
        known = []
        for file in progress(files, "depth"):
            stored = _read_png_depth(file) if file.suffix == ".png" else _read_npy_depth(file)
            depth = stored * np.float32(1.0 if self.scale is None else self.scale)
            quality["resampled"] = _scale_factor(scene, depth.shape, file)
            known.append(float((depth > 0).mean()))
            quality["known"] = round(float(np.mean(known)), 4)
            yield _nearest(depth, scene.size)


@dataclass(frozen=True)
class FileMasks:
    """Index masks from a folder of 8-bit `.png`; a palette is taken for its indices.

    Where every pixel of every file is 0 or 255, 255 is the one object, not "ignore".
    """

    path: Path

    name = "files"

    def segment(
        self, scene: Scene, tracks: Tracks, solution: CameraSolution | None
    ) -> tuple[Iterator[np.ndarray], dict[str, Any]]:
        """Return the masks, and how they were resampled."""
        files = _frame_files(scene, self.path, (".png",))
        values = set()
        for file in files:
            mask = _read_index_mask(file)
            factor = _scale_factor(scene, mask.shape, file)
            values |= set(np.unique(mask).tolist())
        binary = IGNORE in values and values <= {0, IGNORE}
        masks = (_read_index_mask(file) for file in progress(files, "masks"))
        if binary:
            masks = (np.minimum(mask, 1) for mask in masks)
        quality = {"resampled": factor, "binary": binary}
        return (_nearest(mask, scene.size) for mask in masks), quality


@dataclass(frozen=True)
class FileTracks:
    """Tracks from a `tracks.npz` of msdyn, in pixels of the video at its full size."""

    path: Path

    name = "files"

    def track(self, scene: Scene) -> tuple[Tracks, dict[str, Any]]:
        """Return the tracks at the kept frames, in pixels of the scene's images."""
        tracks = read_tracks(self.path)
        rows = _rows_of_frames(scene, tracks.num_frames, f"{self.path}: frames")
        options = scene.info.stages["frames"]["options"]
        factor = np.array(
            [
                scene.info.width / options["source_width"],
                scene.info.height / options["source_height"],
            ],
            np.float32,
        )
        visible = tracks.visible[:, rows]
        seen = visible.any(axis=1)
        first = np.minimum(np.searchsorted(rows, tracks.query_frame), len(rows) - 1)
        # A track whose query frame was not kept is queried where it is first seen.
        kept = np.take_along_axis(visible, first[:, None], 1)[:, 0]
        tracks = Tracks(
            tracks.xy[:, rows] * factor,
            visible,
            tracks.confidence[:, rows],
            np.full(len(tracks), -1, np.int32),
            np.where(kept, first, visible.argmax(1)),
        ).select(np.flatnonzero(seen))
        return tracks, {"tracks": len(tracks), "resampled": round(float(factor[0]), 6)}


def _rows_of_frames(scene: Scene, count: int, what: str) -> np.ndarray:
    """Return which of `count` things, one a frame, belong to the frames of the scene."""
    options = scene.info.stages["frames"]["options"]
    if count == options["source_frame_count"]:
        return np.array(options["source_frames"])
    if count == len(scene):
        return np.arange(count)
    raise InputError(
        f"{what}: expected {options['source_frame_count']}, one for every frame of the video"
        + (f", or {len(scene)}, one for every frame kept" if _subsampled(scene) else "")
        + f"; got {count}"
    )


def _subsampled(scene: Scene) -> bool:
    return len(scene) != scene.info.stages["frames"]["options"]["source_frame_count"]


def _frame_files(scene: Scene, folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files of a folder that belong to the frames of the scene."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    for suffix in suffixes:
        files = sorted(folder.glob(f"*{suffix}"), key=natural_order)
        if files:
            rows = _rows_of_frames(scene, len(files), f"{folder}: {suffix} files")
            return [files[row] for row in rows]
    raise InputError(f"{folder}: no {' or '.join(suffixes)} files in it")


def _scale_factor(scene: Scene, size: tuple[int, ...], path: Path) -> float:
    """Return scene size / `size` (height, width), which must be of the same shape."""
    height, width = scene.size
    # Either side may have been rounded to whole pixels.
    if abs(size[1] * height - size[0] * width) > max(height, width, *size):
        raise InputError(
            f"{path}: expected {width}x{height} or a size of that shape, got {size[1]}x{size[0]}"
        )
    return round(width / size[1], 6)


def _nearest(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample an image [H, W] to `size` (height, width), taking the nearest pixel."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, image.shape, strict=True)
    )
    return image[rows[:, None], columns]


def _read_npy_depth(path: Path) -> np.ndarray:
    """Read one `.npy` of depth as float32 [H, W]; NaN, infinite or negative values are refused."""
    try:
        depth = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a readable npy file ({error})") from error
    if depth.ndim == 3 and depth.shape[2] == 1:
        depth = depth[..., 0]
    if depth.ndim != 2 or depth.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected depth [H, W], got {depth.dtype} {depth.shape}")
    depth = depth.astype(np.float32)
    for wrong, name in ((~np.isfinite(depth), "NaN or infinite"), (depth < 0, "negative")):
        if wrong.any():
            raise InputError(
                f"{path}: {wrong.sum()} of {depth.size} values are {name}; "
                "expected z-depth > 0, and 0 where it is unknown"
            )
    return depth


def _read_png_depth(path: Path) -> np.ndarray:
    """Read one 16-bit `.png` of depth as float32 [H, W], unscaled."""
    image = _read_png(path)
    if image.ndim != 2 or image.dtype == np.uint8:
        raise InputError(f"{path}: expected one 16-bit channel, got {image.dtype} {image.shape}")
    return image.astype(np.float32)


def _read_index_mask(path: Path) -> np.ndarray:
    """Read one index mask [H, W] uint8."""
    image = _read_png(path)
    if image.ndim != 2 or image.dtype not in (np.uint8, np.bool_):
        raise InputError(
            f"{path}: expected one 8-bit channel (or a palette) of object numbers, "
            f"got {image.dtype} {image.shape}"
        )
    return image.astype(np.uint8)


def _read_png(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.array(image)
    except OSError as error:
        raise InputError(f"{path}: not a readable image ({error})") from error
