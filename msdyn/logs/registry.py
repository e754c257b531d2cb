"""Logs by name. To add one, write a class with the methods of `Log` and register it:

    @register_log("toy", package="toy", install="pip install toy")
    class ToyLog:
        def __init__(self, run: LoggedRun) -> None: ...

The module lies in this folder, or is a plugin (see `msdyn.plugins`).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from msdyn.errors import InputError, MissingExtraError
from msdyn.plugins import declarations, import_submodules

__all__ = ["LogSpec", "find_log", "installed_logs", "log_names", "register_log", "require_logs"]

_PACKAGE = "msdyn.logs"
AnyLog = TypeVar("AnyLog", bound=type)


@dataclass(frozen=True)
class LogSpec:
    """How to make a log.

    Attributes:
        make: its class, called with the run.
        package: that it needs.
        install: command that installs the package.
        numbered: it keeps runs by a number, under which one is found again to go on.
    """

    make: Callable[..., object]
    package: str
    install: str
    numbered: bool


_SPECS: dict[str, LogSpec] = {}


def register_log(
    name: str, *, package: str, install: str, numbered: bool = True
) -> Callable[[AnyLog], AnyLog]:
    """Return the decorator that makes a log known by a name.

    Args:
        name: as on the command line.
        package: that it needs.
        install: command that installs the package.
        numbered: it keeps runs by a number; otherwise in the run's folder.
    """

    def register(cls: AnyLog) -> AnyLog:
        _SPECS[name] = LogSpec(cls, package, install, numbered)
        return cls

    return register


def log_names() -> tuple[str, ...]:
    """Return the names of all logs; their modules are not imported for it."""
    declared = {entry.arguments[0] for entry in declarations(_PACKAGE, "register_log")}
    return tuple(sorted(declared | set(_SPECS)))


def find_log(name: str) -> LogSpec:
    """Return a log by its name.

    Raises:
        InputError: there is no such log.
    """
    if name not in _SPECS:
        import_submodules(_PACKAGE)
    if name not in _SPECS:
        raise InputError(f"log: expected one of {', '.join(log_names())}, got {name!r}")
    return _SPECS[name]


def require_logs(names: Sequence[str]) -> None:
    """Raise unless the packages of logs are installed; they are not imported for it.

    Raises:
        MissingExtraError: one is not; the message has the command that installs it.
    """
    for name in names:
        spec = find_log(name)
        if not _is_installed(spec.package):
            raise MissingExtraError(
                f"--log {name}: {spec.package} is not installed: {spec.install}"
            )


def installed_logs(names: Sequence[str]) -> tuple[str, ...]:
    """Return those of the logs whose packages are installed."""
    return tuple(name for name in names if _is_installed(find_log(name).package))


def _is_installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    return importlib.util.find_spec(package) is not None
