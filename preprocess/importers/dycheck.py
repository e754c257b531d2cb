"""`msdyn-preprocess --from dycheck DIR`: a sequence of DyCheck as a scene directory.

Images, cameras and depth are those of the data; tracks and masks are estimated from the images as
for any video. Held-out cameras with their covisibility, and keypoints, are written to `views/`.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from msdyn.errors import InputError
from msdyn.io import Dycheck, write_dycheck_views
from msdyn.preprocess.config import PreprocessConfig
from msdyn.preprocess.dycheck_config import DycheckConfig
from msdyn.preprocess.frame_matching import in_scene
from msdyn.preprocess.imported import refuse_foreign, write_times
from msdyn.preprocess.pipeline import preprocess_video
from msdyn.preprocess.progress import progress
from msdyn.scene import (
    IGNORE,
    LENS_FILE,
    FrameLenses,
    Scene,
    frame_path,
    write_cameras,
    write_depth,
    write_image,
    write_lenses,
    write_mask,
)
from msdyn.writing import write_json, writing_to

__all__ = ["DycheckConfig", "preprocess_dycheck"]

_log = logging.getLogger(__name__)


def preprocess_dycheck(config: DycheckConfig) -> Scene:
    """Make, or bring up to date, the scene directory of a sequence of DyCheck.

    `dycheck.json` in it describes the data: the size, the unit of the depth, the images of each
    held-out camera.

    Raises:
        FileNotFoundError: not a sequence of DyCheck, or a file of it is missing.
        InputError: a file is invalid, or the directory is of something else.
    """
    sequence = Dycheck(config.data, config.factor, config.max_frames)
    directory = config.directory
    if directory.exists() and directory.resolve() == config.data.resolve():
        raise InputError(f"{directory}: holds the sequence itself; choose another with --out")
    source = directory / ".cache" / "dycheck" / config.data.resolve().name
    options = PreprocessConfig(
        video=source / "images",
        out=directory,
        long_side=0,
        folder_fps=sequence.fps,
        cameras="files",
        cameras_path=source / "cameras.json",
        depth="files",
        depth_path=source / "depth",
        masks=config.masks,
        masks_path=config.masks_path,
        tracks=config.tracks,
        tracks_path=config.tracks_path,
        world_units="metric",
        lens=None if sequence.lenses is None else str(source / LENS_FILE),
    )
    refuse_foreign(directory)
    with writing_to(directory):
        return _write(config, sequence, source, options)


def _write(
    config: DycheckConfig, sequence: Dycheck, source: Path, options: PreprocessConfig
) -> Scene:
    """Write the scene directory, which is locked."""
    directory = config.directory
    unseen = _unpack(sequence, source)
    scene = preprocess_video(options)
    for frame, unrecorded in unseen.items():
        pixels = in_scene(scene, frame, unrecorded)
        mask = scene.mask(frame)
        if (mask[pixels] != IGNORE).any():
            write_mask(directory, frame, np.where(pixels, np.uint8(IGNORE), mask))
    report = write_dycheck_views(sequence, directory)
    if report["images_without_covisibility"]:
        _log.warning(
            "%s: %d held-out images have no covisibility; all of their pixels will count",
            config.data,
            report["images_without_covisibility"],
        )
    write_json(
        directory / "dycheck.json",
        {
            "sequence": config.data.resolve().name,
            "factor": config.factor,
            "fps": sequence.fps,
            "depth_unit": sequence.depth_unit,
            "pixels_unseen": round(float(sum(p.mean() for p in unseen.values())) / len(scene), 4),
            **report,
        },
    )
    return Scene(directory)


def _unpack(sequence: Dycheck, folder: Path) -> dict[int, Bool[np.ndarray, "height width"]]:
    """Write images, depth and cameras of the clip in the layout of the `files` backends.

    Returns:
        By frame, the pixels [H, W] without an image, where there are any.
    """
    for stale in ("images", "depth"):
        shutil.rmtree(folder / stale, ignore_errors=True)
    unseen = {}
    for frame, name in enumerate(progress(sequence.names, "reading the sequence")):
        image, known = sequence.image(name)
        if not known.all():
            unseen[frame] = ~known
        write_image(frame_path(folder / "images", frame, ".png"), image)
        write_depth(folder, frame, sequence.depth(name))
    write_times(folder / "images", sequence.seconds)
    write_cameras(folder / "cameras.json", sequence.cameras)
    if sequence.lenses is not None:
        write_lenses(folder / LENS_FILE, FrameLenses.of(sequence.lenses))
    return unseen
