"""Choices of indices."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

__all__ = ["evenly_spaced"]


def evenly_spaced(length: int, count: int) -> Int[np.ndarray, " chosen"]:
    """Return at most `count` evenly spaced indices of `range(length)`, the first and last included.

    Args:
        length: of what is chosen from; nothing is chosen from nothing.
        count: how many at most. Of a single one, only the first is chosen.
    """
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int))
