"""The content of camera files: cameras, and the names, times or depth of their images."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Real

from msdyn.errors import InputError
from msdyn.geometry import Cameras, Lens
from msdyn.reading import check_image_size, reading

__all__ = [
    "PosedImages",
    "ScenePoints",
    "checked_cameras",
    "checked_points",
    "pinhole_intrinsics",
    "pinhole_matrix",
]


@dataclass(frozen=True)
class ScenePoints:
    """Points of the scene in its first frame.

    Attributes:
        xyz: world positions.
        moving: points on what moves; the others are static.
    """

    xyz: Float64[np.ndarray, "points 3"]
    moving: Bool[np.ndarray, " points"]

    def __len__(self) -> int:
        return len(self.xyz)

    def at_rest(self) -> ScenePoints:
        """Return the static points alone."""
        return ScenePoints(self.xyz[~self.moving], self.moving[~self.moving])


@dataclass(frozen=True)
class PosedImages:
    """Cameras in the order of a file.

    Attributes:
        layout: name of the format, for messages and records.
        cameras: one per image; OpenCV axes, pixel centres at +0.5.
        names: image names, or None where the format has none.
        seconds: increasing timestamps, or None.
        depths: z-depth in the world's units, of the cameras' size, 0 or not finite where unknown;
            None where the format has none.
        lenses: one per image, of its distortion; `cameras` are the same without it. None where the
            images are those of pinhole cameras.
        points: of the scene in the first frame, in the world of the cameras, or None.
    """

    layout: str
    cameras: Cameras
    names: tuple[str, ...] | None = None
    seconds: Float64[np.ndarray, " images"] | None = None
    depths: Real[np.ndarray, "images height width"] | None = None
    lenses: tuple[Lens, ...] | None = None
    points: ScenePoints | None = None


def checked_cameras(
    path: str | os.PathLike,
    intrinsics: Float[np.ndarray, "matrices 3 3"],
    cam_from_world: Float[np.ndarray, "images 4 4"],
    width: int,
    height: int,
) -> Cameras:
    """Return the cameras of a file, with intrinsics per image or one matrix for all.

    Raises:
        InputError: not pinhole cameras, images that are too large, or another number of matrices;
            the message names the file.
    """
    if len(intrinsics) == 1:
        intrinsics = np.repeat(intrinsics, len(cam_from_world), axis=0)
    with reading(path, "file of cameras"), np.errstate(all="ignore"):
        check_image_size(width, height, str(path))
        return Cameras(intrinsics, cam_from_world, width, height)


def checked_points(
    xyz: Float[np.ndarray, "points 3"], moving: Bool[np.ndarray, " points"], what: str
) -> ScenePoints:
    """Return points of a file.

    Raises:
        InputError: other shapes, or numbers that are not finite.
    """
    if xyz.ndim != 2 or xyz.shape[1] != 3 or moving.shape != xyz.shape[:1]:
        raise InputError(f"{what}: expected points [N, 3], got {xyz.shape}")
    if not np.isfinite(xyz).all():
        raise InputError(f"{what}: expected finite positions, got NaN or infinity")
    return ScenePoints(xyz.astype(np.float64), moving.astype(bool))


def pinhole_matrix(fx: float, fy: float, cx: float, cy: float) -> Float64[np.ndarray, "3 3"]:
    """Return the matrix of intrinsics, px."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)


def pinhole_intrinsics(
    values: Real[np.ndarray, " ..."], what: str
) -> Float64[np.ndarray, "cameras 3 3"]:
    """Return intrinsics without skew and with a last row of exactly 0 0 1.

    Args:
        values: matrices of one camera or several, of a file and not checked yet.
        what: the file and key, for the message.

    Raises:
        InputError: not 3x3, or a skew of more than a thousandth of the focal length.
    """
    matrices = np.array(values, np.float64)
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    if matrices.ndim != 3 or matrices.shape[1:] != (3, 3):
        raise InputError(f"{what}: expected 3x3 matrices, got shape {np.shape(values)}")
    skew = np.abs(matrices[:, 0, 1]).max(initial=0)
    if skew > 1e-3 * np.abs(matrices[:, 0, 0]).max(initial=1):
        raise InputError(f"{what}: expected pinhole cameras without skew, got a skew of {skew:.3g}")
    matrices[:, 0, 1] = matrices[:, 1, 0] = 0
    matrices[:, 2] = (0, 0, 1)
    return matrices
