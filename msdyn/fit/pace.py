"""How long a fit still takes, said once, from the pace of its first seconds."""

from __future__ import annotations

import time

from msdyn.estimates import shown_seconds
from msdyn.progress import Progress, write_note

__all__ = ["Pace"]

_PACE_SECONDS = 5.0
"""Seconds of steps from which the end is predicted."""


class Pace:
    """The pace of a fit since it was first looked at, before which kernels were compiled."""

    def __init__(self) -> None:
        self._start: tuple[int, float] | None = None
        self._told = False

    def tell_end(self, step: int, steps: int, progress: Progress) -> None:
        """Say once how long the steps that are left take, where no bar shows it."""
        now = time.perf_counter()
        if self._start is None:
            self._start = (step, now)
            return
        first, begin = self._start
        if self._told or now - begin < _PACE_SECONDS or progress.has_bar:
            return
        self._told = True
        left = (now - begin) / (step - first) * (steps - step)
        if left > _PACE_SECONDS:
            write_note(f"fit: at the pace of steps {first} to {step}, {shown_seconds(left)} more")
