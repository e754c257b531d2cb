"""MegaSaM's result (`outputs_cvd/<scene>_sgd_cvd_hr.npz`): cameras and depth of a casual video.

    images     [T, H, W, 3] uint8, resampled to about as many pixels as 512x384
    depths     [T, H, W] float16 z-depth, clipped to .001 .. 100
    intrinsic  [3, 3] shared by all frames, in pixels of `images`
    cam_c2w    [T, 4, 4] world from camera, OpenCV axes

The principal point is half the image size, so pixel centres are at +0.5.

Reference: cvd_opt/cvd_opt.py in github.com/mega-sam/mega-sam (Li et al., CVPR 2025).
"""

from __future__ import annotations

import os

import numpy as np

from msdyn.errors import InputError
from msdyn.geometry import invert_transforms
from msdyn.io.posed_images import PosedImages, checked_cameras, pinhole_intrinsics
from msdyn.reading import load_npz

__all__ = ["read_megasam"]


def read_megasam(path: str | os.PathLike) -> PosedImages:
    """Read the cameras and depth of a MegaSaM npz.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: an array is missing or of another shape; the message names it.
    """
    arrays = load_npz(path, ("depths", "intrinsic", "cam_c2w"))
    depths = arrays["depths"]
    if depths.ndim != 3:
        raise InputError(f"{path}: depths: expected [frames, height, width], got {depths.shape}")
    poses = arrays["cam_c2w"].astype(np.float64)
    if poses.shape != (len(depths), 4, 4):
        raise InputError(f"{path}: cam_c2w: expected {(len(depths), 4, 4)}, got {poses.shape}")
    k = pinhole_intrinsics(arrays["intrinsic"], f"{path}: intrinsic")
    height, width = depths.shape[1:]
    cameras = checked_cameras(path, k, invert_transforms(poses), width, height)
    return PosedImages("MegaSaM npz", cameras, depths=depths)
