"""How far a command is: bars on a terminal, lines elsewhere.

    for image in track(images, "render", unit="image"): ...
    with stage("initialisation"): ...

On a terminal the innermost stage has a bar or its seconds, which vanish at its end. Elsewhere, as
in logs, there are lines only, without control characters: one when a stage has been silent for
`SILENCE` seconds, then one every `PERIOD` seconds that says how far it is, and one at its end with
its seconds, unless it is over at once. A thread writes them, so that a long call is not silent
either. Everything goes to stderr, nothing if the environment variable `TQDM_DISABLE` is 1. With
`--progress json` there are events instead (`msdyn.events`).

At the begin of a stage and at each item of `track` a limit of memory is checked (`msdyn.memory`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from msdyn import events
from msdyn.memory import require_memory

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["Progress", "end_progress", "stage", "track", "write_error", "write_line", "write_note"]

Item = TypeVar("Item")

SILENCE = 1.0
"""Seconds without any line after which a stage is named."""
PERIOD = 10.0
"""Seconds between lines of a stage."""
_SHORT = 1.0
"""Stages that take fewer seconds have no line, where there has been one just before."""
_TICK = 0.25

_lock = threading.RLock()
_active: list[Progress] = []
"""The stages that run, each within the one before it."""


class _Log:
    """When the last line was written and the last stage ended; the thread that writes lines."""

    last = time.monotonic()
    ended = last
    thread: threading.Thread | None = None


class Progress:
    """A stage of a command, with or without steps that are counted.

    Args:
        name: of the stage.
        total: steps; None if they are not known.
        unit: of the steps, in the singular; "" if they are not counted.
        start: steps that are done already.
        hidden: show nothing, as in all but one of several processes.
        always: write a line at the end also where the stage is short.
    """

    def __init__(
        self,
        name: str,
        total: int | None = None,
        unit: str = "step",
        *,
        start: int = 0,
        hidden: bool = False,
        always: bool = False,
    ) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = self._start = start
        self.figures: dict[str, str] = {}
        self._hidden = hidden or events.are_off()
        self._always = always
        self._begin = time.monotonic()
        self.told: float | None = None  # when it was last spoken of
        self._within: list[str] = []
        self._bar: tqdm[Any] | None = None
        if not self._hidden:
            _push(self)

    @property
    def has_bar(self) -> bool:
        """Whether a bar is shown."""
        return self._bar is not None

    def update(self, steps: int = 1) -> None:
        """Count steps that are done."""
        self.done += steps
        if self._bar is not None:
            self._bar.update(steps)

    def restart(self, total: int) -> None:
        """Count from 0 again, to another total."""
        self.done, self._start, self.total = 0, 0, total
        if self._bar is not None:
            self._bar.reset(total)

    def show(self, **figures: str) -> None:
        """Show figures beside the steps, from now on."""
        self.figures = figures
        if self._bar is not None:
            self._bar.set_postfix_str(self._shown_figures, refresh=False)

    def close(self, *, failed: bool = False) -> None:
        """End the stage; a failed one is not said to be done."""
        if not self._hidden:
            self._hidden = True
            _pop(self, failed)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(failed=kind is not None)

    def due_line(self, now: float) -> str | None:
        """Return the line that is due, None if none is."""
        seconds = now - self._begin
        if self.told is None:
            if now - _Log.last < SILENCE:
                return None
            begun = f"{self.name} ..."
            return f"{begun} {self._steps(seconds)}" if seconds > PERIOD else begun
        if now - max(self.told, _Log.last) < PERIOD:
            return None
        return f"{self.name}: {self._steps(seconds)}"

    @property
    def _shown_figures(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.figures.items())

    def _steps(self, seconds: float) -> str:
        """Return how far the stage is."""
        parts = [f"{seconds:.0f} s"]
        if self.unit and (self.total or self.done):
            of = f" of {self.total}" if self.total else ""
            parts.insert(0, f"{self.done}{of} {self.unit}s")
            left = self._left(seconds)
            if left is not None:
                parts.append(f"about {left:.0f} s left")
        return ", ".join([*parts, self._shown_figures] if self.figures else parts)

    def _left(self, seconds: float) -> float | None:
        done = self.done - self._start
        if not self.total or done <= 0 or self.total <= self.done:
            return None
        return seconds / done * (self.total - self.done)

    def end_line(self, now: float) -> str | None:
        """Return the line at the end of the stage, None for a short one."""
        seconds = now - self._begin
        short = seconds < _SHORT and now - _Log.last < _SHORT
        if short and self.told is None and not self._always:
            return None
        done = self.done - self._start
        steps = f"{done} {self.unit}{'s' * (done != 1)} in " if self.unit and done else ""
        figures = f", {self._shown_figures}" if self.figures else ""
        return f"{self.name}: {steps}{seconds:.1f} s{figures}"

    def enter(self, outer: Iterable[Progress]) -> None:
        """Note which stages this one is within."""
        self._within = [progress.name for progress in outer]

    def open_bar(self) -> None:
        """Show the bar on a terminal."""
        if self._bar is not None or events.are_json() or not _is_terminal():
            return
        from tqdm import tqdm

        counted = bool(self.unit)
        self._bar = tqdm(
            total=self.total,
            initial=self.done,
            desc=f"{self.name:<8}",
            unit=self.unit or "s",
            leave=False,
            disable=False,
            bar_format=None if counted else "{desc}: {elapsed}",
            dynamic_ncols=True,
        )
        self._bar.start_t -= time.monotonic() - self._begin

    def close_bar(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def tell(self, now: float, *, end: bool = False, failed: bool = False) -> None:
        """Write the events that are due: of the beginning, how far the stage is, its end."""
        seconds = now - self._begin
        if self.told is None:
            if seconds < events.BRIEF and not (end and self._always):
                return
            events.emit("stage", stage=self.name, within=self._within, seconds=0.0)
            self.told = self._begin
        facts: dict[str, Any] = {"seconds": round(seconds, 3)}
        if self.unit:
            left = None if end else self._left(seconds)
            facts |= {"unit": self.unit, "done": self.done, "total": self.total}
            facts["left"] = None if left is None else round(left, 1)
        if self.figures:
            facts["figures"] = self.figures
        if end:
            facts["failed"] = failed
        elif now - self.told < events.PERIOD:
            return
        self.told = now
        name = "stage_end" if end else "progress"
        events.emit(name, stage=self.name, within=self._within, **facts)

    def tick(self, now: float) -> None:
        """Write what is due, or draw the bar again."""
        if events.are_json():
            for progress in _active:
                progress.tell(now)
        elif self._bar is not None:
            self._bar.refresh()
        elif not _is_terminal() and (line := self.due_line(now)) is not None:
            for other in _active:
                if other.name == self.name:  # a stage around it, which need not be named again
                    other.told = now
            _write(line)


def track(
    items: Iterable[Item],
    name: str,
    total: int | None = None,
    unit: str = "frame",
    *,
    hidden: bool = False,
) -> Iterator[Item]:
    """Yield items, which are the steps of a stage.

    Args:
        items: to be gone through.
        name: of the stage.
        total: their number, where they have no length.
        unit: what an item is, in the singular.
        hidden: show nothing.

    Raises:
        ResourceError: more memory is held than is allowed.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(name, total, unit, hidden=hidden) as progress:
        for item in items:
            require_memory()
            yield item
            progress.update()


def stage(name: str, *, always: bool = False) -> Progress:
    """Return a stage whose steps are not counted, for a `with` statement.

    Args:
        name: what is done.
        always: write a line at its end also where it is short.

    Raises:
        ResourceError: more memory is held than is allowed.
    """
    require_memory()
    return Progress(name, None, "", always=always)


def write_error(text: str) -> None:
    """Write a command's error to stderr, in one line."""
    text = " ".join(text.split())
    if events.are_json():
        events.emit("error", text=text)
    else:
        sys.stderr.write(f"error: {text}\n")


def write_line(text: str) -> None:
    """Write a line to stderr, above the bar if there is one."""
    with _lock:
        if events.are_json():
            events.emit("note", text=text)
            return
        if _active:
            _active[-1].close_bar()
        _write(text)
        if _active:
            _active[-1].open_bar()


def write_note(text: str) -> None:
    """Write a line about the progress to stderr, as `write_line`; nothing if it is switched off."""
    if not events.are_off():
        write_line(text)


def _push(progress: Progress) -> None:
    with _lock:
        progress.enter(_active)
        if _active:
            _active[-1].close_bar()
            told = [other.told for other in _active if other.name == progress.name]
            progress.told = told[-1] if told and not events.are_json() else None
        elif (now := time.monotonic()) - _Log.ended > SILENCE:  # nothing ran: no silence to end
            _Log.last = max(_Log.last, now - _SHORT / 2)
        _active.append(progress)
        progress.open_bar()
        if _Log.thread is None:
            _Log.thread = threading.Thread(target=_watch, name="progress", daemon=True)
            _Log.thread.start()


def _pop(progress: Progress, failed: bool) -> None:
    with _lock:
        progress.close_bar()
        if progress in _active:
            _active.remove(progress)
        now = time.monotonic()
        if events.are_json():
            progress.tell(now, end=True, failed=failed)
        else:
            line = None if failed else progress.end_line(now)
            if line is not None and all(progress.name != other.name for other in _active):
                _write(line)
        if _active:
            _active[-1].open_bar()
        _Log.ended = time.monotonic()


def end_progress() -> None:
    """End all stages without a word, before a last message."""
    with _lock:
        for progress in [*_active]:
            progress.close(failed=True)


def _watch() -> None:
    """Write the lines of the innermost stage, as long as there is one."""
    while True:
        time.sleep(_TICK)
        with _lock:
            if not _active:
                _Log.thread = None
                return
            with contextlib.suppress(OSError, ValueError):  # stderr may be closed at the end
                _active[-1].tick(time.monotonic())


def _write(line: str) -> None:
    _Log.last = time.monotonic()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _is_terminal() -> bool:
    """Return whether stderr is a terminal that can show a bar: it has a size, and moves back."""
    try:
        if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            return False
    except ValueError:  # closed
        return False
    with contextlib.suppress(OSError, ValueError):  # no file of the system
        return min(os.get_terminal_size(sys.stderr.fileno())) > 0
    return True
