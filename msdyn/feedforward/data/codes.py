"""Images, depth maps and arrays as bytes of the members of a shard, and back.

Depth is a 16-bit PNG: 0 is unknown, 1 to 65535 are even steps of the logarithm of depth between
the smallest and the largest depth of the frame, which are stored beside it. The relative error is
at most half a step, 0.5 log(largest / smallest) / 65534: 7e-5 for a ratio of 10,000.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image

from msdyn.errors import InputError
from msdyn.feedforward.data.commands import ImageFormat

__all__ = [
    "ImageFormat",
    "decode_arrays",
    "decode_depth",
    "decode_image",
    "decode_objects",
    "encode_arrays",
    "encode_depth",
    "encode_image",
    "encode_objects",
]

_STEPS = 65534
_LARGEST_LOG_RATIO = 100.0
"""Of the largest to the smallest depth of a frame; the relative error stays below 1e-3."""
_PNG_LEVEL = 4
_UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    RuntimeError,  # an encrypted or unsupported zip
    OverflowError,
    KeyError,
    struct.error,
    Image.DecompressionBombError,
)


def encode_image(
    image: UInt8[np.ndarray, "height width 3"], image_format: ImageFormat, quality: int
) -> bytes:
    """Return an image as PNG, or as JPEG of a quality without subsampled colours."""
    buffer = io.BytesIO()
    if image_format == "jpg":
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    else:
        Image.fromarray(image).save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


def decode_image(data: bytes, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    """Return an image of a known (height, width).

    Raises:
        InputError: it cannot be read, or has another size or type.
    """
    return _decode(data, size, "RGB")


def encode_depth(
    depth: Float32[np.ndarray, "height width"],
) -> tuple[bytes, tuple[float, float]]:
    """Return a depth map, 0 for unknown, and its limits; (1, 1) if nothing is known.

    Raises:
        InputError: negative or infinite depth, or too large a range.
    """
    if not np.isfinite(depth).all() or depth.min(initial=0) < 0:
        raise InputError("depth: expected finite depth >= 0 (0 for unknown)")
    known = depth > 0
    low, high = 1.0, 1.0
    if known.any():
        low, high = float(depth[known].min()), float(depth[known].max())
    if math.log(high / low) > _LARGEST_LOG_RATIO:
        raise InputError(f"depth: expected a ratio below e^100, got {low:.3g} to {high:.3g}")
    logarithm = np.log(np.where(known, depth, low).astype(np.float64) / low)
    share = logarithm / max(math.log(high / low), 1e-12)
    steps = np.where(known, 1 + np.rint(share.clip(0, 1) * _STEPS), 0).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(steps).save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue(), (low, high)


def decode_depth(
    data: bytes, size: tuple[int, int], limits: tuple[float, float]
) -> Float32[np.ndarray, "height width"]:
    """Return a depth map, 0 for unknown; arguments and errors as `decode_image`."""
    steps = _decode(data, size, "I;16")
    low, high = limits
    table = low * np.exp((np.arange(_STEPS + 2) - 1) / _STEPS * math.log(high / low))
    table[0] = 0
    return table.astype(np.float32)[steps]


def encode_objects(objects: UInt8[np.ndarray, "height width"]) -> bytes:
    """Return a map of objects as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(objects).save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


def decode_objects(data: bytes, size: tuple[int, int]) -> UInt8[np.ndarray, "height width"]:
    """Return a map of objects; arguments and errors as `decode_image`."""
    return _decode(data, size, "L")


def _decode(data: bytes, size: tuple[int, int], mode: str) -> Shaped[np.ndarray, "height width *_"]:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            found = (image.mode, image.height, image.width)
            if found != (mode, *size):  # before the pixels are decoded
                raise InputError(
                    f"expected an image of mode {mode}, {size[1]} x {size[0]}, got {found[0]}, "
                    f"{found[2]} x {found[1]}"
                )
            return np.array(image)
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(f"not a readable image ({error})") from error


def encode_arrays(arrays: Mapping[str, Shaped[np.ndarray, "*_"]]) -> bytes:
    """Return arrays as a compressed npz; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(
                    member, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False
                )
    return buffer.getvalue()


def decode_arrays(
    data: bytes, shapes: Mapping[str, tuple[tuple[int, ...], str]]
) -> dict[str, Shaped[np.ndarray, "*_"]]:
    """Return the arrays of an npz whose shapes and types are known.

    Args:
        data: of the npz.
        shapes: shape and type of each array, as (3, 4), "float32".

    Raises:
        InputError: it cannot be read, or an array is missing or has another shape or type.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            for name, (shape, dtype) in shapes.items():
                with file.open(f"{name}.npy") as member:
                    if np.lib.format.read_magic(member) != (1, 0):
                        raise ValueError("another version of npy")
                    found, fortran, kind = np.lib.format.read_array_header_1_0(member)
                    if (found, kind, fortran) != (shape, np.dtype(dtype), False):
                        raise InputError(f"{name}: expected {dtype} {shape}, got {kind} {found}")
                    size = math.prod(shape) * kind.itemsize
                    values = member.read(size)
                    if len(values) < size:
                        raise EOFError(f"{name} is {size - len(values)} bytes short")
                    member.read(1)  # zipfile compares the checksum at the end of a member
                arrays[name] = np.frombuffer(bytearray(values), kind).reshape(shape)
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(f"not a readable npz ({error})") from error
    return arrays
