"""Temporal consistency: what should not move and does, and how smoothly the rest moves."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8

__all__ = ["acceleration_error", "flicker", "jitter"]


def jitter(tracks: Float[np.ndarray, "points times 3"]) -> float:
    """Return how much points that stand still move: root mean square step from frame to frame.

    Args:
        tracks: estimated trajectories of points that truly stand still, scene units.

    Returns:
        Scene units a frame; NaN without points or with one frame.
    """
    steps = np.diff(tracks, axis=1)
    return float(np.sqrt((steps**2).sum(-1).mean())) if steps.size else float("nan")


def acceleration_error(
    tracks: Float[np.ndarray, "points times 3"], truth: Float[np.ndarray, "points times 3"]
) -> float:
    """Return the mean distance between estimated and true accelerations (second differences).

    A trajectory that is off by a constant, or by a constant velocity, has none.

    Returns:
        Scene units a frame squared; NaN without points or with fewer than three frames.
    """
    apart = np.diff(tracks - truth, n=2, axis=1)
    return float(np.linalg.norm(apart, axis=-1).mean()) if apart.size else float("nan")


def flicker(
    images: UInt8[np.ndarray, "times height width 3"],
    truth: UInt8[np.ndarray, "times height width 3"],
    mask: Bool[np.ndarray, "times height width"] | None = None,
    *,
    tolerance: int = 2,
) -> float:
    """Return how much the picture of a camera that stands still changes where it should not.

    Args:
        images: renders of successive frames.
        truth: what the camera saw.
        mask: which pixels count.
        tolerance: pixels whose true colour changes by no more than this (of 255) from a frame to
            the next stand still.

    Returns:
        Mean absolute change of the renders from frame to frame over those pixels, in [0, 1]; NaN
        where no pixel stands still.
    """
    change = np.abs(np.diff(images.astype(np.int16), axis=0)).mean(-1)
    still = np.abs(np.diff(truth.astype(np.int16), axis=0)).max(-1) <= tolerance
    if mask is not None:
        still &= mask[1:] & mask[:-1]
    return float(change[still].mean() / 255) if still.any() else float("nan")
