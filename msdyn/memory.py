"""The most memory that a command may hold (`--max-memory`), and the end of one that holds more.

    with limited_memory("8G"):
        for frame in frames:
            require_memory()

Stages and counted loops (`msdyn.progress`) call `require_memory`; code with results worth keeping
asks `memory_excess` and saves them first. What counts is what `held_memory` returns: files that are
mapped are not in it.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from msdyn.errors import InputError, ResourceError
from msdyn.interruption import told
from msdyn.machine_limits import give_back_memory, held_memory
from msdyn.options import Pattern

__all__ = [
    "MemorySize",
    "bytes_of",
    "limited_memory",
    "memory_excess",
    "require_memory",
    "shown_bytes",
]

_SIZE = Pattern(
    r"(?=[\d.]*[1-9])(\d{1,6}(?:\.\d{1,6})?)(?:([MGTmgt])[Bb]?)?",
    "a size above 0 such as 8G or 500M (a number alone is in GB)",
    "SIZE",
)
_UNITS = {"M": 10**6, "G": 10**9, "T": 10**12}
_PERIOD = 0.1
"""Seconds between two looks at the memory, which take some 30 microseconds each."""

MemorySize: TypeAlias = Annotated[str, _SIZE]
"""The type of an option that limits memory; see `bytes_of`."""


@dataclass
class _Limit:
    """A limit as it was given, and when it was last looked at."""

    text: str
    bytes: int
    looked: float = -1e9


_limit: ContextVar[_Limit | None] = ContextVar("memory limit", default=None)


def bytes_of(size: str) -> int:
    """Return the bytes of a size such as "8G", "500M" or "1.5" (GB, of 1e9 bytes).

    Raises:
        InputError: another text.
    """
    found = re.fullmatch(_SIZE.expression, size)
    if not found:
        raise InputError(f"expected {_SIZE.text}, got {size!r}")
    return max(1, round(float(found[1]) * _UNITS[(found[2] or "G").upper()]))


def shown_bytes(count: float) -> str:
    """Return a number of bytes for a message: "1.2 GB", "60 MB"."""
    for unit, name in ((1e12, "TB"), (1e9, "GB")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g} {name}"
    return f"{max(1, round(count / 1e6))} MB"


@contextlib.contextmanager
def limited_memory(size: str | None) -> Iterator[None]:
    """Limit the memory that this process may hold in the block, in the present thread.

    Args:
        size: as of `bytes_of`; None for no limit.
    """
    token = _limit.set(None if size is None else _Limit(size, bytes_of(size)))
    try:
        yield
    finally:
        _limit.reset(token)


def memory_excess() -> str | None:
    """Return what is held beyond the limit, in words; None if the limit is kept, or there is none.

    At most every tenth of a second the memory is looked at. What is free within it does not count.
    """
    limit = _limit.get()
    if limit is None or (now := time.monotonic()) - limit.looked < _PERIOD:
        return None
    limit.looked = now
    held = held_memory()
    if held is not None and held > limit.bytes:
        give_back_memory()
        held = held_memory()
    if held is None or held <= limit.bytes:
        return None
    return f"{shown_bytes(held)} of memory are in use, more than --max-memory {limit.text}"


def require_memory() -> None:
    """Raise where more memory is held than is allowed.

    Raises:
        ResourceError: with both sizes, and what the same command does with a greater limit.
    """
    excess = memory_excess()
    if excess is not None:
        raise ResourceError(f"{excess}; {told()}, with a greater --max-memory")
