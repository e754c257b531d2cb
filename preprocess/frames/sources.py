"""Sources of frames: a video file, a folder of images, or a pattern of image names.

A folder may have a file `seconds.txt`: the time stamp of each image in seconds, one a line.
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from msdyn.errors import InputError
from msdyn.geometry import Undistortion
from msdyn.io import read_video, scan_video, thumbnail_size
from msdyn.preprocess.frame_matching import is_stray, listed
from msdyn.preprocess.frames.recorded_focal import RecordedFocal, read_focal
from msdyn.preprocess.frames.shots import THUMBNAIL_SIDE
from msdyn.reading import natural_order, opened_image, read_lines, reading

__all__ = [
    "IMAGE_SUFFIXES",
    "TIMES",
    "Source",
    "open_source",
    "read_source",
    "resize_frame",
    "source_files",
    "times_file",
]

_log = logging.getLogger(__name__)

MOST_WITHOUT_NUMBER = 0.2  # of the images of a folder
WHITES = (255, 1023, 4095, 16383, 65535)
"""Largest values of 8 to 16 bits."""
TIMES = "seconds.txt"
"""File of time stamps in a folder of images."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Source:
    """A clip that can be read several times.

    Attributes:
        seconds: [T] timestamps, the first at 0.
        width, height: upright, in square pixels.
        nominal: the timestamps are those of a nominal frame rate.
        thumbnails: [T, h, w] grey.
        path: of the video.
        files: of the T images, in place of a video.
        white: of 16-bit images, the value that is shown white.
        focal: what the cameras wrote into the images; None of a video.
        hdr: transfer of a video of high dynamic range, which is mapped to a standard range.
        segment: seconds of the file between which the frames are; None is all of it.
    """

    seconds: Float[np.ndarray, " frames"]
    width: int
    height: int
    nominal: bool
    thumbnails: UInt8[np.ndarray, "frames h w"]
    path: Path
    files: tuple[Path, ...] = ()
    white: int = 255
    focal: RecordedFocal | None = None
    hdr: str = ""
    segment: tuple[float, float] | None = None

    def read(
        self, frames: Int[np.ndarray, " chosen"]
    ) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield the chosen frames [H, W, 3] RGB."""
        return _read(self.path, self.files, frames, self.white, self.segment)


def open_source(
    path: Path, folder_fps: float, segment: tuple[float, float] | None = None
) -> Source:
    """Return a clip with its timestamps and size, after reading it through once.

    Args:
        path: a video, a folder of images, or a pattern such as `shots/*.png`; images are taken in
            the natural order of their names.
        folder_fps: frame rate of images without timestamps.
        segment: of a video, seconds of the file: its frames from the first to before the second.

    Raises:
        FileNotFoundError: there is no such file or folder.
        InputError: not a video, cut short, or images of differing sizes.
    """
    if _is_video(path):
        info = scan_video(path, thumbnail_side=THUMBNAIL_SIDE, segment=segment)
        assert info.thumbnails is not None
        return Source(
            info.seconds,
            info.width,
            info.height,
            info.nominal,
            info.thumbnails,
            path,
            hdr=info.hdr,
            segment=segment,
        )
    return _open_images(path, folder_fps)


def read_source(
    path: Path,
    frames: Int[np.ndarray, " chosen"],
    white: int = 255,
    segment: tuple[float, float] | None = None,
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield chosen frames [H, W, 3] RGB of a clip that has been opened before.

    Args:
        path: as of `open_source`; the clip is not checked again.
        frames: indices, increasing.
        white: of 16-bit images, the value that is shown white.
        segment: as of `open_source`.

    Raises:
        FileNotFoundError: there is no such file or folder.
        InputError: a frame cannot be read.
    """
    files = () if _is_video(path) else tuple(source_files(path))
    return _read(path, files, frames, white, segment)


def resize_frame(
    image: UInt8[np.ndarray, "source_height source_width 3"],
    width: int,
    height: int,
    lens: Undistortion | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Return an image shrunk to a size; one that was taken through a lens is undistorted."""
    import cv2

    if lens is not None and not lens.is_identity:
        return lens.image(image, (height, width))
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def source_files(path: Path) -> list[Path]:
    """Return the files that a clip consists of, in their order.

    Of a folder of numbered images, a few without a number are left out.

    Raises:
        FileNotFoundError: there is no such file or folder, or no image matches the pattern.
    """
    if path.is_dir():
        files = listed(path, IMAGE_SUFFIXES)
        without = _without_number(files)
        return [file for file in files if file not in without]
    if _is_pattern(path):
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
        files = [f for f in found if f.suffix.lower() in IMAGE_SUFFIXES and not is_stray(f)]
        if not files:
            raise FileNotFoundError(
                f"{path}: no images fit this pattern ({', '.join(IMAGE_SUFFIXES)})"
            )
        return sorted(files, key=natural_order)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder")
    return [path]


def times_file(path: Path) -> Path | None:
    """Return the file of time stamps in a folder of images; None where there is none."""
    file = path / TIMES
    return file if path.is_dir() and file.is_file() else None


def _read_times(path: Path, count: int) -> Float[np.ndarray, " frames"]:
    """Return the time stamps of the images of a folder, the first at 0.

    Raises:
        InputError: another number of them, or numbers that do not increase.
    """
    with reading(path, "list of seconds"):
        seconds = np.array([float(line) for _, line in read_lines(path) if line.strip()])
    if len(seconds) != count:
        raise InputError(f"{path}: expected {count} time stamps, one an image, got {len(seconds)}")
    if not np.isfinite(seconds).all() or (np.diff(seconds) <= 0).any():
        raise InputError(f"{path}: expected finite, increasing seconds")
    return seconds - seconds[0]


def _read(
    path: Path,
    files: tuple[Path, ...],
    frames: Int[np.ndarray, " chosen"],
    white: int,
    segment: tuple[float, float] | None,
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield the chosen frames of a video or, if there are any, of image files."""
    if files:
        return (_shown(_read_image(files[frame]), white) for frame in frames)
    return read_video(path, frames, segment=segment)


def _is_video(path: Path) -> bool:
    """Return whether a path is a file, thus a video, not a folder or a pattern."""
    return path.is_file() and not _is_pattern(path)


def _is_pattern(path: Path) -> bool:
    """Return whether a path is a pattern, not a file with such a name."""
    return glob.has_magic(str(path)) and not path.exists()


def _open_images(path: Path, fps: float) -> Source:
    """Return the clip of a folder or a pattern of images."""
    files = source_files(path)
    if not files:
        raise InputError(f"{path}: no images in this folder ({', '.join(IMAGE_SUFFIXES)})")
    _refuse_twins(files)
    if path.is_dir():
        without = [file.name for file in _without_number(listed(path, IMAGE_SUFFIXES))]
        if without:
            _log.warning(
                "frames: %s: left out, as the name has no number: %s", path, ", ".join(without)
            )
    first: tuple[int, int] | None = None
    deep = _read_image(files[0]).dtype == np.uint16
    white = _white(files) if deep else WHITES[0]
    thumbnails = []
    for file in files:
        image = _read_image(file)
        size = image.shape[1::-1]
        if first is None:
            first = size
        if size != first:
            raise InputError(
                f"{file}: frames of differing sizes, {size[0]}x{size[1]} here and "
                f"{first[0]}x{first[1]} in {files[0].name}"
            )
        if (image.dtype == np.uint16) != deep:
            raise InputError(
                f"{file}: images of 8 and of 16 bits in one folder; convert them first"
            )
        thumbnails.append(_thumbnail(_shown(image, white)))
    assert first is not None
    stamps = times_file(path)
    times = np.arange(len(files)) / fps if stamps is None else _read_times(stamps, len(files))
    return Source(
        times,
        *first,
        stamps is None,
        np.stack(thumbnails),
        path,
        tuple(files),
        white=white,
        focal=read_focal(files, first),
    )


def _without_number(files: list[Path]) -> list[Path]:
    """Return the images whose names have no number, where those of nearly all others have one."""
    without = [file for file in files if not any(c.isdecimal() for c in file.stem)]
    return without if len(without) <= MOST_WITHOUT_NUMBER * len(files) else []


def _refuse_twins(files: list[Path]) -> None:
    """Raise where two images have the same name and different suffixes: a frame would be twice."""
    seen: dict[Path, Path] = {}
    for file in files:
        other = seen.setdefault(file.with_suffix(""), file)
        if other is not file:
            raise InputError(
                f"{file}: there is also {other.name}; keep the images of one kind in the folder, "
                f"or give a pattern ('*{file.suffix}')"
            )


def _thumbnail(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "h w"]:
    """Return an image in grey, with a longer side of `THUMBNAIL_SIDE` px."""
    import cv2

    height, width = image.shape[:2]
    size = thumbnail_size(width, height, THUMBNAIL_SIDE)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


def _white(files: list[Path]) -> int:
    """Return the value shown white in 16-bit images: the largest of the sensor's range (10, 12, 14
    or 16 bits) that their brightest pixel lies in."""
    largest = max(int(_read_image(file).max()) for file in files)
    return next(white for white in WHITES if largest <= white)


def _shown(
    image: Shaped[np.ndarray, "height width *channels"], white: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Return an image as 8-bit RGB."""
    if image.dtype == np.uint8:
        return image
    grey = np.minimum(image.astype(np.float32) * (255 / white) + 0.5, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _read_image(path: Path) -> Shaped[np.ndarray, "height width *channels"]:
    """Return an image, upright by its EXIF orientation: 8-bit RGB, or 16-bit grey [H, W].

    Raises:
        InputError: not an image, or one of other values.
    """
    from PIL import ImageOps

    with opened_image(path) as image:
        if image.mode[0] in "IF":  # 16 bits or more
            deep = np.array(ImageOps.exif_transpose(image))
            if deep.dtype.kind in "iu" and deep.min() >= 0 and deep.max() <= WHITES[-1]:
                return deep.astype(np.uint16)
            raise InputError(
                f"{path}: expected images of 8 bits, or grey ones of 16, got mode {image.mode}; "
                "convert them first (ffmpeg -i in.tif out.png)"
            )
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
