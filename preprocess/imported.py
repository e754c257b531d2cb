"""`msdyn-preprocess --from KIND`: a recording that has more than a video, as a scene directory.

An importer unpacks a recording to a folder in `.cache`, in layouts that the stages read: a video or
images, cameras, depth, masks. The stages then run as for any video; a backend that the user names
takes the place of what the recording has.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from msdyn.errors import InputError, PoorInputError
from msdyn.preprocess.config import ImportConfig, PreprocessConfig
from msdyn.preprocess.frames.sources import TIMES
from msdyn.preprocess.pipeline import preprocess_video
from msdyn.scene import Scene, frame_path
from msdyn.writing import atomic_path, writing_to

__all__ = ["Unpacked", "import_clip", "refuse_foreign", "write_file", "write_times"]

_GIVEN = ("cameras", "depth", "masks", "tracks")
"""Stages whose results a recording may have."""


@dataclass(frozen=True)
class Unpacked:
    """What an importer has unpacked.

    Attributes:
        video: a video or a folder of images, whose name is that of the recording.
        cameras: a file or folder, one camera per frame; None where the recording has none.
        depth: a folder of depth maps, or None; beside `cameras`, in their units.
        masks: a folder of index masks, or None.
        tracks: a file of tracks, or None.
        intrinsics: fx fy cx cy in px of the video, or None.
        metric: whether the cameras are in metres.
        lens: a file of the lens of the images, or None.
        finish: writes what the scene directory has beside the results of the stages, after these.
    """

    video: Path
    cameras: Path | None = None
    depth: Path | None = None
    masks: Path | None = None
    tracks: Path | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    metric: bool = False
    lens: Path | None = None
    finish: Callable[[Scene], None] | None = None


def import_clip(config: ImportConfig) -> Scene:
    """Make, or bring up to date, the scene directory of a recording.

    Raises:
        FileNotFoundError: there is no such recording.
        InputError: the recording is invalid, or the directory is of something else.
        MissingExtraError: a package that reads the recording is not installed.
        PoorInputError: see `preprocess_video`.
    """
    importer = import_module(f"msdyn.preprocess.importers.{config.kind}")
    unpack: Callable[[ImportConfig, Path], Unpacked] = importer.unpack
    directory = config.directory
    refuse_foreign(directory)
    with writing_to(directory):
        folder = directory / ".cache" / config.kind
        shutil.rmtree(folder, ignore_errors=True)
        unpacked = unpack(config, folder)
        try:
            scene = preprocess_video(_options(config, unpacked))
        except PoorInputError:
            if unpacked.finish is not None:
                unpacked.finish(Scene(directory))
            raise
        if unpacked.finish is not None:
            unpacked.finish(scene)
            return Scene(directory)  # with what was changed in its records
        return scene


def _options(config: ImportConfig, unpacked: Unpacked) -> PreprocessConfig:
    """Return the options of the stages: those of the user, and for the rest what was unpacked."""
    options: dict[str, Any] = {
        field.name: getattr(config, field.name) for field in fields(PreprocessConfig)
    }
    options |= {"video": unpacked.video, "out": config.directory}
    for stage in _GIVEN:
        path = getattr(unpacked, stage)
        if options[stage] is None and path is not None:
            options |= {stage: "files", f"{stage}_path": path}
    own_cameras = unpacked.cameras is not None and options["cameras_path"] == unpacked.cameras
    if own_cameras and unpacked.metric:
        options["world_units"] = "metric"
    if own_cameras and options["depth_path"] == unpacked.depth and config.depth_scale is None:
        options["depth_scale"] = 1.0
    if options["cameras"] in (None, "sfm") and options["intrinsics"] is None:
        options["intrinsics"] = unpacked.intrinsics
    if unpacked.lens is not None:
        options["lens"] = str(unpacked.lens)
    return PreprocessConfig(**options)


def refuse_foreign(directory: Path) -> None:
    """Raise InputError where a directory holds something else than a scene of preprocessing."""
    if directory.is_dir() and any(directory.iterdir()) and not (directory / ".cache").is_dir():
        raise InputError(
            f"{directory}: exists and was not made by msdyn-preprocess; choose another with --out"
        )


def write_file(folder: Path, frame: int, suffix: str, content: bytes) -> None:
    """Write the file of a frame, atomically."""
    with atomic_path(frame_path(folder, frame, suffix)) as temporary:
        temporary.write_bytes(content)


def write_times(folder: Path, seconds: Float64[np.ndarray, " frames"] | Iterable[float]) -> None:
    """Write the time stamps of a folder of images, atomically."""
    with atomic_path(folder / TIMES) as temporary:
        temporary.write_text("".join(f"{second:.9f}\n" for second in seconds), encoding="utf-8")
