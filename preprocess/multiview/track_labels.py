"""The object that each track lies on, by a vote of the masks over its life."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int32, UInt8

from msdyn.geometry import nearest_pixels
from msdyn.preprocess.contracts import Mask
from msdyn.scene import IGNORE, STATIC, Tracks

__all__ = ["assign_objects", "number_objects"]

# A track with less agreement has drifted from one surface to another.
MIN_AGREEMENT = 0.7


def assign_objects(tracks: Tracks, masks: Iterable[Mask]) -> Int32[np.ndarray, " tracks"]:
    """Return the object [N] of each track.

    That is the label of the masks at most of its visible positions. It is -1 (unknown) where less
    than `MIN_AGREEMENT` of the votes are for that label, and where all of its pixels are ignored.

    Args:
        tracks: N tracks through T frames.
        masks: T index masks [H, W].
    """
    votes = np.zeros((len(tracks), 1), np.uint16)  # a column per label
    for frame, mask in enumerate(masks):
        rows, xy = tracks.at(frame)
        row, column, _ = nearest_pixels(xy, *mask.shape)
        label = mask[row, column]
        rows, label = rows[label != IGNORE], label[label != IGNORE]
        more = int(label.max(initial=0)) + 1 - votes.shape[1]
        if more > 0:
            votes = np.pad(votes, ((0, 0), (0, more)))
        votes[rows, label] += 1
    most, winner = votes.max(1), votes.argmax(1)
    agreed = (most > 0) & (most >= MIN_AGREEMENT * votes.sum(1))
    return np.where(agreed, winner, -1).astype(np.int32)


def number_objects(present: set[int], tracked: set[int]) -> UInt8[np.ndarray, " 256"]:
    """Return the table from the labels of masks to those that are written.

    Objects with tracks become 1, 2, ... in their order. The motion of an object without a track
    cannot be fitted, so its pixels are ignored rather than taken for static.

    Args:
        present: labels in the masks.
        tracked: labels of the tracks.
    """
    table = np.zeros(256, np.uint8)
    table[IGNORE] = IGNORE
    objects = sorted(present - {STATIC, IGNORE})
    for label in objects:
        table[label] = IGNORE
    for number, label in enumerate((label for label in objects if label in tracked), start=1):
        table[label] = number
    return table
