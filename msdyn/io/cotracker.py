"""CoTracker's point tracks, in an npz.

    pred_tracks (or tracks)           [1, T, N, 2] or [T, N, 2] pixels, x then y
    pred_visibility (or visibility)   [1, T, N] or [T, N], bool or a probability

The centre of the first pixel is at (0, 0); in msdyn it is at (0.5, 0.5).

Reference: Karaev et al., "CoTracker3", 2024; github.com/facebookresearch/co-tracker.
"""

from __future__ import annotations

import os

import numpy as np
from jaxtyping import Bool, Real

from msdyn.errors import InputError
from msdyn.reading import load_npz
from msdyn.scene import Tracks

__all__ = ["read_cotracker", "tracks_of_cotracker"]

_VISIBLE = 0.5
"""Minimum probability of a visible observation."""


def read_cotracker(path: str | os.PathLike) -> Tracks:
    """Read the tracks of an npz in CoTracker's layout.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: an array is missing or of another shape.
    """
    try:
        arrays = load_npz(path, ("pred_tracks", "pred_visibility"))
    except InputError:
        arrays = load_npz(path, ("tracks", "visibility"))
    xy, visibility = arrays.values()
    try:
        return tracks_of_cotracker(xy, visibility)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def tracks_of_cotracker(
    xy: Real[np.ndarray, " ..."], visibility: Real[np.ndarray, " ..."] | Bool[np.ndarray, " ..."]
) -> Tracks:
    """Return tracks from CoTracker's output; each starts in the first frame in which it is visible.

    Args:
        xy: [frames, tracks, 2], possibly with a batch of one before; px, the first pixel's centre
            at (0, 0).
        visibility: [frames, tracks], likewise; bool or a probability, which becomes the confidence.

    Raises:
        InputError: other shapes.
    """
    xy = xy[0] if xy.ndim == 4 and len(xy) == 1 else xy
    visibility = visibility[0] if visibility.ndim == 3 and len(visibility) == 1 else visibility
    if xy.ndim != 3 or xy.shape[2] != 2 or visibility.shape != xy.shape[:2]:
        raise InputError(
            "expected tracks [frames, tracks, 2] and visibility [frames, tracks], "
            f"got {xy.shape} and {visibility.shape}"
        )
    confidence = visibility.astype(np.float32).T
    positions = (xy.astype(np.float32) + np.float32(0.5)).swapaxes(0, 1)
    visible = (confidence > _VISIBLE) & np.isfinite(positions).all(-1)
    observed = visible.any(1)
    visible, positions = visible[observed], positions[observed]
    confidence = np.where(visible, confidence[observed].clip(0, 1), 0)
    return Tracks.from_dense(
        np.where(visible[..., None], positions, 0),
        visible,
        confidence,
        np.full(len(visible), -1),
        visible.argmax(1) if len(visible) else np.zeros(0, int),
    )
