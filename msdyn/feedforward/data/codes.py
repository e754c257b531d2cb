"""Images, depth maps and arrays as bytes of the members of a shard, and back.

Depth is a 16-bit PNG: 0 is unknown, 1 to 65535 are even steps of the logarithm of depth between
the smallest and the largest depth of the frame, which are stored beside it. The relative error is
at most half a step, 0.5 log(largest / smallest) / 65534: 7e-5 for a ratio of 10,000.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image

from msdyn.errors import InputError
from msdyn.feedforward.data.commands import ImageFormat
from msdyn.reading import load_npz, opened_image

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
    with opened_image(data, "image", size=size) as image:
        if image.mode != mode:  # before the pixels are decoded
            raise InputError(f"expected an image of mode {mode}, got {image.mode}")
        return np.array(image)


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
    arrays = load_npz(data, tuple(shapes), "npz")
    for name, (shape, dtype) in shapes.items():
        found = arrays[name]
        if (found.shape, found.dtype) != (shape, np.dtype(dtype)):
            raise InputError(f"{name}: expected {dtype} {shape}, got {found.dtype} {found.shape}")
    return arrays
