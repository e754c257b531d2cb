"""What the machine, its container and its limits leave to this process: memory, cores, its own use.

Memory counts without what belongs to files (mapped images, the code of libraries), which the system
takes back when it needs room. Figures that a system does not give are None.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = [
    "available_memory",
    "core_count",
    "give_back_memory",
    "held_memory",
    "limit_of_group",
    "total_memory",
]

_PROC = Path("/proc")
_GROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 2**60
"""Bytes; the older kind of control groups writes a number of this size for no limit."""


def held_memory(process: int | str = "self") -> int | None:
    """Return the bytes of memory that a process holds, without those of files.

    Args:
        process: its number; by default this one.
    """
    status = _fields(_PROC / str(process) / "status")
    if "RssAnon" in status:
        return status["RssAnon"] + status.get("RssShmem", 0)
    if "VmRSS" in status:
        return status["VmRSS"]
    return _largest_so_far() if process == "self" else None


def give_back_memory() -> None:
    """Give free memory between what is in use back to the system, where the C library can.

    Large arrays that have come and gone leave it there; it takes some milliseconds.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


def total_memory() -> int:
    """Return the memory of this machine, or of the container, in bytes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [limit for limit, _ in _group_memory()]
    return min([total, *limits])


def available_memory() -> int | None:
    """Return the bytes that this process may hold: those it holds, and those it can still get.

    The least of what the machine has free, what its control groups leave, and its limit of
    addresses (`ulimit -v`).
    """
    held = held_memory() or 0
    left = []
    free = _fields(_PROC / "meminfo").get("MemAvailable")
    if free is not None:
        left.append(free)
    left += [limit - used for limit, used in _group_memory()]
    addresses = _address_limit()
    if addresses is not None:
        left.append(addresses - _fields(_PROC / "self" / "status").get("VmSize", 0))
    return held + max(0, min(left)) if left else None


def core_count() -> int:
    """Return how many cores this process may use at a time."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    for folder in _own_groups("cpu"):
        share = _cpu_share(folder)
        if share is not None:
            cores = min(cores, max(1, math.ceil(share)))
    return cores


def limit_of_group(folder: Path) -> tuple[int, int] | None:
    """Return the bytes that a control group may use, and uses now; None if it has no limit.

    What it uses is counted without the files that are not in use.

    Args:
        folder: of the group, of either kind.
    """
    for most, now, unused in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit = _number(folder / most)
        if limit is not None:
            used = (_number(folder / now) or 0) - _statistic(folder / "memory.stat", unused)
            return (limit, max(0, used)) if limit < _UNLIMITED else None
    return None


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """Return `malloc_trim` of glibc; None for another C library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


def _group_memory() -> list[tuple[int, int]]:
    """Return the limits of the control groups of this process, each with what is used of it."""
    found = (limit_of_group(folder) for folder in _own_groups("memory"))
    return [limit for limit in found if limit is not None]


def _own_groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups of this process, from its own to the outermost.

    In a container the path that the kernel names may lie outside; then there is the outermost.
    """
    try:
        lines = (_PROC / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            root = _GROUPS
        elif controller in names.split(","):
            root = _GROUPS / controller
        else:
            continue
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_dir() and (folder == root or root in folder.parents):
                yield folder


def _cpu_share(folder: Path) -> float | None:
    """Return how many cores a control group may use, None if it has no limit."""
    try:
        quota, _, period = (folder / "cpu.max").read_text(encoding="ascii").strip().partition(" ")
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass  # of the other kind, or "max"
    older, every = (_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return older / every if older and every else None


def _address_limit() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def _largest_so_far() -> int | None:
    """Return the most memory that this process has held, where nothing says what it holds now."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if os.uname().sysname == "Darwin" else 1024 * most


def _fields(path: Path) -> dict[str, int]:
    """Return the fields in kB of a file of /proc, in bytes; none where there is no such file."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    parts = [line.replace(":", " ").split() for line in lines]
    return {part[0]: 1024 * int(part[1]) for part in parts if len(part) == 3 and part[2] == "kB"}


def _number(path: Path) -> int | None:
    """Return the number in a file; None where there is no such file, or no number."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdecimal() else None


def _statistic(path: Path, name: str) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return 0
    found = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
    return int(found[0]) if found and found[0].isdecimal() else 0
