"""Matches the user's files to the frames of a scene, and resamples them to its size.

There may be one file per frame of the video, or one per frame of the scene; of the former, those of
the frames in the scene are taken. Sizes other than the scene's are resampled, and the factor is
recorded.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from msdyn.errors import InputError
from msdyn.files import natural_order
from msdyn.scene import Scene

__all__ = ["frame_files", "nearest", "rows_of_frames", "rows_of_names", "scale_factor"]


def rows_of_frames(scene: Scene, count: int, what: str) -> Int[np.ndarray, " frames"]:
    """Return which of `count` items, one per frame, belong to the frames of the scene.

    Args:
        scene: the scene.
        count: number of items.
        what: begins the error: file and what the items are.

    Raises:
        InputError: `count` is neither the number of frames of the video nor of those kept.
    """
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


def rows_of_names(scene: Scene, names: tuple[str, ...], what: str) -> Int[np.ndarray, " frames"]:
    """Return for each frame of the scene the row of its name in `names`, -1 where it has none.

    For a folder of images the names are those of the images. For a video the names end with the
    number of the frame, from 0 or from 1.

    Args:
        scene: the scene.
        names: of images.
        what: begins the error: file and what the names are of.

    Raises:
        InputError: names without frame numbers, or of fewer than two frames.
    """
    options = scene.info.stages["frames"]["options"]
    stems = [Path(name).stem for name in names]
    if "source_names" in options:
        key = {Path(name).stem: i for i, name in enumerate(options["source_names"])}
        numbers = [key.get(stem, -1) for stem in stems]
    else:
        found = [re.search(r"(\d+)\D*$", stem) for stem in stems]
        numbers = [int(match[1]) if match else -1 for match in found]
        last = options["source_frame_count"] - 1
        if min(numbers) > 0 and max(numbers) == last + 1:
            numbers = [number - 1 for number in numbers]
        if min(numbers) < 0 or max(numbers) > last or len(set(numbers)) < len(numbers):
            raise InputError(
                f"{what}: expected names that end with frame numbers of the video (0 to {last}), "
                f"got {names[0]} to {names[-1]}; give one camera per frame, or name them so"
            )
    row_of = {number: row for row, number in enumerate(numbers) if number >= 0}
    rows = np.array([row_of.get(frame, -1) for frame in options["source_frames"]])
    if (rows >= 0).sum() < 2:
        raise InputError(f"{what}: fewer than two of them are of the {len(scene)} frames kept")
    return rows


def frame_files(scene: Scene, folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files of a folder that belong to the frames of the scene.

    Raises:
        FileNotFoundError: there is no such folder.
        InputError: no file of these suffixes, or not one per frame.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    for suffix in suffixes:
        files = sorted(folder.glob(f"*{suffix}"), key=natural_order)
        if files:
            rows = rows_of_frames(scene, len(files), f"{folder}: {suffix} files")
            return [files[row] for row in rows]
    raise InputError(f"{folder}: no {' or '.join(suffixes)} files in it")


def scale_factor(scene: Scene, size: tuple[int, ...], path: Path, slack: float = 1.0) -> float:
    """Return scene size / `size` (height, width), which must have the same aspect ratio.

    Either side may have been rounded to a multiple of `slack` px (networks have such a step).

    Raises:
        InputError: another aspect ratio; the message begins with `path`.
    """
    height, width = scene.size
    if abs(size[1] * height - size[0] * width) > slack * max(height, width, *size):
        raise InputError(
            f"{path}: expected {width}x{height} or a size of that shape, got {size[1]}x{size[0]}"
        )
    return round(width / size[1], 6)


def nearest(
    image: Shaped[np.ndarray, "file_height file_width"], size: tuple[int, int]
) -> Shaped[np.ndarray, "height width"]:
    """Return an image [h, w] resampled to `size` (height, width) by the nearest pixel."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, image.shape, strict=True)
    )
    return image[rows[:, None], columns]


def _subsampled(scene: Scene) -> bool:
    """Return whether some frames of the video are not in the scene."""
    return len(scene) != scene.info.stages["frames"]["options"]["source_frame_count"]
