"""Which process made a lock or a temporary file, and whether it still runs.

A process is known by its number, the moment at which it began, the boot of the machine, the space
of process numbers (containers have their own) and the name of the machine. So a number that is used
again, and a machine that was started again, are recognised, where the system has `/proc`. Elsewhere
the number alone counts. Of a process on another machine nothing is known.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Process", "has_ended", "own_process", "own_tag", "tag_has_ended"]

_TAG = re.compile(r"([0-9a-f]+)-([0-9a-f]+)-([0-9a-f]{8})-([0-9a-f]{8})")


@dataclass(frozen=True)
class Process:
    """A process of some machine.

    Attributes:
        pid: its number.
        began: clock ticks from the boot to its begin; 0 if unknown.
        boot: identifier of the boot of its machine; empty if unknown.
        space: of process numbers; empty if unknown.
        host: name of its machine.
    """

    pid: int
    began: int
    boot: str
    space: str
    host: str

    @classmethod
    def from_json(cls, value: Any) -> Process:
        """Return the process that `to_json` described.

        Raises:
            ValueError: the value is not such a description.
        """
        kinds = {"pid": int, "began": int, "boot": str, "space": str, "host": str}
        if not isinstance(value, dict) or any(
            type(value.get(name)) is not kind for name, kind in kinds.items()
        ):
            raise ValueError("expected pid, began, boot, space and host")
        return cls(**{name: value[name] for name in kinds})

    def to_json(self) -> dict[str, Any]:
        """Return its attributes."""
        return asdict(self)

    @property
    def tag(self) -> str:
        """A short text for names of files, which `tag_has_ended` understands."""
        return f"{self.pid:x}-{self.began:x}-{_short(self.boot + self.space)}-{_short(self.host)}"


def own_process() -> Process:
    """Return this process."""
    return _process(os.getpid())  # cached by number: a forked child is another one


def own_tag() -> str:
    """Return the tag of this process."""
    return own_process().tag


def has_ended(process: Process) -> bool | None:
    """Return whether a process has ended; None where that cannot be told from here."""
    here = own_process()
    if process.boot != here.boot:
        return True if process.host == here.host else None
    if process.space != here.space or (not process.boot and process.host != here.host):
        return None
    return _number_has_ended(process.pid, process.began)


def tag_has_ended(tag: str) -> bool | None:
    """Return `has_ended` of the process with a tag."""
    match = _TAG.fullmatch(tag)
    if match is None:
        return None
    here = own_process()
    if match[3] != _short(here.boot + here.space):
        # Another boot of this machine, unless it has several spaces of process numbers.
        return True if match[4] == _short(here.host) else None
    return _number_has_ended(int(match[1], 16), int(match[2], 16))


def _number_has_ended(pid: int, began: int) -> bool:
    if pid < 1:
        return True
    found = _state_and_begin(pid)
    if found is not None:
        state, begin = found
        return state in "ZX" or bool(began and begin and begin != began)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _state_and_begin(pid: int) -> tuple[str, int] | None:
    """Return state and begin of a process by `/proc`, None where that says nothing."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text[text.rindex(")") + 1 :].split()  # its name may have spaces
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


@functools.cache
def _process(pid: int) -> Process:
    found = _state_and_begin(pid)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return Process(pid, found[1] if found else 0, boot, space, socket.gethostname())


def _short(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
