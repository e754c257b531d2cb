"""Lines of JSON for programs that run a command: `--progress json`, or `MSDYN_PROGRESS=json`.

Each line on stderr is an object with these fields; more may be added:

- `event`: `start`, `stage`, `progress`, `stage_end`, `note`, `error` or `exit`;
- `time`: seconds since the epoch;
- of a stage: `stage` (its name), `within` (names of the stages around it, the outermost first),
  `seconds`, and if its steps are counted `unit`, `done`, `total` (null if not known), `left`
  (estimated seconds, null if not known) and `figures`; at its end also `failed`;
- of a note or an error: `text`;
- of the start: `command`, `version` and `format`, the version of these fields;
- of the exit: `code`.

A stage of less than `BRIEF` seconds has no lines. Results are printed to stdout as without it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Literal, get_args

from msdyn.errors import InputError
from msdyn.version import __version__

__all__ = [
    "FORMAT",
    "Mode",
    "are_json",
    "are_off",
    "as_text",
    "choose",
    "emit",
    "event_line",
    "start",
]

FORMAT = 1
"""Version of the fields; raised if one changes its meaning."""
BRIEF = 0.25
"""Stages of fewer seconds are not told."""
PERIOD = 0.5
"""Seconds between lines of a stage."""

Mode = Literal["auto", "json", "none"]
"""auto: bars on a terminal, lines elsewhere; json: events; none: nothing but errors."""


class _State:
    mode: Mode = "auto"
    fixed = False
    handler: logging.Handler | None = None


def choose(mode: str | None = None) -> None:
    """Choose how progress is shown: a `Mode`; None takes that of `MSDYN_PROGRESS`, else auto.

    Raises:
        InputError: no such mode.
    """
    given = mode if mode is not None else os.environ.get("MSDYN_PROGRESS") or "auto"
    found = next((name for name in get_args(Mode) if name == given), None)
    if found is None:
        name = "--progress" if mode is not None else "MSDYN_PROGRESS"
        raise InputError(f"{name}: expected one of {', '.join(get_args(Mode))}, got {given!r}")
    if _State.fixed:
        return
    _State.mode = found
    logger = logging.getLogger("msdyn")
    if _State.handler is not None:
        logger.removeHandler(_State.handler)
        logger.propagate, _State.handler = True, None
    if given == "json":
        _State.handler = _Notes()
        logger.addHandler(_State.handler)
        logger.propagate = False


@contextlib.contextmanager
def as_text() -> Iterator[None]:
    """Write no events inside the block, whatever is chosen in it: its messages are read as text."""
    before = _State.mode, _State.fixed
    _State.mode, _State.fixed = "auto", True
    try:
        yield
    finally:
        _State.mode, _State.fixed = before


def are_json() -> bool:
    """Return whether events are written."""
    return _State.mode == "json"


def are_off() -> bool:
    """Return whether nothing is shown: mode none, or `TQDM_DISABLE=1` in mode auto."""
    if _State.mode == "auto":
        return os.environ.get("TQDM_DISABLE", "0").lower() not in ("", "0")
    return _State.mode == "none"


def event_line(event: str, **fields: Any) -> str:
    """Return the line of an event."""
    entry = {"event": event, "time": round(time.time(), 3), **fields}
    return json.dumps(entry, ensure_ascii=False) + "\n"


def emit(event: str, **fields: Any) -> None:
    """Write an event; nothing in the other modes, or if stderr is closed."""
    if are_json():
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(event_line(event, **fields))
            sys.stderr.flush()


def start(command: str) -> None:
    """Write the first event of a command."""
    emit("start", command=command, version=__version__, format=FORMAT)


class _Notes(logging.Handler):
    """Writes what is logged as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            emit("note", text=record.getMessage(), level=record.levelname.lower())
