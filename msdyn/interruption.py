"""How a command ends when it is told to: by Ctrl-C, by SIGTERM, or because its terminal is closed.

A command that is interrupted ends at once: what is half written is removed, one line is printed,
and the exit code is 128 plus the number of the signal. No exception passes through running code, so
that none is lost in a callback, hung up in a thread or printed with a traceback, and no destructor
runs. Files are renamed when they are complete, so nothing else needs to be undone.

Code with results worth keeping in memory postpones the end until it has saved them:

    with postponed() as asked:
        while not asked():
            step()
        save()

A second signal ends the command at once all the same. Outside of commands (`install` is theirs
alone) postponed signals are sent again at the end of the block, to whoever handles them.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msdyn import events

__all__ = [
    "forget_temporary",
    "install",
    "keep_temporary",
    "postponed",
    "reinstall",
    "tell",
    "told",
]

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_NAMES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
# Compiled code may run for longer before the handler of the main thread is called; then a thread
# ends the process.
_PATIENCE = 0.7


class _State:
    """What a sudden end needs to know."""

    def __init__(self) -> None:
        self.owner = 0
        """The process that has installed the handlers; 0 before."""
        self.line = "nothing had been written yet"
        self.temporaries: set[tuple[int, str]] = set()
        """Files and folders to remove, each with the process that made it."""
        self.postponed = 0
        self.seen = -1e9
        """When a handler was last called."""
        self.ending = False


_state = _State()


def install() -> None:
    """Handle the signals of this process, which is a command; only its main thread may call it.

    Signals that are ignored, as by nohup, stay so.
    """
    if _state.owner == os.getpid():
        return
    _state.owner = os.getpid()
    reinstall()
    atexit.register(_ignore)
    if hasattr(signal, "set_wakeup_fd") and os.name == "posix":
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        # A forked child would otherwise write to this pipe when it is sent a signal itself.
        os.register_at_fork(after_in_child=_leave_to_parent)
        threading.Thread(
            target=_watch, args=(reading,), name="msdyn-interruption", daemon=True
        ).start()


def _ignore() -> None:
    """Ignore signals while the interpreter ends: the command is done, and nobody handles them."""
    if _state.owner == os.getpid():
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def reinstall() -> None:
    """Handle the signals again, after a library has replaced the handlers; no-op if not ours."""
    if _state.owner != os.getpid() or threading.current_thread() is not threading.main_thread():
        return
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN and not _state.postponed:
            signal.signal(number, _handle)


def tell(line: str) -> None:
    """Set what is printed after "interrupted; ": what is kept, and what the same command does."""
    _state.line = line


def told() -> str:
    """Return what `tell` has set."""
    return _state.line


def keep_temporary(path: Path) -> None:
    """Have a file or folder removed when the process ends suddenly."""
    _state.temporaries.add((os.getpid(), str(path)))


def forget_temporary(path: Path) -> None:
    """Have a file or folder stay: it has been renamed, or removed."""
    _state.temporaries.discard((os.getpid(), str(path)))


@contextlib.contextmanager
def postponed() -> Iterator[Callable[[], bool]]:
    """Postpone signals to the end of the block; yield a function that tells whether there is one.

    The second signal is not postponed. In threads other than the main one nothing is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: Any) -> None:
        _state.seen = time.monotonic()
        if not asked:
            asked.append(number)
            return
        restore()
        signal.raise_signal(number)

    def restore() -> None:
        _state.postponed = max(0, _state.postponed - 1)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        before.clear()

    _state.postponed += 1
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, note)
    try:
        yield lambda: bool(asked)
    finally:
        if before:
            restore()
            if asked:
                signal.raise_signal(asked[0])


def _handle(number: int, frame: Any) -> None:
    _state.seen = time.monotonic()
    _end(number)


def _end(number: int) -> None:
    """Remove what is half written, print the line and end this process."""
    if os.getpid() != _state.owner:
        os._exit(128 + number)
    if _state.ending:
        return
    _state.ending = True
    _end_children()
    for owner, name in list(_state.temporaries):
        if owner == os.getpid():
            with contextlib.suppress(OSError):
                os.unlink(name) if not os.path.isdir(name) else shutil.rmtree(name, True)
    if os.environ.get("RANK", "0") == "0":  # of the processes of torchrun the first one speaks
        line = f"{_NAMES.get(signal.Signals(number), 'hung up')}; {_state.line}"
        if events.are_json():
            text = events.event_line("note", text=line)
            text += events.event_line("exit", code=128 + number)
        else:
            text = f"{_after_bar()}{line}\n"
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="replace"))
    if threading.current_thread() is threading.main_thread():
        # Elsewhere it could wait for a lock that the main thread holds.
        with contextlib.suppress(Exception):
            sys.stdout.flush()
    os._exit(128 + number)


def _end_children() -> None:
    """Kill the children that multiprocessing has started."""
    module = sys.modules.get("multiprocessing.process")
    for child in list(getattr(module, "_children", ())):
        with contextlib.suppress(Exception):
            child.kill()


def _after_bar() -> str:
    """Return a line break if a progress bar is on the last line of stderr."""
    module = sys.modules.get("tqdm.std")
    with contextlib.suppress(Exception):
        if module is not None and any(not bar.disable for bar in module.tqdm._instances):
            return "\n"
    return ""


def _leave_to_parent() -> None:
    if _state.owner and os.getpid() != _state.owner:
        with contextlib.suppress(ValueError):  # of a thread that forked
            signal.set_wakeup_fd(-1)


def _watch(reading: int) -> None:
    """End the process where the main thread does not, because it is in compiled code."""
    unseen = 0
    while True:
        data = os.read(reading, 1)
        if not data:
            return
        if data[0] not in _SIGNALS or signal.getsignal(data[0]) is signal.SIG_IGN:
            continue
        arrived = time.monotonic()
        time.sleep(_PATIENCE)
        if _state.seen > arrived - _PATIENCE:
            continue
        unseen += 1
        if not _state.postponed or unseen > 1:
            _end(data[0])
