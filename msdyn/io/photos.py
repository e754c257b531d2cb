"""Images of data sets: decoding JPEG and PNG files, resampling, cropping with their cameras."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from jaxtyping import UInt8

from msdyn.errors import InputError
from msdyn.geometry import Cameras

__all__ = ["centre_crop", "crop_size", "cropped_cameras", "decode_rgb", "read_rgb", "resampled"]


def decode_rgb(data: bytes, what: str) -> UInt8[np.ndarray, "height width 3"]:
    """Return the RGB image of an image file in memory.

    Args:
        data: content of the file.
        what: name of the image, for the message.

    Raises:
        InputError: not a readable image.
    """
    try:
        return iio.imread(io.BytesIO(data), plugin="pillow", mode="RGB")
    except (OSError, ValueError, SyntaxError, IndexError) as error:
        raise InputError(f"{what}: not a readable image ({error})") from error


def read_rgb(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """Read an image file as RGB.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not a readable image.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return decode_rgb(path.read_bytes(), str(path))


def resampled(
    image: UInt8[np.ndarray, "rows columns 3"], width: int, height: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Return an image resampled to a size by Lanczos' filter (Pillow's, which does not alias)."""
    from PIL import Image

    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def crop_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the size to which an image is resampled so that its shorter side is `side` px."""
    factor = side / min(width, height)
    return max(side, round(factor * width)), max(side, round(factor * height))


def centre_crop(
    image: UInt8[np.ndarray, "rows columns 3"], side: int
) -> UInt8[np.ndarray, "side side 3"]:
    """Return the central square of an image, resampled so that its shorter side is `side` px."""
    width, height = crop_size(image.shape[1], image.shape[0], side)
    left, top = (width - side) // 2, (height - side) // 2
    return resampled(image, width, height)[top : top + side, left : left + side]


def cropped_cameras(cameras: Cameras, side: int) -> Cameras:
    """Return the cameras of images that `centre_crop` has cropped."""
    width, height = crop_size(cameras.width, cameras.height, side)
    resized = cameras.resized(width, height)
    intrinsics = resized.intrinsics.copy()
    intrinsics[:, 0, 2] -= (width - side) // 2
    intrinsics[:, 1, 2] -= (height - side) // 2
    return replace(resized, intrinsics=intrinsics, width=side, height=side)
