"""Matches the user's files to the frames of a scene, and resamples them to its size.

There may be one file per frame of the video, or one per frame of the scene; of the former, those of
the frames in the scene are taken. Files whose names end with numbers are matched by these: a series
with a gap is never taken for a whole one. Sizes other than the scene's are resampled, and the
factor is recorded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int, Real, Shaped

from msdyn.errors import InputError
from msdyn.reading import natural_order
from msdyn.scene import Scene

__all__ = [
    "NUMBERING_CURE",
    "Numbering",
    "frame_files",
    "frame_numbers",
    "in_scene",
    "is_stray",
    "listed",
    "nearest",
    "pixels_in_scene",
    "rows_of_frames",
    "scale_factor",
    "series_gaps",
]

NUMBERING_CURE = "say which with --numbering NUMBER FRAME STEP"
MOST_NAMED = 5  # missing files that an error names
_STRAY_FOLDERS = ("__MACOSX",)


@dataclass(frozen=True)
class Numbering:
    """How numbers in names of files count the frames of the video, as said by the user.

    Attributes:
        number: of some file.
        frame: of the video, from 0, that this file is of.
        step: frames of the video from one number to the next.
    """

    number: int
    frame: int
    step: float

    def frames(self, numbers: Sequence[int]) -> Int[np.ndarray, " files"]:
        """Return the frame of the video of each number."""
        return np.floor(self.frame + self.step * (np.array(numbers) - self.number) + 0.5).astype(
            int
        )


def is_stray(path: Path) -> bool:
    """Return whether a file or folder is left by a file manager: hidden (`._1.png`), `__MACOSX`."""
    return path.name.startswith(".") or path.name in _STRAY_FOLDERS


def listed(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Return the files of a folder with one of some suffixes, by the numbers in their names.

    Capital suffixes count; hidden files do not.
    """
    wanted = tuple(suffixes)
    found = (
        path
        for path in folder.iterdir()
        if path.suffix.lower() in wanted and not is_stray(path) and path.is_file()
    )
    return sorted(found, key=natural_order)


def frame_numbers(names: Sequence[str]) -> list[int] | None:
    """Return the number that each name (without its suffix) ends with; None unless all differ."""
    found = [re.search(r"(\d{1,18})\D*$", Path(name).stem) for name in names]
    numbers = [int(match[1]) for match in found if match]
    return numbers if len(set(numbers)) == len(names) else None


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
    raise InputError(f"{what}: {_expected(scene)}; got {count}")


def frame_files(
    scene: Scene, folder: Path, suffixes: tuple[str, ...], numbering: Numbering | None = None
) -> list[Path]:
    """Return the files of a folder that belong to the frames of the scene.

    Args:
        scene: the scene.
        folder: of files, all of the first of the suffixes that there is.
        suffixes: with their dot.
        numbering: what the numbers in the names mean, where that gives a file for every frame;
            otherwise it is told by the names.

    Raises:
        FileNotFoundError: there is no such folder.
        InputError: no file of these suffixes, or not one per frame; missing files are named.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    for suffix in suffixes:
        files = listed(folder, (suffix,))
        if files:
            rows = _rows_of_files(scene, files, f"{folder}: {suffix} files", numbering)
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


def in_scene(
    scene: Scene,
    frame: int,
    values: Shaped[np.ndarray, "file_height file_width"],
    outside: float = 0,
) -> Shaped[np.ndarray, "height width"]:
    """Return labels or depth of a frame of the video, [h, w] of any size, as of the scene's image.

    By the nearest pixel, and undistorted as the image was.

    Args:
        scene: the frames.
        frame: of the scene.
        values: of the image as it was taken.
        outside: the value of pixels outside of it.
    """
    if scene.lenses is None or scene.lenses[frame].is_identity:
        return nearest(values, scene.size)
    return scene.lenses[frame].nearest(values, scene.size, outside)


def pixels_in_scene(
    scene: Scene, frames: Int[np.ndarray, " points"], xy: Real[np.ndarray, "points 2"]
) -> tuple[Float64[np.ndarray, "points 2"], Bool[np.ndarray, " points"]]:
    """Return pixels of the video at its full size in pixels of the scene.

    Args:
        scene: the frames.
        frames: of the scene, one per pixel.
        xy: px.

    Returns:
        The pixels, and which are in the image: all, where images were not undistorted.
    """
    options = scene.info.stages["frames"]["options"]
    size = np.array([scene.info.width, scene.info.height])
    factor = size / [options["source_width"], options["source_height"]]
    if scene.lenses is None:
        return xy * factor, np.ones(len(xy), bool)
    moved, inside = np.zeros(xy.shape), np.zeros(len(xy), bool)
    for frame in np.unique(frames).tolist():
        here = frames == frame
        straight, valid = scene.lenses[frame].straight(xy[here])
        straight = np.where(valid[:, None], straight, -1) * factor
        moved[here] = straight
        inside[here] = ((straight >= 0) & (straight < size)).all(-1)
    return moved, inside


def series_gaps(numbers: list[int]) -> list[int]:
    """Return the numbers that an otherwise even series lacks; none where it is not even."""
    steps = np.diff(numbers)
    if not len(steps):
        return []
    step = Counter(steps.tolist()).most_common(1)[0][0]
    if step < 1 or (steps % step).any() or (steps == step).mean() < 0.5:
        return []
    return sorted(set(range(numbers[0], numbers[-1], step)) - set(numbers))


def _expected(scene: Scene) -> str:
    """Return in words how many items are expected."""
    count = scene.info.stages["frames"]["options"]["source_frame_count"]
    kept = f", or {len(scene)}, one for every frame kept" if len(scene) != count else ""
    return f"expected {count}, one for every frame of the video{kept}"


def _rows_of_files(
    scene: Scene, files: list[Path], what: str, numbering: Numbering | None
) -> list[int]:
    """Return the row in `files` of each frame of the scene; see `frame_files`."""
    options = scene.info.stages["frames"]["options"]
    kept, count = options["source_frames"], options["source_frame_count"]
    numbers = frame_numbers([file.name for file in files])
    if numbering is not None and numbers is not None:
        frames = numbering.frames(numbers).tolist()
        if set(kept) <= set(frames):  # otherwise it is said of other files, as of cameras
            return _by_frame(scene, frames)
    if "source_names" in options:
        stems = {file.stem: row for row, file in enumerate(files)}
        wanted = [Path(options["source_names"][frame]).stem for frame in kept]
        if len(stems) == len(files) and set(wanted) <= set(stems):
            return [stems[stem] for stem in wanted]
    if numbers is None:
        return rows_of_frames(scene, len(files), what).tolist()
    gaps = series_gaps(numbers)
    if not gaps and (len(files) == count or (len(files) == len(kept) and _is_run(numbers))):
        return rows_of_frames(scene, len(files), what).tolist()
    # Numbers of the frames of the video, from 0 or from 1.
    readings = [[number - first for number in numbers] for first in (0, 1)]
    possible = [r for r in readings if min(r) >= 0 and max(r) < count]
    exact = [r for r in possible if set(r) == set(kept)]
    if len(possible) > 1 and len(exact) == 1:
        possible = exact
    if len(possible) == 1 and set(kept) <= set(possible[0]):
        return _by_frame(scene, possible[0])
    if len(possible) > 1 and all(set(kept) <= set(reading) for reading in possible):
        raise InputError(
            f"{what}: they may be numbered from 0 or from 1 ({files[0].name} to {files[-1].name}); "
            f"{NUMBERING_CURE}: 0 0 1 or 1 0 1"
        )
    if len(files) in (count, len(kept)) and not gaps and len(possible) == 0:
        return rows_of_frames(scene, len(files), what).tolist()  # of another kind, as times
    missing = gaps or sorted({*range(min(numbers), min(numbers) + count)} - set(numbers))
    names = [_name_like(files[0], number) for number in missing[:MOST_NAMED]]
    more = f" and {len(missing) - len(names)} more" if len(missing) > len(names) else ""
    if not gaps and len(possible) > 1 and min(numbers) == 1 and len(missing) == 1:
        names[0] += f" or {_name_like(files[0], 0)}"
    raise InputError(
        f"{what}: {_expected(scene)}; got {len(files)}, {files[0].name} to {files[-1].name}; "
        f"missing: {', '.join(names)}{more}; give a file for every frame, or take fewer frames of "
        "the video (--fps, --max-frames)"
    )


def _by_frame(scene: Scene, frames: list[int]) -> list[int]:
    """Return the row of each frame of the scene among files of these frames of the video."""
    row_of = {frame: row for row, frame in enumerate(frames)}
    return [row_of[frame] for frame in scene.info.stages["frames"]["options"]["source_frames"]]


def _is_run(numbers: list[int]) -> bool:
    """Return whether these are 0, 1, 2, ... or 1, 2, 3, ..., in this order."""
    return numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _name_like(file: Path, number: int) -> str:
    """Return the name of a file with another number in the place of its own."""
    start, digits, end = re.split(r"(\d+)(?=\D*$)", file.stem)[:3]
    return f"{start}{number:0{len(digits)}d}{end}{file.suffix}"
