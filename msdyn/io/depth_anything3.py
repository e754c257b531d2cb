"""Depth Anything 3's result (`exports/npz/results.npz` or `mini_npz`): cameras and depth.

    depth       [T, H, W] float32 z-depth at the input size of the model
    conf        [T, H, W] confidence (not read)
    extrinsics  [T, 3, 4] camera from world, OpenCV axes
    intrinsics  [T, 3, 3] in pixels of `depth`

It needs its own environment, because it requires numpy below 2: `da3 auto VIDEO --export-format
mini_npz`, then `msdyn-preprocess VIDEO --cameras files --cameras-path results.npz`.

Reference: src/depth_anything_3/utils/export/npz.py in github.com/ByteDance-Seed/Depth-Anything-3.
"""

from __future__ import annotations

import os

import numpy as np

from msdyn.errors import InputError
from msdyn.io.posed_images import PosedImages, checked_cameras, pinhole_intrinsics
from msdyn.reading import load_npz

__all__ = ["read_depth_anything3"]


def read_depth_anything3(path: str | os.PathLike) -> PosedImages:
    """Read the cameras and depth of a Depth Anything 3 npz.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: an array is missing or of another shape; the message names it.
    """
    arrays = load_npz(path, ("depth", "extrinsics", "intrinsics"))
    depths = arrays["depth"]
    if depths.ndim == 4 and depths.shape[-1] == 1:
        depths = depths[..., 0]
    if depths.ndim != 3:
        raise InputError(f"{path}: depth: expected [frames, height, width], got {depths.shape}")
    count, height, width = depths.shape
    poses = arrays["extrinsics"].astype(np.float64)
    if poses.shape not in ((count, 3, 4), (count, 4, 4)):
        raise InputError(f"{path}: extrinsics: expected {(count, 3, 4)}, got {poses.shape}")
    cam_from_world = np.tile(np.eye(4), (count, 1, 1))
    cam_from_world[:, :3] = poses[:, :3]
    k = pinhole_intrinsics(arrays["intrinsics"], f"{path}: intrinsics")
    cameras = checked_cameras(path, k, cam_from_world, width, height)
    return PosedImages("Depth Anything 3 npz", cameras, depths=depths)
