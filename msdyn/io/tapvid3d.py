"""TAPVid-3D's point tracks, one npz per clip.

    tracks_XYZ    [T, N, 3] positions in camera coordinates in each frame, OpenCV axes
    visibility    [T, N] bool
    queries_xyt   [N, 3] pixel and frame of each query
    fx_fy_cx_cy   [4] px, shared by all frames; pixel centres at +0.5

Reference: Koppula et al., "TAPVid-3D", 2024; tapnet/tapvid3d in github.com/google-deepmind/tapnet.
"""

from __future__ import annotations

import os

import numpy as np

from msdyn.errors import InputError
from msdyn.scene import Tracks, load_npz

__all__ = ["read_tapvid3d"]


def read_tapvid3d(path: str | os.PathLike) -> Tracks:
    """Read the tracks of a TAPVid-3D npz, projected to the images.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: an array is missing or of another shape.
    """
    arrays = load_npz(path, ("tracks_XYZ", "visibility", "queries_xyt", "fx_fy_cx_cy"))
    xyz = arrays["tracks_XYZ"].astype(np.float64)
    visible = arrays["visibility"].astype(bool)
    queries, intrinsics = arrays["queries_xyt"], arrays["fx_fy_cx_cy"].astype(np.float64)
    if xyz.ndim != 3 or xyz.shape[2] != 3 or visible.shape != xyz.shape[:2]:
        raise InputError(
            f"{path}: expected tracks_XYZ [frames, tracks, 3] and visibility [frames, tracks], "
            f"got {xyz.shape} and {visible.shape}"
        )
    if intrinsics.shape != (4,) or queries.shape != (xyz.shape[1], 3):
        raise InputError(
            f"{path}: expected fx_fy_cx_cy [4] and queries_xyt [{xyz.shape[1]}, 3], "
            f"got {intrinsics.shape} and {queries.shape}"
        )
    visible = visible & (xyz[..., 2] > 0) & np.isfinite(xyz).all(-1)
    safe = np.where(visible[..., None], xyz, 1.0)  # no division by zero where not visible
    xy = safe[..., :2] / safe[..., 2:] * intrinsics[:2] + intrinsics[2:]
    frame = np.round(queries[:, 2]).astype(int)
    if len(frame) and (frame.min() < 0 or frame.max() >= len(xyz)):
        raise InputError(
            f"{path}: queries_xyt: expected frames 0 to {len(xyz) - 1}, "
            f"got {frame.min()} to {frame.max()}"
        )
    visible = visible.T
    return Tracks.from_dense(
        np.where(visible[..., None], xy.swapaxes(0, 1), 0),
        visible,
        visible.astype(np.float32),
        np.full(len(visible), -1),
        frame,
    )
