"""Files of one depth map: `.npy`, 16-bit `.png`, `.exr`.

Values are z-depth; 0 is unknown, as are NaN and infinity in an EXR, which renderers write for sky.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from msdyn.errors import InputError
from msdyn.reading import read_exr, read_npy, read_png16

__all__ = ["DEPTH_SUFFIXES", "read_depth_map"]

_FAR = 1e9  # renderers write 1e10 or infinity where a ray hits nothing
DEPTH_SUFFIXES = (".npy", ".png", ".exr")


def read_depth_map(path: str | os.PathLike) -> Float32[np.ndarray, "height width"]:
    """Read one depth map, in the units of the file.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: another type or shape, or values that are negative or (except in an EXR) not
            finite.
    """
    path = Path(path)
    if path.suffix == ".png":
        return read_png16(path).astype(np.float32)
    depth = _read_exr(path) if path.suffix == ".exr" else read_npy(path)
    if depth.ndim == 3 and depth.shape[2] == 1:
        depth = depth[..., 0]
    if depth.ndim != 2 or depth.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected depth [H, W], got {depth.dtype} {depth.shape}")
    depth = depth.astype(np.float32)
    for wrong, name in ((~np.isfinite(depth), "NaN or infinite"), (depth < 0, "negative")):
        if wrong.any():
            raise InputError(
                f"{path}: {wrong.sum()} of {depth.size} values are {name}; "
                "expected z-depth > 0, and 0 where it is unknown"
            )
    return depth


def _read_exr(path: Path) -> Float32[np.ndarray, "height width"]:
    """Read channel Z of an EXR, or else its first; 0 where a ray hit nothing."""
    channels = read_exr(path)
    if not channels:
        raise InputError(f"{path}: expected a channel of depth, got none")
    image = np.asarray(channels.get("Z", next(iter(channels.values()))), np.float32)
    image = image[..., 0] if image.ndim == 3 else image
    return np.where(np.isfinite(image) & (image < _FAR), image, 0)
