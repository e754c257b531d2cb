"""The frames stage: a video, or a folder of images, into `images/` and `scene.json`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msdyn.preprocess.progress import progress

from msdyn.errors import InputError
from msdyn.files import natural_order
from msdyn.io import read_video, scan_video
from msdyn.scene import Timeline, create_scene, frame_path, write_image

__all__ = ["FrameOptions", "write_frames"]

MIN_SIDE = 32
"""Optical flow needs some room."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class FrameOptions:
    """Which frames are taken, and at what size.

    Attributes:
        fps: take at most this many frames a second; None takes all.
        max_frames: take at most this many frames, evenly spaced; None takes all.
        long_side: shrink images so that their longer side is at most this many px; 0 does not.
        folder_fps: frames a second of a folder of images, which has no timestamps.
    """

    fps: float | None = None
    max_frames: int | None = None
    long_side: int = 960
    folder_fps: float = 30.0


@dataclass(frozen=True)
class _Source:
    """A clip that can be read again and again: its timestamps [T] s, size, and reader."""

    seconds: np.ndarray
    width: int
    height: int
    nominal: bool
    path: Path
    names: tuple[str, ...] = ()

    def read(self, frames: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the chosen frames as uint8 RGB [H, W, 3]."""
        if self.path.is_dir():
            files = _image_files(self.path)
            return (_read_image(files[frame]) for frame in frames)
        return read_video(self.path, frames)


def write_frames(video: Path, directory: Path, options: FrameOptions) -> dict[str, Any]:
    """Write the frames of a clip to a scene directory, one at a time, and a new `scene.json`.

    Args:
        video: a video file, upright as its rotation metadata says, or a folder of images in the
            natural order of their names.
        directory: the scene directory; its `images/` must be empty.
        options: what to take.

    Returns:
        What the stage's record holds of the source: `source_frames`, the index in the source of
        every frame; `source_frame_count`, `source_width`, `source_height`; `source_names`, of a
        folder; and `timestamps`, "true" or, where the source has none that increase, "nominal".

    Raises:
        FileNotFoundError: there is no such file or folder.
        InputError: not a video, cut short, of one frame, or of frames of differing sizes.
    """
    source = _open_folder(video, options.folder_fps) if video.is_dir() else _open_video(video)
    if len(source.seconds) < 2:
        raise InputError(
            f"{video}: it holds one frame; a moving scene needs at least 2, "
            "from a camera that moves"
        )
    chosen = _choose_frames(source.seconds, options)
    if len(chosen) < 2:
        raise InputError(
            f"{video}: one of its {len(source.seconds)} frames is left; raise --fps or --max-frames"
        )
    width, height = _fit_size(source.width, source.height, options.long_side)
    if min(width, height) < MIN_SIDE:
        raise InputError(
            f"{video}: {width}x{height} is too small; expected at least {MIN_SIDE} pixels a side"
        )
    images = progress(source.read(chosen), "frames", total=len(chosen))
    for frame, image in enumerate(images):
        write_image(frame_path(directory / "images", frame, ".png"), _resize(image, width, height))
    seconds = source.seconds[chosen] - source.seconds[chosen[0]]
    create_scene(
        directory,
        width=width,
        height=height,
        fps=(len(chosen) - 1) / seconds[-1],
        timeline=Timeline(seconds),
    )
    return {
        "source": video.name,
        "source_frames": chosen.tolist(),
        "source_frame_count": len(source.seconds),
        "source_width": source.width,
        "source_height": source.height,
        "timestamps": "nominal" if source.nominal else "true",
    } | ({"source_names": source.names} if source.names else {})


def _open_video(path: Path) -> _Source:
    info = scan_video(path)
    return _Source(info.seconds, info.width, info.height, info.nominal, path)


def _open_folder(path: Path, fps: float) -> _Source:
    from PIL import Image

    files = _image_files(path)
    if not files:
        raise InputError(f"{path}: no images in this folder ({', '.join(IMAGE_SUFFIXES)})")
    sizes = []
    for file in files:
        try:
            with Image.open(file) as image:
                # EXIF orientations 5 to 8 lie on their side.
                turned = image.getexif().get(0x0112, 1) >= 5
                sizes.append(image.size[::-1] if turned else image.size)
        except OSError as error:
            raise InputError(f"{file}: not a readable image ({error})") from error
    for file, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            raise InputError(
                f"{file}: frames of differing sizes, {size[0]}x{size[1]} here and "
                f"{sizes[0][0]}x{sizes[0][1]} in {files[0].name}"
            )
    width, height = sizes[0]
    names = tuple(file.name for file in files)
    return _Source(np.arange(len(files)) / fps, width, height, True, path, names)


def _image_files(folder: Path) -> list[Path]:
    files = (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(files, key=natural_order)


def _read_image(path: Path) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":  # 16 bits or more; converting would clip
                raise InputError(f"{path}: expected 8-bit images, got mode {image.mode}")
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except OSError as error:
        raise InputError(f"{path}: not a readable image ({error})") from error


def _choose_frames(seconds: np.ndarray, options: FrameOptions) -> np.ndarray:
    """Return the indices of the frames to take."""
    chosen = np.arange(len(seconds))
    if options.fps is not None:
        wanted = np.arange(0, seconds[-1] + 1e-6, 1 / options.fps)
        after = np.searchsorted(seconds, wanted).clip(1, len(seconds) - 1)
        nearer = wanted - seconds[after - 1] <= seconds[after] - wanted
        chosen = np.unique(after - nearer)
    if options.max_frames is not None and len(chosen) > options.max_frames:
        spaced = np.linspace(0, len(chosen) - 1, options.max_frames)
        chosen = chosen[np.round(spaced).astype(int)]
    return chosen


def _fit_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Return the size of an image shrunk to a longer side of at most `long_side` px."""
    factor = min(1.0, long_side / max(width, height)) if long_side else 1.0
    return max(1, round(width * factor)), max(1, round(height * factor))


def _resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    import cv2

    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
