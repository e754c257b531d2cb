"""Intrinsics that are known before cameras are solved: the user's, or the focal length of EXIF."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from msdyn.errors import InputError
from msdyn.preprocess.multiview.intrinsics import KnownIntrinsics
from msdyn.scene import Scene

__all__ = ["checked_intrinsics", "given_intrinsics", "lens_intrinsics", "recorded_intrinsics"]

NARROWEST, WIDEST = 5.0, 170.0  # degrees, field of view along the longer side
OFF_CENTRE = 0.25  # of a side, how far from the middle a principal point may be
# A principal point this close, as a share of a side, to the middle of the image on its side is of
# that, where the sides differ by more than this ratio.
ON_ITS_SIDE, LEAST_RATIO = 0.05, 1.15


def checked_intrinsics(values: Sequence[float], size: tuple[int, int]) -> None:
    """Check fx fy cx cy of the user against the size (height, width) of the video, px.

    Raises:
        InputError: focal lengths of no possible field of view, or a principal point far from the
            middle, as where they are of another size, or of a portrait video as it is stored.
    """
    fx, fy, cx, cy = values
    height, width = size
    whole = f"in px of the video at its full size, {width}x{height}"
    if not (np.isfinite(values).all() and min(fx, fy) > 0):
        raise InputError(f"--intrinsics: expected fx fy > 0 {whole}, got {fx:g} {fy:g}")
    view = 2 * np.degrees(np.arctan(max(width / (2 * fx), height / (2 * fy))))
    if not NARROWEST <= view <= WIDEST:
        raise InputError(
            f"--intrinsics: expected a field of view of {NARROWEST:g} to {WIDEST:g} degrees {whole}"
            f", got fx fy {fx:g} {fy:g}, which is one of {view:.1f} degrees"
        )
    if abs(cx / width - 0.5) > OFF_CENTRE or abs(cy / height - 0.5) > OFF_CENTRE:
        raise InputError(
            f"--intrinsics: expected cx cy near the middle {whole} (about {width / 2:g} "
            f"{height / 2:g}), got {cx:g} {cy:g}"
            + (f", as of an image of {2 * cx:.0f}x{2 * cy:.0f}" if min(cx, cy) > 0 else "")
        )
    off_side = max(abs(2 * cx / height - 1), abs(2 * cy / width - 1)) / 2
    if off_side < ON_ITS_SIDE and max(size) > LEAST_RATIO * min(size):
        raise InputError(
            f"--intrinsics: expected cx cy near the middle {whole}, got {cx:g} {cy:g}, as of an "
            f"image of {2 * cx:.0f}x{2 * cy:.0f}: frames are upright here; exchange fx with fy and "
            "cx with cy"
        )


def given_intrinsics(scene: Scene, values: Sequence[float], *, fixed: bool) -> KnownIntrinsics:
    """Return the user's fx fy cx cy (px of the video at its full size) in px of the scene.

    Raises:
        InputError: see `checked_intrinsics`.
    """
    options = scene.info.stages["frames"]["options"]
    full = options["source_height"], options["source_width"]
    checked_intrinsics(values, full)
    x, y = scene.info.width / full[1], scene.info.height / full[0]
    fx, fy, cx, cy = (value * s for value, s in zip(values, (x, y, x, y), strict=True))
    return KnownIntrinsics(fx, fy, cx, cy, fixed)


def lens_intrinsics(scene: Scene) -> KnownIntrinsics | None:
    """Return those of the undistorted images, in px of the scene; None where the lens is not known.

    Of several lenses, their mean.
    """
    lenses = scene.lenses
    if lenses is None:
        return None
    height, width = scene.size
    frames = range(len(scene)) if lenses.of_frame else range(1)
    k = np.mean([lenses[frame].intrinsics(width, height) for frame in frames], axis=0)
    fx, fy, cx, cy = (float(k[row, column]) for row, column in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return KnownIntrinsics(fx, fy, cx, cy, True)


def recorded_intrinsics(scene: Scene) -> KnownIntrinsics | None:
    """Return the start that the images recorded (EXIF), in px of the scene; None without one."""
    options = scene.info.stages.get("frames", {}).get("options", {})
    if "source_focal_px" not in options:
        return None
    height, width = scene.size
    focal = options["source_focal_px"] * width / options["source_width"]
    return KnownIntrinsics(focal, focal, width / 2, height / 2, False)
