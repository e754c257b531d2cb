"""Errors of the disk: recognised whoever reports them, and told in one line.

Libraries report a full disk in their own way: numpy by an OSError without number, safetensors, the
database of COLMAP and torch by exceptions of their own. What they say is therefore looked up in the
text, and a file that could not be written is tried once more.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from msdyn.errors import MsdynError, ResourceError

__all__ = ["disk_error", "full_disk", "refused_space", "require_space"]

_CURES = {
    errno.ENOSPC: "free some space and give the same command again",
    errno.EDQUOT: "free some of your quota and give the same command again",
    errno.EFBIG: "the system limits the size of files (ulimit -f)",
    errno.EROFS: "choose a folder that can be written to, with --out",
    errno.EACCES: "choose a folder that you may write to, with --out",
    errno.EPERM: "choose a folder that you may write to, with --out",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "the machine has too many files open; end other programs",
    errno.EIO: "the disk, or the connection to it, is faulty",
    errno.ESTALE: "the network folder has been taken away",
    errno.ENOTCONN: "the network folder has been taken away",
    errno.EHOSTDOWN: "the network folder has been taken away",
    errno.ENOMEM: "the memory is full; end other programs, or choose smaller images",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMLINK: "choose another folder with --out",
}
"""What to do, by the number of the error."""
_DENIED = (errno.EACCES, errno.EPERM)
_NUMBER = re.compile(r"(?:\[Errno |\bos error |\berrno[ =:]+)(\d+)", re.IGNORECASE)
_TEXTS = {
    "no space left on device": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "disk quota exceeded": errno.EDQUOT,
    "file too large": errno.EFBIG,
    "read-only file system": errno.EROFS,
    "attempt to write a readonly database": errno.EROFS,
    "too many open files": errno.EMFILE,
    "input/output error": errno.EIO,
    "stale file handle": errno.ESTALE,
    "cannot allocate memory": errno.ENOMEM,
    "can't allocate memory": errno.ENOMEM,
    "out of memory": errno.ENOMEM,
}
_PROBE = 1 << 16


def disk_error(error: BaseException, path: Path | str | None = None) -> ResourceError | None:
    """Return what an exception, or what caused it, says of the disk or memory; None if nothing.

    Args:
        error: of any kind.
        path: what was written, where the error does not name it.
    """
    for link in _chain(error):
        if isinstance(link, MsdynError):
            return link if isinstance(link, ResourceError) else None
        number = _number_of(link)
        if number is None:
            continue
        named = getattr(link, "filename", None) or path
        if number in _DENIED and path is None and not _is_of_writing(named):
            return None
        return _told(number, named)
    return None


def full_disk(error: BaseException, folder: Path) -> ResourceError | None:
    """Return `disk_error` if a disk is full: that of `folder`, where the error does not say it."""
    for link in _chain(error):
        number = _number_of(link)
        if number in (errno.ENOSPC, errno.EDQUOT):
            return _told(number, getattr(link, "filename", None) or folder)
    return None


def require_space(folder: Path, size: int, cure: str) -> None:
    """Raise if a disk has not got so many bytes, for libraries that abort when it is full.

    Raises:
        ResourceError: with the folder, both sizes and the cure.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return
    if free < size:
        raise ResourceError(
            f"{folder}: {size / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free; {cure}"
        )


def refused_space(path: Path) -> ResourceError | None:
    """Return why a file cannot grow, None if it can.

    Args:
        path: a file of our own that has just failed to be written; it is lengthened.
    """
    try:
        with path.open("ab") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return _told(error.errno, path) if error.errno in _CURES else None
    return None


def _told(number: int, path: Path | str | bytes | None) -> ResourceError:
    where = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
    where = "" if number == errno.ENOMEM else where
    told = os.strerror(number)
    return ResourceError(f"{where + ': ' if where else ''}{told}; {_CURES[number]}")


def _number_of(error: BaseException) -> int | None:
    """Return the number of an error that has a remedy above."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number:
        return number if number in _CURES else None
    text = str(error)
    with contextlib.suppress(ValueError):
        for found in _NUMBER.findall(text):
            if int(found) in _CURES:
                return int(found)
    lowered = text.lower()
    return next((number for words, number in _TEXTS.items() if words in lowered), None)


def _is_of_writing(name: object) -> bool:
    """Return whether a refused permission was that of writing: the file can be read, or is new."""
    if not isinstance(name, str | os.PathLike):
        return False
    return not os.path.exists(name) or os.access(name, os.R_OK)


def _chain(error: BaseException) -> Iterable[BaseException]:
    seen: set[int] = set()

    def follow(link: BaseException | None) -> Iterator[BaseException]:
        while link is not None and id(link) not in seen:
            seen.add(id(link))
            yield link
            link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)

    return follow(error)
