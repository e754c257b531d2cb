"""The focal length that a camera wrote into its images (EXIF).

Reference: Exif 2.32 (CIPA DC-008), tags FocalLength (37386), FocalPlaneXResolution (41486),
FocalPlaneResolutionUnit (41488), PixelXDimension (40962), FocalLengthIn35mmFilm (41989). The last
one is of the diagonal: of an image of a full frame of 36x24 mm (CIPA DCG-001).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msdyn.errors import InputError
from msdyn.reading import opened_image

__all__ = ["RecordedFocal", "read_focal"]

FULL_FRAME_MM = float(np.hypot(36, 24))
_EXIF = 0x8769
_FOCAL, _FOCAL_35, _PLANE_RESOLUTION, _PLANE_UNIT = 37386, 41989, 41486, 41488
_WIDTH, _HEIGHT = 40962, 40963
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
SAME = 0.01  # relative difference of focal lengths, above which a lens zooms
ASPECT = 0.02  # relative difference of the shape of the recorded and the stored size: cropped


@dataclass(frozen=True)
class RecordedFocal:
    """A focal length of a folder of images.

    Attributes:
        px: of the images at their full size.
        text: where it is from, in words.
    """

    px: float
    text: str


def read_focal(files: Sequence[Path], size: tuple[int, int]) -> RecordedFocal | None:
    """Return the focal length recorded in images, None unless all have the same one.

    Args:
        files: of the images.
        size: their width and height, px.
    """
    found: list[RecordedFocal] = []
    for file in files:
        focal = _read(file, size)
        if focal is None or (found and abs(focal.px / found[0].px - 1) > SAME):
            return None
        found.append(focal)
    return found[0] if found else None


def _read(path: Path, size: tuple[int, int]) -> RecordedFocal | None:
    """Return the focal length recorded in an image, None without one or if it was cropped."""
    try:
        with opened_image(path) as image:
            tags: dict[int, Any] = dict(image.getexif().get_ifd(_EXIF))
    except InputError:
        return None
    taken = _number(tags.get(_WIDTH)), _number(tags.get(_HEIGHT))
    if taken[0] and taken[1] and abs(_shape(*taken) / _shape(*size) - 1) > ASPECT:
        return None
    equivalent = _number(tags.get(_FOCAL_35))
    if equivalent:
        px = equivalent * float(np.hypot(*size)) / FULL_FRAME_MM
        return _plausible(px, size, f"EXIF: {equivalent:g} mm, as on full frame")
    focal, resolution = _number(tags.get(_FOCAL)), _number(tags.get(_PLANE_RESOLUTION))
    unit = _MM_PER_UNIT.get(int(_number(tags.get(_PLANE_UNIT)) or 2))
    if focal and resolution and unit and taken[0]:
        sensor_mm = taken[0] * unit / resolution  # along the width as taken, as the focal length
        px = focal * (max(size) if taken[0] >= taken[1] else min(size)) / sensor_mm
        return _plausible(px, size, f"EXIF: {focal:g} mm, sensor {sensor_mm:.1f} mm wide")
    return None


def _plausible(px: float, size: tuple[int, int], text: str) -> RecordedFocal | None:
    """Return a focal length if its field of view is between 5 and 170 degrees, else None."""
    view = 2 * np.degrees(np.arctan(max(size) / (2 * px)))
    return RecordedFocal(px, text) if 5 <= view <= 170 else None  # noqa: PLR2004


def _shape(width: float, height: float) -> float:
    """Return the aspect ratio, upright or not."""
    return max(width, height) / min(width, height)


def _number(value: Any) -> float:
    """Return a finite positive number of a tag, else 0."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if np.isfinite(number) and number > 0 else 0.0
