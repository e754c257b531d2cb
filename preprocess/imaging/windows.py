"""Boxes around the pixels of masks."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Shaped

__all__ = ["Window", "window_of"]

Window = tuple[slice, slice]
"""Rows and columns of an image."""


def window_of(
    mask: Shaped[np.ndarray, "height width"], margin_px: int = 0, margin_share: float = 0.0
) -> Window | None:
    """Return the box of the nonzero pixels within the image, None where there are none.

    Args:
        mask: [H, W].
        margin_px: added on every side.
        margin_share: added on every side too, as a share of the box's height or width.
    """
    sides = []
    for axis, length in ((1, mask.shape[0]), (0, mask.shape[1])):
        inside = np.flatnonzero(mask.any(axis))
        if not len(inside):
            return None
        low, high = int(inside[0]), int(inside[-1]) + 1
        margin = margin_px + math.ceil(margin_share * (high - low))
        sides.append(slice(max(0, low - margin), min(length, high + margin)))
    return sides[0], sides[1]
