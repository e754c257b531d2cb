"""Pixels of the images and depth maps that recordings of robots hold."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from msdyn.errors import InputError
from msdyn.io.ros_messages import ImageMessage
from msdyn.reading import check_image_size, opened_image, read_pixels

__all__ = ["depth_of", "encoded_suffix", "rgb_of"]

# Channels of the encodings, and OpenCV's conversion to RGB; "" where they are it.
_ENCODINGS: dict[str, tuple[int, str]] = {
    "rgb8": (3, ""),
    "bgr8": (3, "COLOR_BGR2RGB"),
    "8UC3": (3, "COLOR_BGR2RGB"),
    "rgba8": (4, "COLOR_RGBA2RGB"),
    "bgra8": (4, "COLOR_BGRA2RGB"),
    "8UC4": (4, "COLOR_BGRA2RGB"),
    "mono8": (1, "COLOR_GRAY2RGB"),
    "8UC1": (1, "COLOR_GRAY2RGB"),
    # OpenCV names a pattern by its second row, ROS by its first.
    "bayer_rggb8": (1, "COLOR_BayerBG2RGB"),
    "bayer_bggr8": (1, "COLOR_BayerRG2RGB"),
    "bayer_gbrg8": (1, "COLOR_BayerGR2RGB"),
    "bayer_grbg8": (1, "COLOR_BayerGB2RGB"),
    "yuv422": (2, "COLOR_YUV2RGB_UYVY"),
    "uyvy": (2, "COLOR_YUV2RGB_UYVY"),
    "yuv422_yuy2": (2, "COLOR_YUV2RGB_YUYV"),
    "yuyv": (2, "COLOR_YUV2RGB_YUYV"),
}
_DEPTH = {"16UC1": ("u2", 0.001), "mono16": ("u2", 0.001), "32FC1": ("f4", 1.0)}
"""Encodings of depth: their type, and metres per unit (REP 118)."""
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
_COMPRESSED_DEPTH_HEADER = 12


def encoded_suffix(data: bytes, what: str) -> str:
    """Return the suffix of a file with a compressed image.

    Raises:
        InputError: not a JPEG, PNG, WebP or BMP, or one that is too large.
    """
    with opened_image(data, what) as image:
        suffix = _SUFFIXES.get(image.format or "")
    if suffix is None:
        raise InputError(f"{what}: expected JPEG, PNG, WebP or BMP")
    return suffix


def rgb_of(message: ImageMessage, what: str) -> UInt8[np.ndarray, "height width 3"]:
    """Return the pixels of a raw image.

    Raises:
        InputError: another encoding, or fewer bytes than its size needs.
    """
    import cv2

    if message.format not in _ENCODINGS:
        raise InputError(
            f"{what}: expected pixels in one of {', '.join(_ENCODINGS)}, got {message.format!r}"
        )
    channels, conversion = _ENCODINGS[message.format]
    values = _rows(message, np.dtype(np.uint8), channels, what)
    if not conversion:
        return values
    return cv2.cvtColor(values, getattr(cv2, conversion))  # pyright: ignore  # of uint8 arrays


def depth_of(message: ImageMessage, what: str) -> Float32[np.ndarray, "height width"]:
    """Return z-depth in metres, 0 where it is unknown.

    Raises:
        InputError: not depth, or fewer bytes than its size needs.
    """
    if message.kind == "compressed":
        packed = "compressedDepth" in message.format
        if packed and not message.format.startswith("16UC1"):
            raise InputError(f"{what}: of compressed depth only 16UC1 is read")
        data = message.data[_COMPRESSED_DEPTH_HEADER if packed else 0 :]
        values = read_pixels(data, what)
        if values.ndim != 2 or values.dtype.kind not in "iu":
            raise InputError(f"{what}: expected one 16-bit channel, got {values.shape}")
        unit = 0.001
    elif message.format in _DEPTH:
        name, unit = _DEPTH[message.format]
        order = ">" if message.big_endian else "<"
        values = _rows(message, np.dtype(order + name), 1, what)
    else:
        raise InputError(f"{what}: expected depth as 16UC1 or 32FC1, got {message.format!r}")
    depth = values.astype(np.float32) * np.float32(unit)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _rows(
    message: ImageMessage, dtype: np.dtype, channels: int, what: str
) -> Shaped[np.ndarray, "height width *channels"]:
    """Return the values of a raw image, whose rows may have bytes at their ends."""
    check_image_size(message.width, message.height, what)
    row = message.width * channels * dtype.itemsize
    step = message.step or row
    if step < row or len(message.data) < step * (message.height - 1) + row:
        raise InputError(
            f"{what}: expected {message.width}x{message.height} px in rows of {step} bytes, got "
            f"{len(message.data)} bytes"
        )
    padded = message.data[: step * message.height].ljust(step * message.height, b"\0")
    rows = np.frombuffer(padded, np.uint8).reshape(message.height, step)[:, :row]
    values = np.ascontiguousarray(rows).view(dtype)
    shape = (message.height, message.width) + ((channels,) if channels > 1 else ())
    return values.reshape(shape)
