"""What a log is, and the logs of one run together.

A log is beside the lines of JSON that a command writes itself, and never instead of them: what goes
wrong in one of the packages costs a warning and that log, not the run.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from msdyn.errors import InputError
from msdyn.logs.registry import find_log, require_logs
from msdyn.reading import read_json
from msdyn.writing import write_json

__all__ = ["Log", "LoggedRun", "Logs", "open_logs"]

_log = logging.getLogger(__name__)

RUNS = "logs.json"
"""File in the folder of a run with its number in each log."""


@dataclass(frozen=True)
class LoggedRun:
    """A run that is logged.

    Attributes:
        command: the program, such as msdyn-fit: the project of its runs.
        folder: that the run writes to; its name is part of the run's.
        config: options, JSON values.
        step: from which the run goes on; 0 for a new one.
        number: of the run, the same when it goes on; set by `open_logs`.
    """

    command: str
    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    number: str = ""

    @property
    def name(self) -> str:
        """The name of the run, which nobody else's has."""
        path = self.folder.resolve()
        inner = path.name in ("fit", "predict")
        return f"{path.parent.name if inner else path.name}-{self.number}"


@runtime_checkable
class Log(Protocol):
    """A log of one run. Its class is made from a `LoggedRun`."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to curves."""
        ...

    def picture(self, name: str, image: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        """Show a picture."""
        ...

    def close(self) -> None:
        """Finish; nothing may be added any more."""
        ...


def open_logs(names: Sequence[str], run: LoggedRun) -> Logs:
    """Return the logs of a run, new or going on.

    Args:
        names: of the logs.
        run: what is logged; where it goes on from a step, that of the same folder goes on.

    Raises:
        InputError: there is no such log.
        MissingExtraError: a package is not installed.
    """
    require_logs(names)
    logs: dict[str, Log] = {}
    known = _numbers(run.folder)
    numbers = dict(known)
    for name in dict.fromkeys(names):
        spec = find_log(name)
        if spec.numbered and not (run.step and name in known):
            numbers[name] = secrets.token_hex(4)
        with _Kept(name, "is not written"):
            logs[name] = cast(Log, spec.make(replace(run, number=numbers.get(name, ""))))
    if numbers != known:
        run.folder.mkdir(parents=True, exist_ok=True)
        write_json(run.folder / RUNS, numbers)
    return Logs(logs)


def _numbers(folder: Path) -> dict[str, str]:
    """Return the number of the run of a folder in each log."""
    path = folder / RUNS
    try:
        found = read_json(path) if path.is_file() else {}
    except InputError:
        found = {}
    if not isinstance(found, dict):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, str) and v.isalnum()}


class _Kept:
    """Lets what a package raises cost that log only."""

    def __init__(self, name: str, costs: str) -> None:
        self.name, self.costs, self.failed = name, costs, False

    def __enter__(self) -> _Kept:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self.failed = True
        text = " ".join(str(error).split())[:300] or type(error).__name__
        _log.warning("warning: the log of %s %s: %s", self.name, self.costs, text)
        return True


class Logs:
    """The logs of a run; without any, nothing happens."""

    def __init__(self, logs: Mapping[str, Log] | None = None) -> None:
        self._logs = dict(logs or {})

    def __len__(self) -> int:
        return len(self._logs)

    def __enter__(self) -> Logs:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to the curve of each finite number."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._each(lambda log: log.scalars(finite, step))

    def picture(self, name: str, image: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        """Show a picture."""
        self._each(lambda log: log.picture(name, image, step))

    def close(self) -> None:
        """Finish all logs."""
        self._each(lambda log: log.close())
        self._logs.clear()

    def _each(self, call: Callable[[Log], None]) -> None:
        """Call each log; one that fails is left out from then on."""
        for name, log in list(self._logs.items()):
            kept = _Kept(name, "ends here")
            with kept:
                call(log)
            if kept.failed:
                del self._logs[name]


def plain(value: Any) -> Any:
    """Return options as JSON values, for packages that take no others."""
    return json.loads(json.dumps(value, default=str))
