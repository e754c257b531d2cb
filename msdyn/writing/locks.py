"""One writer per folder: locks that name the process which holds them.

A lock is the file `.msdyn.lock` in the folder. It is made with its content in one step (by a hard
link, or by exclusive creation where the file system has none), and removed when the writer ends,
also when it is interrupted. What a killed process left is recognised by its process
(`processes.py`) and taken over. Nothing here depends on flock or fcntl locks, which network file
systems may lack or keep to one machine; flock, where it works, only keeps two processes from taking
over the same old lock at a time. Of processes on other machines it cannot be told whether they
still run; then the message says which file to remove.

Reading needs no lock: every file is renamed when it is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msdyn.errors import InputError
from msdyn.interruption import forget_temporary, keep_temporary
from msdyn.writing.disk import disk_error
from msdyn.writing.files import opened_root, refuse_links, sweep, temporary_path
from msdyn.writing.processes import Process, has_ended, own_process

__all__ = ["LOCK", "forsake_lock", "writing_to"]

LOCK = ".msdyn.lock"
"""Name of the lock in its folder."""
_COMMAND_LENGTH = 160
# A lock without content, from a file system without hard links, is being written or was left so.
_EMPTY_SECONDS = 10.0
# Folders that a thread of this process has locked.
_held: dict[Path, int] = {}


@contextlib.contextmanager
def writing_to(folder: Path, *, inside: Path | None = None, cure: str = "") -> Iterator[Path]:
    """Make a folder, lock it for this thread, and remove what dead processes left half written.

    Within the block `atomic_path` refuses links below the folder. A thread that holds the lock may
    ask for it again. The folder is removed at the end if it was made here and is empty.

    Args:
        folder: may be a link to one.
        inside: the folder is within this one, as `fit` in a scene, and no link may lead out of it.
        cure: what to do besides waiting where another process has the lock; "choose another folder
            with --out" by default.

    Raises:
        InputError: another process is writing to the folder, it is a file, or a link leads to it.
        ResourceError: the disk does not let it be written.
    """
    if inside is not None:
        refuse_links(inside, folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, got a file")
    if _held.get(folder.resolve()) == threading.get_ident():
        yield folder
        return
    made = not folder.exists()
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        key = folder.resolve()
        _take(path, cure or "choose another folder with --out")
    except OSError as error:
        told = disk_error(error, folder)
        if told is None:
            raise
        raise told from error
    _held[key] = threading.get_ident()
    try:
        with opened_root(folder):
            sweep(folder)
            yield folder
    finally:
        del _held[key]
        _remove(path)
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def forsake_lock(folder: Path) -> None:
    """Remove the lock of a folder if a process of another machine has it.

    Whether that process still runs cannot be told from here: call this where it is known otherwise,
    as by who gave it its work.
    """
    path = folder / LOCK
    found = _read(path)
    if not found:
        return
    with contextlib.suppress(OSError, ValueError):
        if has_ended(Process.from_json(found)) is None:
            path.unlink()


def _take(path: Path, cure: str) -> None:
    """Make the lock.

    Raises:
        InputError: another process has it.
    """
    content = json.dumps(
        own_process().to_json() | {"command": _command(), "since": time.strftime("%Y-%m-%d %X")}
    )
    with _one_at_a_time(path.parent):
        if not _make(path, content):
            found = _read(path)
            if found is not None and not _is_left(found, path):
                raise InputError(_refusal(path, found, cure))
            # Renamed onto the old lock, so that there is no moment without one.
            temporary = temporary_path(path)
            temporary.write_text(content, encoding="utf-8")
            os.replace(temporary, path)
            # Without flock, another process may have taken it over in the same moment.
            found = _read(path) or {}
            if found.get("pid") != os.getpid():
                raise InputError(_refusal(path, found, cure))
    keep_temporary(path)


def _make(path: Path, content: str) -> bool:
    """Make the lock unless there is one; return whether it was made."""
    temporary = temporary_path(path)
    try:
        temporary.write_text(content, encoding="utf-8")
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # no hard links here
            try:
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                return False
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(content)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    """Return the content of a lock, {} if it is none, None if there is no file."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            value = json.loads(file.read(1 << 16))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_left(found: dict[str, Any], path: Path) -> bool:
    """Return whether a lock was left by a process that has ended."""
    try:
        process = Process.from_json(found)
    except ValueError:
        with contextlib.suppress(OSError):
            return time.time() - path.lstat().st_mtime > _EMPTY_SECONDS
        return True
    if process == own_process():
        return path.parent.resolve() not in _held  # else another thread has it
    return has_ended(process) is True


def _refusal(path: Path, found: dict[str, Any], cure: str) -> str:
    def text(name: str) -> str:
        value = found.get(name, "?")
        return "".join(c for c in str(value)[:_COMMAND_LENGTH] if c.isprintable())

    who = (
        f"{text('command')} (process {text('pid')} on {text('host')}, since {text('since')})"
        if "pid" in found
        else "another process"
    )
    with contextlib.suppress(ValueError):
        if has_ended(Process.from_json(found)) is None:
            cure += f", or remove {path} if that process has ended"
    return f"{path.parent}: {who} is writing here; wait until it has ended, or {cure}"


def _remove(path: Path) -> None:
    """Remove our lock."""
    forget_temporary(path)
    found = _read(path)
    with contextlib.suppress(OSError, ValueError):
        if found is not None and Process.from_json(found) == own_process():
            path.unlink()


def _command() -> str:
    name = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"
    return " ".join([name, *sys.argv[1:]])[:_COMMAND_LENGTH]


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait for other processes that are making a lock here, where flock works on folders."""
    handle = -1
    try:
        try:
            import fcntl

            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield
    finally:
        if handle >= 0:
            os.close(handle)
