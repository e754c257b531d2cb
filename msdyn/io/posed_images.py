"""What files of cameras hold: cameras, and whatever says which frames they belong to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdyn.errors import InputError
from msdyn.geometry import Cameras

__all__ = ["PosedImages", "pinhole_intrinsics"]


@dataclass(frozen=True)
class PosedImages:
    """Cameras as a file gives them, in the order of its frames.

    Attributes:
        layout: name of the format, for messages and records.
        cameras: one for each of the N images; OpenCV axes, pixel centres at +0.5.
        names: [N] image names, or None where the format has none.
        seconds: [N] float64 timestamps, increasing, or None.
        depths: [N, H, W] z-depth in the world's units, of the cameras' size, 0 or not finite where
            unknown; None where the format has none.
    """

    layout: str
    cameras: Cameras
    names: tuple[str, ...] | None = None
    seconds: np.ndarray | None = None
    depths: np.ndarray | None = None


def pinhole_intrinsics(values: np.ndarray, what: str) -> np.ndarray:
    """Return intrinsics [N, 3, 3] without skew and with a last row of exactly 0 0 1.

    Args:
        values: [N, 3, 3], or [3, 3] for one camera.
        what: the file and key, for the message.

    Raises:
        InputError: another shape, or a skew of more than a thousandth of the focal length.
    """
    matrices = np.array(values, np.float64)
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    if matrices.ndim != 3 or matrices.shape[1:] != (3, 3):
        raise InputError(f"{what}: expected matrices of 3x3, got shape {np.shape(values)}")
    if np.abs(matrices[:, 0, 1]).max(initial=0) > 1e-3 * np.abs(matrices[:, 0, 0]).max(initial=1):
        raise InputError(f"{what}: expected pinhole cameras without skew")
    matrices[:, 0, 1] = matrices[:, 1, 0] = 0
    matrices[:, 2] = (0, 0, 1)
    return matrices
