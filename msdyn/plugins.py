"""Loading of modules that register motion models, losses and preprocessing backends.

A decorator registers each of them by name. Built-in ones are in packages whose modules are all
imported. Plugins are named in the environment, `MSDYN_PLUGINS=package.module,other`, or are entry
points of the group `msdyn.plugins` of installed packages. Commands load plugins before they parse
their options. Scene files never name code.
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
    """Import every module of a package, in alphabetical order."""
    folder = import_module(package).__path__
    for module in sorted(pkgutil.iter_modules(folder), key=lambda module: module.name):
        import_module(f"{package}.{module.name}")


def registered_choice(names: Callable[[], tuple[str, ...]], option: str | None = None) -> Any:
    """Return the tyro annotation of a command-line option whose choices are registered names.

    Args:
        names: returns the names; called when options are parsed, after plugins are loaded.
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
    """Import the plugins named in the environment and the entry points of installed packages.

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
