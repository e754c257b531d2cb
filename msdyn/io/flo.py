"""Middlebury's `.flo`: optical flow as float32 pixels, little-endian.

The bytes `PIEH`, then width and height as int32, then u and v of every pixel, row by row. A flow
longer than 1e9 px means unknown.

Reference: vision.middlebury.edu/flow/code/flow-code/README.txt
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from msdyn.errors import InputError
from msdyn.files import atomic_path

__all__ = ["read_flo", "write_flo"]

_MAGIC = b"PIEH"
_UNKNOWN = 1e10


def write_flo(path: str | os.PathLike, flow: np.ndarray, valid: np.ndarray | None = None) -> None:
    """Write flow [H, W, 2] px, atomically; where `valid` [H, W] is false it is marked unknown."""
    stored = flow.astype("<f4")
    if valid is not None:
        stored = np.where(valid[..., None], stored, np.float32(_UNKNOWN)).astype("<f4")
    height, width = stored.shape[:2]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_MAGIC + np.array([width, height], "<i4").tobytes() + stored.tobytes())


def read_flo(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read flow [H, W, 2] float32 px, zero where unknown, and where it is known [H, W] bool.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: another format, or a file cut short.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    content = path.read_bytes()
    if content[:4] != _MAGIC or len(content) < 12:
        raise InputError(f"{path}: expected a .flo file of Middlebury (PIEH ...)")
    width, height = np.frombuffer(content, "<i4", 2, 4).tolist()
    if width < 1 or height < 1 or len(content) != 12 + 8 * width * height:
        raise InputError(
            f"{path}: expected {width}x{height} pixels of flow, got {len(content) - 12} bytes"
        )
    flow = np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)
    known = np.asarray(np.abs(flow).max(axis=-1) < 1e9)
    return np.where(known[..., None], flow, 0).astype(np.float32), known
