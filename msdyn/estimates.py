"""What work is expected to take, said before it begins.

Layers estimate their own work: `fit/estimate.py`, `preprocess/estimate.py`, `render/estimate.py`,
`feedforward/estimate.py`. `tools/calibrate_estimates.py` compares them with what is measured.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from msdyn.errors import ResourceError
from msdyn.machine_limits import available_memory
from msdyn.memory import bytes_of, shown_bytes
from msdyn.progress import write_note

__all__ = ["Estimate", "announce", "shown_seconds"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimate:
    """What some work is expected to take.

    Attributes:
        memory: bytes held at most, of the process as a whole; those of a GPU and of files that are
            mapped are not counted.
        disk: bytes of the files that are written, the largest at a time.
        seconds: on two cores, or None where they depend on what is not known.
    """

    memory: float
    disk: float
    seconds: float | None = None

    @property
    def text(self) -> str:
        """The estimate in words."""
        parts = [f"about {shown_bytes(self.memory)} of memory", f"{shown_bytes(self.disk)} of disk"]
        if self.seconds is not None:
            parts.append(f"roughly {shown_seconds(self.seconds)} (two cores)")
        return ", ".join(parts)


def announce(
    work: str,
    estimate: Estimate,
    max_memory: str | None,
    smaller: Iterable[tuple[str, Estimate]] = (),
    *,
    besides: str = "",
) -> None:
    """Say what work is expected to take; refuse it where that is more than is allowed.

    Without a limit, memory that this machine does not have is a warning only: an estimate may be
    wrong, and the system may swap.

    Args:
        work: name of it, for the messages.
        estimate: of it.
        max_memory: the limit, as of `bytes_of`; None if none is given.
        smaller: options that need less memory, with their estimates; the first that fits is named.
        besides: what is needed besides, and is not estimated; added to the line.

    Raises:
        ResourceError: the estimate is beyond the limit.
    """
    needed = shown_bytes(estimate.memory)
    if max_memory is not None and estimate.memory > (limit := bytes_of(max_memory)):
        raise ResourceError(
            f"{work}: about {needed} of memory would be needed, more than --max-memory "
            f"{max_memory}; {_cure(limit, smaller)}"
        )
    write_note(f"{work}: {estimate.text}{besides}")
    available = available_memory() if max_memory is None else None
    if available is not None and estimate.memory > available:
        _log.warning(
            "warning: %s: about %s of memory may be needed, and %s are available; %s",
            work, needed, shown_bytes(available), _cure(available, smaller),
        )  # fmt: skip


def shown_seconds(seconds: float) -> str:
    """Return a duration for a message: "40 s", "6 min", "2.5 h"."""
    if seconds < 55:
        return f"{max(1, round(seconds, -1 if seconds >= 10 else 0)):.0f} s"
    if seconds < 5400:
        return f"{max(1, seconds / 60):.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"


def _cure(limit: float, smaller: Iterable[tuple[str, Estimate]]) -> str:
    """Return the first of the options that fits into a limit, in words."""
    last = None
    for option, estimate in smaller:
        last = (option, estimate)
        if estimate.memory <= limit:
            return f"{option} would need about {shown_bytes(estimate.memory)}"
    if last is None:
        return "a machine with more memory is needed"
    return f"even {last[0]} would need about {shown_bytes(last[1].memory)}"
