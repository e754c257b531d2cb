"""Images, foreground and depth of a camera of a recording, read one at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from msdyn.geometry import Cameras
from msdyn.io import RecordedCamera, read_depth_map, read_video
from msdyn.preprocess.frame_matching import nearest
from msdyn.reading import opened_image, read_pixels, read_rgb

__all__ = ["BACKGROUNDS", "ImageReader", "has_foreground", "read_depth", "read_foreground"]

BACKGROUNDS = {"white": 255, "black": 0}
"""Colours of what is transparent."""
_OPAQUE = 128
"""Least alpha of foreground."""


class ImageReader:
    """Reads the images of a camera; fast where they are read in their order."""

    def __init__(self, camera: RecordedCamera, background: str) -> None:
        self._camera, self._background = camera, BACKGROUNDS[background]
        self._stream: Iterator[UInt8[np.ndarray, "height width 3"]] | None = None
        self._next = -1

    def __call__(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return an image; what is transparent has the colour of the background."""
        camera = self._camera
        if camera.is_video:
            return self._of_video(row)
        if not camera.transparent:
            return read_rgb(camera.images[row])
        with opened_image(camera.images[row]) as image:
            rgba = np.array(image.convert("RGBA")).astype(np.float32)
        alpha = rgba[..., 3:] / 255
        blended = rgba[..., :3] * alpha + self._background * (1 - alpha)
        return (blended + 0.5).astype(np.uint8)

    def _of_video(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return a frame of a video, which is decoded on where the frame comes next."""
        if self._stream is None or row != self._next:
            rest = np.arange(row, len(self._camera))
            self._stream = iter(read_video(self._camera.images[0], rest))
        self._next = row + 1
        return next(self._stream)


def has_foreground(camera: RecordedCamera) -> bool:
    """Return whether it is known which pixels are foreground."""
    return camera.transparent or camera.masks is not None


def read_foreground(
    camera: RecordedCamera, row: int, cameras: Cameras
) -> Bool[np.ndarray, "height width"]:
    """Return which pixels of an image are foreground, resampled to the size of cameras.

    That is what masks say or, without any, what is not transparent.
    """
    if camera.masks is not None:
        values = read_pixels(camera.masks[row])
        values = values if values.ndim == 2 else values[..., :3].max(-1)
        shown = values > 0
    else:
        with opened_image(camera.images[row]) as image:
            shown = np.array(image.convert("RGBA"))[..., 3] >= _OPAQUE
    return nearest(shown.astype(np.uint8), (cameras.height, cameras.width)) > 0


def read_depth(
    camera: RecordedCamera, row: int, cameras: Cameras
) -> Float32[np.ndarray, "height width"]:
    """Return recorded depth in units of the world, resampled to the size of cameras."""
    assert camera.depths is not None, "the caller has looked"
    depth = read_depth_map(camera.depths[row]) * np.float32(camera.depth_scale)
    return nearest(depth, (cameras.height, cameras.width))
