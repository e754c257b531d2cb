"""Sources of frames: a video file, a folder of images, or a pattern of image names."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from msdyn.errors import InputError
from msdyn.files import natural_order
from msdyn.io import read_video, scan_video
from msdyn.preprocess.frames.shots import THUMBNAIL_WIDTH
from msdyn.reading import opened_image

__all__ = [
    "IMAGE_SUFFIXES",
    "Source",
    "open_source",
    "read_source",
    "resize_frame",
    "source_files",
]

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
    """

    seconds: Float[np.ndarray, " frames"]
    width: int
    height: int
    nominal: bool
    thumbnails: UInt8[np.ndarray, "frames h w"]
    path: Path
    files: tuple[Path, ...] = ()

    def read(
        self, frames: Int[np.ndarray, " chosen"]
    ) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield the chosen frames [H, W, 3] RGB."""
        return _read(self.path, self.files, frames)


def open_source(path: Path, folder_fps: float) -> Source:
    """Return a clip with its timestamps and size, after reading it through once.

    Args:
        path: a video, a folder of images, or a pattern such as `shots/*.png`; images are taken in
            the natural order of their names.
        folder_fps: frame rate of images, which have no timestamps.

    Raises:
        FileNotFoundError: there is no such file or folder.
        InputError: not a video, cut short, or images of differing sizes.
    """
    if _is_video(path):
        info = scan_video(path, thumbnail_width=THUMBNAIL_WIDTH)
        assert info.thumbnails is not None
        return Source(info.seconds, info.width, info.height, info.nominal, info.thumbnails, path)
    return _open_images(path, folder_fps)


def read_source(
    path: Path, frames: Int[np.ndarray, " chosen"]
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield chosen frames [H, W, 3] RGB of a clip that has been opened before.

    Args:
        path: as of `open_source`; the clip is not checked again.
        frames: indices, increasing.

    Raises:
        FileNotFoundError: there is no such file or folder.
        InputError: a frame cannot be read.
    """
    return _read(path, () if _is_video(path) else tuple(source_files(path)), frames)


def resize_frame(
    image: UInt8[np.ndarray, "source_height source_width 3"], width: int, height: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Return an image shrunk to a size."""
    import cv2

    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def source_files(path: Path) -> list[Path]:
    """Return the files that a clip consists of, in their order.

    Raises:
        FileNotFoundError: there is no such file or folder, or no image matches the pattern.
    """
    if path.is_dir():
        files = (file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        return sorted(files, key=natural_order)
    if _is_pattern(path):
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
        files = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES]
        if not files:
            raise FileNotFoundError(
                f"{path}: no images fit this pattern ({', '.join(IMAGE_SUFFIXES)})"
            )
        return sorted(files, key=natural_order)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder")
    return [path]


def _read(
    path: Path, files: tuple[Path, ...], frames: Int[np.ndarray, " chosen"]
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield the chosen frames of a video or, if there are any, of image files."""
    if files:
        return (_read_image(files[frame]) for frame in frames)
    return read_video(path, frames)


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
    first: tuple[int, int] | None = None
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
        thumbnails.append(_thumbnail(image))
    assert first is not None
    times = np.arange(len(files)) / fps
    return Source(times, *first, True, np.stack(thumbnails), path, tuple(files))


def _thumbnail(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "h w"]:
    """Return an image in grey, `THUMBNAIL_WIDTH` px wide."""
    import cv2

    height = max(1, round(THUMBNAIL_WIDTH * min(image.shape[0] / image.shape[1], 16)))
    small = cv2.resize(image, (THUMBNAIL_WIDTH, height), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


def _read_image(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """Return an image, upright by its EXIF orientation."""
    from PIL import ImageOps

    with opened_image(path) as image:
        if image.mode[0] in "IF":  # 16 bits or more; converting would clip
            raise InputError(f"{path}: expected 8-bit images, got mode {image.mode}")
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
