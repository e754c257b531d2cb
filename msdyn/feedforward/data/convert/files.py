"""What converters share: numbered files, tables of numbers, images, cameras, checks of tracks.

Whatever is wrong with a file is an `InputError` that names it; see `msdyn.reading`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Real

from msdyn.errors import InputError
from msdyn.feedforward.data.clip import ClipFrame
from msdyn.geometry import depth_in_camera, invert_transforms, project, transform_points
from msdyn.io.posed_images import checked_cameras
from msdyn.reading import read_lines, read_rgb

__all__ = [
    "FrameFiles",
    "check_projection",
    "clip_cameras",
    "clip_name",
    "find_folders",
    "known_depth",
    "matching",
    "numbered_files",
    "parts",
    "read_numbers",
    "rows_of",
    "seen_in_image",
]

_FARTHEST_PROJECTION = 2.0
"""Median distance, px, between projected tracks and the 2D tracks of a data set above which its
cameras are not what its converter expects; pixel centres differ by half a pixel at most."""


def clip_name(*parts: str) -> str:
    """Join names to a name that clips may have: what is no letter, digit, _ or - becomes -."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", "_".join(parts)).lstrip("_-") or "clip"


def find_folders(source: Path, marker: str, depth: int) -> list[Path]:
    """Return the folders at most `depth` levels below a folder that hold a file or folder.

    Args:
        source: where to look; it may be such a folder itself.
        marker: name or pattern of what the folders hold.
        depth: levels.
    """
    patterns = ("*/" * level + marker for level in range(depth + 1))
    return sorted({found.parent for pattern in patterns for found in source.glob(pattern)})


def numbered_files(folder: Path, pattern: str) -> dict[int, Path]:
    """Return the files of a folder by the number in their names, in its order.

    Args:
        folder: which must exist.
        pattern: regular expression of the whole name, whose first group is the number.

    Raises:
        InputError: there is no such folder, or it has no such file, or two of one number.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found: dict[int, Path] = {}
    for path in folder.iterdir():
        if match := re.fullmatch(pattern, path.name):
            number = int(match[1])
            if number in found:
                raise InputError(f"{folder}: two files of number {number}: {path.name}")
            found[number] = path
    if not found:
        raise InputError(f"{folder}: found no file whose name matches {pattern}")
    return dict(sorted(found.items()))


def matching(numbers: Iterable[int], files: Mapping[int, Path], folder: Path) -> tuple[Path, ...]:
    """Return the files of some numbers.

    Raises:
        InputError: one of them is missing.
    """
    numbers = list(numbers)
    missing = [number for number in numbers if number not in files]
    if missing:
        raise InputError(
            f"{folder}: no file of number {missing[0]} ({len(missing)} of {len(numbers)} missing)"
        )
    return tuple(files[number] for number in numbers)


def read_numbers(path: Path, columns: int, skip: int = 0) -> Float64[np.ndarray, "rows columns"]:
    """Read a table of numbers, separated by spaces.

    Args:
        path: of a text file; empty lines are ignored.
        columns: that each line must have.
        skip: first lines to ignore.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: a line is not that many finite numbers.
    """
    rows = []
    for number, line in read_lines(path):
        if number > skip and (words := line.split()):
            rows.append(line_of_numbers(path, number, words, columns))
    return np.array(rows, np.float64).reshape(len(rows), columns)


def rows_of(
    path: Path, table: Float64[np.ndarray, "rows columns"], frames: Sequence[int]
) -> Float64[np.ndarray, "times columns"]:
    """Return the rows of frames whose numbers count from 0.

    Args:
        path: of the table, for the message.
        table: a row per frame.
        frames: numbers, at least one, in increasing order.

    Raises:
        InputError: the table has fewer rows.
    """
    if frames[-1] >= len(table):
        raise InputError(
            f"{path}: expected {frames[-1] + 1} lines, one per frame, got {len(table)}"
        )
    return table[list(frames)]


def line_of_numbers(path: Path, number: int, words: Sequence[str], count: int) -> list[float]:
    """Return the numbers of a line of a text file.

    Raises:
        InputError: it has another count of words, or one that is not a finite number.
    """
    if len(words) != count:
        raise InputError(f"{path}: line {number}: expected {count} numbers, got {len(words)}")
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise InputError(f"{path}: line {number}: expected numbers ({error})") from error
    if not np.isfinite(values).all():
        raise InputError(f"{path}: line {number}: expected finite numbers")
    return values


def known_depth(
    depth: Real[np.ndarray, "height width"], farthest: float = np.inf
) -> Float32[np.ndarray, "height width"]:
    """Return depth with 0 where it is not finite, not positive or not below `farthest`."""
    known = np.isfinite(depth) & (depth > 0) & (depth < farthest)
    return np.where(known, depth, 0).astype(np.float32)


@dataclass(frozen=True)
class FrameFiles:
    """Loads frames from one image each, and one file of depth each if there are any.

    Attributes:
        images: by frame.
        width, height: px, which all images must have.
        depths: by frame; none without depth.
        read_depth: returns the depth of a file and the index of its frame, 0 where it is not known.
    """

    images: tuple[Path, ...]
    width: int
    height: int
    depths: tuple[Path, ...] = ()
    read_depth: Callable[[Path, int], Float32[np.ndarray, "height width"]] | None = None

    def __call__(self, index: int) -> ClipFrame:
        """Load a frame.

        Raises:
            FileNotFoundError: a file is missing.
            InputError: a file is not readable, or of another size.
        """
        image, depth = read_rgb(self.images[index]), None
        self._check(self.images[index], image.shape[:2])
        if self.read_depth is not None:
            depth = self.read_depth(self.depths[index], index)
            self._check(self.depths[index], depth.shape)
        return ClipFrame(image, depth)

    def _check(self, path: Path, shape: tuple[int, ...]) -> None:
        if shape != (self.height, self.width):
            raise InputError(
                f"{path}: expected {self.width}x{self.height} px, as the first image of the "
                f"sequence, got {shape[1]}x{shape[0]}"
            )

    def part(self, frames: slice) -> FrameFiles:
        """Return the files of a range of frames, whose reader of depth must not use the index."""
        return FrameFiles(
            self.images[frames], self.width, self.height, self.depths[frames], self.read_depth
        )


def clip_cameras(
    path: Path,
    intrinsics: Float[np.ndarray, "times 4"],
    cam_from_world: Float[np.ndarray, "times 4 4"],
    width: int,
    height: int,
) -> tuple[Float64[np.ndarray, "times 4 4"], Float64[np.ndarray, "times 4"]]:
    """Return world_from_cam and the normalised intrinsics of a clip.

    Args:
        path: the file of the cameras, for messages.
        intrinsics: fx, fy, cx, cy, px, with pixel centres at +0.5.
        cam_from_world: OpenCV axes.
        width, height: of the images, px.

    Raises:
        InputError: these are not pinhole cameras.
    """
    matrices = np.zeros((len(intrinsics), 3, 3))
    matrices[:, [0, 1, 0, 1], [0, 1, 2, 2]] = intrinsics
    matrices[:, 2, 2] = 1
    cameras = checked_cameras(path, matrices, cam_from_world, width, height)
    size = np.array([width, height, width, height], np.float64)
    return cameras.world_from_cam, np.asarray(intrinsics, np.float64) / size


def parts(frames: int, longest: int) -> Iterator[slice]:
    """Yield the ranges of frames of the fewest parts of about equal length, `longest` at most."""
    borders = np.linspace(0, frames, -(-frames // longest) + 1).round().astype(int)
    yield from (slice(int(a), int(b)) for a, b in zip(borders[:-1], borders[1:], strict=True))


def seen_in_image(
    points: Float[np.ndarray, "times tracks 3"],
    world_from_cam: Float[np.ndarray, "times 4 4"],
    intrinsics: Float[np.ndarray, "times 4"],
) -> Bool[np.ndarray, "times tracks"]:
    """Return which points are known, in front of the camera and inside the image.

    Args:
        points: in the world; NaN where not known.
        world_from_cam: OpenCV axes.
        intrinsics: normalised.
    """
    seen = np.zeros(points.shape[:2], bool)
    for time, pose in enumerate(world_from_cam):
        xy, depth = _projected(points[time], pose, intrinsics[time])
        with np.errstate(invalid="ignore"):
            seen[time] = (depth > 0) & ((xy >= 0) & (xy < 1)).all(-1)
    return seen


def check_projection(
    path: Path,
    points: Float[np.ndarray, "tracks 3"],
    stored: Float[np.ndarray, "tracks 2"],
    visible: Bool[np.ndarray, " tracks"],
    world_from_cam: Float64[np.ndarray, "4 4"],
    intrinsics: Float64[np.ndarray, " 4"],
    width: int,
    height: int,
) -> None:
    """Check that the tracks of a frame project to the 2D tracks that the data set has of them.

    Args:
        path: the file of the tracks, for the message.
        points: in the world.
        stored: px.
        visible: others are not compared.
        world_from_cam, intrinsics: of the frame; normalised intrinsics.
        width, height: of the image, px.

    Raises:
        InputError: their median distance is more than two pixels.
    """
    xy, depth = _projected(points, world_from_cam, intrinsics)
    distances = np.linalg.norm(xy * [width, height] - stored, axis=-1)
    with np.errstate(invalid="ignore"):
        distances = distances[visible & np.isfinite(stored).all(-1) & (depth > 0)]
    if visible.any() and not np.median(distances if len(distances) else [np.inf]) <= (
        _FARTHEST_PROJECTION
    ):
        found = f"{np.median(distances):.1f} px" if len(distances) else "not at all"
        raise InputError(
            f"{path}: expected 3D tracks that project to the 2D tracks by world-to-camera matrices "
            f"of OpenCV axes, got a median distance of {found}; another release of the data set?"
        )


def _projected(
    points: Float[np.ndarray, "tracks 3"],
    world_from_cam: Float[np.ndarray, "4 4"],
    intrinsics: Float[np.ndarray, " 4"],
) -> tuple[Float[np.ndarray, "tracks 2"], Float[np.ndarray, " tracks"]]:
    """Return positions as a share of the image, and depths."""
    cam_from_world = invert_transforms(np.asarray(world_from_cam, np.float64))
    points = np.asarray(points, np.float64)
    fx, fy, cx, cy = intrinsics
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        xy = project(matrix, transform_points(cam_from_world, points))
        return xy, depth_in_camera(cam_from_world, points)
