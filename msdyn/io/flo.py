"""Middlebury's `.flo`: optical flow as float32 pixels, little-endian.

The bytes `PIEH`, then width and height as int32, then u and v of every pixel, row by row.
Components above 1e9 px mean unknown flow.

Reference: vision.middlebury.edu/flow/code/flow-code/README.txt
"""

from __future__ import annotations

import os

import numpy as np
from jaxtyping import Bool, Float32, Real

from msdyn.errors import InputError
from msdyn.reading import MOST_PIXELS, check_image_size, read_bytes
from msdyn.writing import atomic_path

__all__ = ["read_flo", "write_flo"]

_MAGIC = b"PIEH"
_UNKNOWN = 1e10
_LARGEST = 12 + 8 * MOST_PIXELS


def write_flo(
    path: str | os.PathLike,
    flow: Real[np.ndarray, "height width 2"],
    valid: Bool[np.ndarray, "height width"] | None = None,
) -> None:
    """Write flow, px, atomically; it is marked unknown where `valid` is false."""
    stored = flow.astype("<f4")
    if valid is not None:
        stored = np.where(valid[..., None], stored, np.float32(_UNKNOWN)).astype("<f4")
    height, width = stored.shape[:2]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_MAGIC + np.array([width, height], "<i4").tobytes() + stored.tobytes())


def read_flo(
    path: str | os.PathLike,
) -> tuple[Float32[np.ndarray, "height width 2"], Bool[np.ndarray, "height width"]]:
    """Read flow, px, zero where unknown, and where it is known.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: another format, or a truncated file.
    """
    content = read_bytes(path, _LARGEST)
    if content[:4] != _MAGIC or len(content) < 12:
        raise InputError(
            f"{path}: expected a .flo file of Middlebury that begins with PIEH, "
            f"got {content[:4]!r} and {len(content)} bytes"
        )
    width, height = np.frombuffer(content, "<i4", 2, 4).tolist()
    check_image_size(width, height, str(path))
    if len(content) != 12 + 8 * width * height:
        raise InputError(
            f"{path}: expected {width}x{height} pixels of flow, {8 * width * height} bytes, "
            f"got {len(content) - 12}; the file is truncated or damaged"
        )
    flow = np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)
    known = np.asarray(np.abs(flow).max(axis=-1) < 1e9)
    return np.where(known[..., None], flow, 0).astype(np.float32), known
