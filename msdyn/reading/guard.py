"""Failures of reading: every one becomes an `InputError` of one line that names the file."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msdyn.errors import InputError, MsdynError

__all__ = ["reading", "reason", "required_file", "shown"]

_LONGEST = 200
_LONGEST_PATH = 1000
_OF_DATA = (None, errno.EINVAL, errno.EOVERFLOW, errno.ENAMETOOLONG)
"""Numbers of errors of the system that a damaged file causes, as of a seek to a negative place."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlong = 30


@contextlib.contextmanager
def reading(path: str | os.PathLike, what: str = "file", *, cure: str = "") -> Iterator[None]:
    """Turn what goes wrong in the block into an `InputError` that names the file.

    Everything that reads a file does so in such a block: a library may raise anything at all when
    it trusts what a damaged file says of itself. Errors of the system (no such file, no
    permission) and errors of msdyn pass; an `InputError` gets the name of the file in front.

    Args:
        path: of the file, or another name of what is read.
        what: it should be, for the message: "npz file", "image".
        cure: what to do, appended to the message.
    """
    try:
        yield
    except InputError as error:
        message, named = str(error), str(error).startswith(str(path))
        if named and cure in message:
            raise
        message = message if named else f"{path}: {message}"
        raise InputError(message if cure in message else message + cure) from error
    except MsdynError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: reading this {what} needs more memory than there is") from error
    except Exception as error:
        of_system = isinstance(error, OSError) and error.errno not in _OF_DATA
        if of_system or isinstance(error, FileNotFoundError):
            raise
        if isinstance(error, NameError | ImportError):  # of the program, not of the file
            raise
        raise InputError(f"{path}: not a readable {what} ({reason(error)}){cure}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of libraries written in Rust
            raise
        raise InputError(f"{path}: not a readable {what} ({reason(error)}){cure}") from error


def required_file(path: str | os.PathLike, cure: str = "") -> Path:
    """Return the path of a file that must exist.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    try:
        found = "\0" not in str(path) and path.is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        found = False
    if not found:
        name = str(path) if len(str(path)) < _LONGEST_PATH else f"{str(path)[:_LONGEST_PATH]}..."
        raise FileNotFoundError(f"{name}: no such file{cure}")
    return path


def reason(error: BaseException) -> str:
    """Return the message of an exception in one line of limited length, without colours."""
    text = re.sub(r"\x1b\[[0-9;]*m|[\x00-\x08\x0e-\x1f\x7f]", "", str(error))
    text = " ".join(text.split())[:_LONGEST]
    if isinstance(error, KeyError) and text:
        return f"{text} is missing"
    return text if len(text) > 3 else f"{type(error).__name__}{f': {text}' if text else ''}"


def shown(value: Any) -> str:
    """Return a value for a message, shortened."""
    return _SHORT.repr(value)
