"""Temporal consistency: jitter of static points, smoothness of motion, flicker of static pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8

__all__ = ["acceleration_error", "flicker", "jitter"]


def jitter(tracks: Float[np.ndarray, "points times 3"]) -> float:
    """Return the root mean square displacement of static points between successive frames.

    Args:
        tracks: estimated trajectories of truly static points, scene units.

    Returns:
        Scene units per frame; NaN without points or with one frame.
    """
    steps = np.diff(tracks, axis=1)
    return float(np.sqrt((steps**2).sum(-1).mean())) if steps.size else float("nan")


def acceleration_error(
    tracks: Float[np.ndarray, "points times 3"], truth: Float[np.ndarray, "points times 3"]
) -> float:
    """Return the mean distance between estimated and true accelerations (second differences).

    A constant offset or a constant velocity of the error does not count.

    Returns:
        Scene units per frame squared; NaN without points or with fewer than three frames.
    """
    error = np.diff(tracks - truth, n=2, axis=1)
    return float(np.linalg.norm(error, axis=-1).mean()) if error.size else float("nan")


def flicker(
    images: UInt8[np.ndarray, "times height width 3"],
    truth: UInt8[np.ndarray, "times height width 3"],
    mask: Bool[np.ndarray, "times height width"] | None = None,
    *,
    tolerance: int = 2,
) -> float:
    """Return the temporal change of renders of a static camera at static pixels.

    Args:
        images: renders of successive frames.
        truth: true images of that camera.
        mask: which pixels count; all by default.
        tolerance: largest change of the true colour (of 255) between successive frames of a static
            pixel.

    Returns:
        Mean absolute change of the renders between successive frames over those pixels, in [0, 1];
        NaN without static pixels.
    """
    change = np.abs(np.diff(images.astype(np.int16), axis=0)).mean(-1)
    static = np.abs(np.diff(truth.astype(np.int16), axis=0)).max(-1) <= tolerance
    if mask is not None:
        static &= mask[1:] & mask[:-1]
    return float(change[static].mean() / 255) if static.any() else float("nan")
