"""Clips in NeRF's and D-NeRF's layout: transforms_train.json, _val.json, _test.json.

    transforms_<split>.json   camera_angle_x (or fl_x, ...; see nerfstudio_paths.py); frames: each
                              with file_path (the suffix may be missing), transform_matrix and time
    <file_path>.png           images, RGBA where the background is transparent

Times are between 0 and 1 by convention, and without a unit: the clip is given 30 frames per second.
In D-NeRF every time has another camera, at random around the object.

Reference: Pumarola et al., "D-NeRF: Neural Radiance Fields for Dynamic Scenes", CVPR 2021;
load_blender.py in github.com/albertpumarola/D-NeRF.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.io.multi_camera import MultiCamera, RecordedCamera, checked_times
from msdyn.io.nerfstudio_paths import image_of, parse_times, parse_transforms
from msdyn.reading import natural_order, opened_image, read_json, reading

_log = logging.getLogger(__name__)

__all__ = ["read_blender"]

SPLITS = ("train", "val", "test")
FPS = 30.0


def read_blender(directory: str | os.PathLike) -> MultiCamera:
    """Open a clip: its input is `train`; `test`, or else `val`, is held out.

    Raises:
        FileNotFoundError: not such a clip.
        InputError: a file has another format, or images are of the same time.
    """
    directory = Path(directory)
    if not (directory / "transforms_train.json").is_file():
        raise FileNotFoundError(
            f"{directory}: not a clip of Blender's layout (no transforms_train.json in it)"
        )
    found, times = {}, {}
    for split in SPLITS:
        path = directory / f"transforms_{split}.json"
        if not path.is_file():
            continue
        try:
            found[split], times[split] = _read_split(path)
        except (FileNotFoundError, InputError) as error:
            # Evaluations read train and test only, and copies leave out the images of val.
            if split != "val" or not (directory / "transforms_test.json").is_file():
                raise
            _log.warning("val is left out: %s", error)
    clip = times["train"]
    if len(clip) < 2:
        raise InputError(
            f"{directory / 'transforms_train.json'}: frames: expected at least 2, got {len(clip)}"
        )
    unit = (len(clip) - 1) / FPS / (clip[-1] - clip[0])
    with opened_image(found["train"][1][0]) as image:
        transparent = image.mode in ("RGBA", "LA", "PA")
    cameras = {
        split: RecordedCamera(
            split, part[0], (times[split] - clip[0]) * unit, part[1], transparent=transparent
        )
        for split, part in found.items()
    }
    held_out = next(((s,) for s in ("test", "val") if s in cameras), ())
    return MultiCamera("blender", directory, cameras, held_out, clip="train")


def _read_split(
    path: Path,
) -> tuple[tuple[Cameras, tuple[Path, ...]], Float64[np.ndarray, " images"]]:
    """Return cameras and images of a split by their times, and these."""
    with reading(path, "transforms.json"):
        content = read_json(path)
        frames = content.get("frames") if isinstance(content, dict) else None
        good = isinstance(frames, list) and frames and all(isinstance(f, dict) for f in frames)
        if not good or frames is None:
            raise InputError(f"{path}: frames: expected a list of at least one posed image")
        cameras, _ = parse_transforms(path, content)
        named = [("time" in frame) for frame in frames]
        times = parse_times([frame.get("time") for frame in frames])
    if any(named) and times is None:
        without = (n for n, frame in enumerate(frames) if parse_times([frame.get("time")]) is None)
        number = next(without)
        raise InputError(f"{path}: frame {number}: time: expected a number, as the others have")
    images = [image_of(path, frame, f"{path}: frame {n}") for n, frame in enumerate(frames)]
    if times is None:
        order = sorted(range(len(images)), key=lambda n: natural_order(images[n]))
        times = np.linspace(0, 1, len(images))
    else:
        order = np.argsort(times, kind="stable").tolist()
        times = times[order]
    twice = next((image for image in images if images.count(image) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: file_path: {twice.name} is listed twice")
    checked_times(times, f"{path}: time (one camera per time is read)")
    return (cameras[order], tuple(images[n] for n in order)), times
