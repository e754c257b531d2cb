"""Modules that register something when imported: our own in a folder, and those of others.

Motion models, losses and backends of preprocessing are known by names that a decorator registers.
Our own lie in folders of which every module is imported. Others are named in the environment,
`MSDYN_PLUGINS=package.module,other`, or are entry points of the group `msdyn.plugins` of installed
packages. Commands load them before they read their options; nothing that is read from a scene names
code.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal

import tyro

from msdyn.errors import InputError

__all__ = ["import_submodules", "load_plugins", "registered_choice"]

VARIABLE = "MSDYN_PLUGINS"
GROUP = "msdyn.plugins"
_BRACKETS = "[]'"


def import_submodules(package: str) -> None:
    """Import every module of a package, in the order of their names."""
    folder = import_module(package).__path__
    for module in sorted(pkgutil.iter_modules(folder), key=lambda module: module.name):
        import_module(f"{package}.{module.name}")


def registered_choice(names: Callable[[], tuple[str, ...]], option: str | None = None) -> Any:
    """Return the annotation of a field whose choices on the command line are registered names.

    Args:
        names: returns the names; asked when options are parsed, so that plugins count.
        option: name of the option; that of the field by default.
    """

    def literal() -> Any:
        return Literal[names()]

    return tyro.conf.arg(
        name=option,
        constructor_factory=literal,
        help_behavior_hint=lambda default: f"(default: {default.strip(_BRACKETS)})",
    )


def load_plugins() -> None:
    """Import the modules that the environment and installed packages name.

    Raises:
        InputError: a module named in the environment cannot be imported.
    """
    for name in filter(None, os.environ.get(VARIABLE, "").replace(" ", "").split(",")):
        try:
            import_module(name)
        except ImportError as error:
            raise InputError(
                f"{VARIABLE}: cannot import {name} ({error}); "
                "expected modules on the Python path, separated by commas"
            ) from error
    for entry in entry_points(group=GROUP):
        entry.load()
