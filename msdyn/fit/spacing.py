"""The finest spacing at which a choice of points or tracks is small enough."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Int

__all__ = ["finest_choice"]


def finest_choice(
    choose: Callable[[float], Int[np.ndarray, " chosen"]],
    fits: Callable[[Int[np.ndarray, " chosen"]], bool],
    low: float,
    high: float,
    steps: int,
) -> tuple[Int[np.ndarray, " chosen"] | None, float]:
    """Return the choice of the smallest spacing that fits, by bisection on a logarithmic scale.

    Args:
        choose: returns the choice at a spacing; greater ones give fewer.
        fits: whether a choice is small enough.
        low, high: spacings between which to look.
        steps: of the bisection.

    Returns:
        The choice, None if none of those tried fits, and its spacing, or `high`.
    """
    kept = None
    for _ in range(steps):
        middle = math.sqrt(low * high)
        tried = choose(middle)
        if fits(tried):
            kept, high = tried, middle
        else:
            low = middle
    return kept, high
