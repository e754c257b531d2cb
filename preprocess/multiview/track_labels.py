"""Which object each track lies on, by the vote of the masks over its life."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from msdyn.scene import IGNORE, STATIC, Tracks

__all__ = ["assign_objects", "number_objects"]

# A track whose masks agree less than this has slipped from one surface to another.
MIN_AGREEMENT = 0.7


def assign_objects(tracks: Tracks, masks: Iterable[np.ndarray]) -> np.ndarray:
    """Return the object [N] int32 that the masks show under each track.

    A track gets the label under most of its visible life. It gets -1 (unknown) where less than
    `MIN_AGREEMENT` of the votes go to that label, and where every pixel under it is ignored.

    Args:
        tracks: N tracks through T frames.
        masks: T index masks [H, W] uint8.
    """
    votes = np.zeros((len(tracks), 1), np.uint16)  # a column for each label met so far
    for frame, mask in enumerate(masks):
        rows, xy = tracks.at(frame)
        column, row = np.floor(xy).astype(int).T
        height, width = mask.shape
        label = mask[row.clip(0, height - 1), column.clip(0, width - 1)]
        rows, label = rows[label != IGNORE], label[label != IGNORE]
        more = int(label.max(initial=0)) + 1 - votes.shape[1]
        if more > 0:
            votes = np.pad(votes, ((0, 0), (0, more)))
        votes[rows, label] += 1
    most, winner = votes.max(1), votes.argmax(1)
    agreed = (most > 0) & (most >= MIN_AGREEMENT * votes.sum(1))
    return np.where(agreed, winner, -1).astype(np.int32)


def number_objects(present: set[int], tracked: set[int]) -> np.ndarray:
    """Return the table [256] uint8 from the labels of masks to those that are written.

    Objects that have tracks become 1, 2, ... in their order. An object without a track cannot be
    moved by a fit, so its pixels are ignored rather than taken for static.

    Args:
        present: labels that the masks show.
        tracked: labels that some track has.
    """
    table = np.zeros(256, np.uint8)
    table[IGNORE] = IGNORE
    objects = sorted(present - {STATIC, IGNORE})
    for label in objects:
        table[label] = IGNORE
    for number, label in enumerate((label for label in objects if label in tracked), start=1):
        table[label] = number
    return table
