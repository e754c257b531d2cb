"""Images of data sets: resampling, cropping with their cameras."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from msdyn.geometry import Cameras

__all__ = ["centre_crop", "crop_size", "cropped_cameras", "resampled"]


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
