"""Loading of modules that register motion models, losses and preprocessing backends.

A decorator registers each of them by name. Built-in ones are in packages whose modules are all
imported. Plugins are named in the environment, `MSDYN_PLUGINS=package.module,other`, or are entry
points of the group `msdyn.plugins` of installed packages. Commands load plugins before they parse
their options. Scene files never name code.
"""

from __future__ import annotations

import ast
import os
import pkgutil
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msdyn.errors import InputError

__all__ = [
    "Declaration",
    "declarations",
    "declared_names",
    "import_submodules",
    "load_plugins",
]

VARIABLE = "MSDYN_PLUGINS"
GROUP = "msdyn.plugins"


def import_submodules(package: str) -> None:
    """Import every module of a package, in alphabetical order."""
    folder = import_module(package).__path__
    for module in sorted(pkgutil.iter_modules(folder), key=lambda module: module.name):
        import_module(f"{package}.{module.name}")


@dataclass(frozen=True)
class Declaration:
    """A decorator that registers something, as a source has it.

    Attributes:
        arguments: those without a name, which are constants.
        given: names of the other arguments, without those that are None.
    """

    arguments: tuple[Any, ...]
    given: frozenset[str]


@cache
def declarations(package: str, decorator: str) -> tuple[Declaration, ...]:
    """Return how a package or module uses a decorator, read from its source.

    Importing it would do the same, but takes seconds where its modules import heavy packages, and
    the names are needed for every command line.

    Args:
        package: name of the package, all of whose modules are read, or of one module.
        decorator: name of the decorator.
    """
    spec = find_spec(package)
    assert spec is not None, f"there is no {package}"
    if spec.submodule_search_locations is None:
        paths = [Path(str(spec.origin))]
    else:
        folders = map(Path, spec.submodule_search_locations)
        paths = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    found = []
    for text in (path.read_text(encoding="utf-8") for path in paths):
        if f"@{decorator}(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            for call in getattr(node, "decorator_list", ()):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                    if call.func.id == decorator:
                        found.append(_declaration(call))
    return tuple(found)


def _declaration(call: ast.Call) -> Declaration:
    given = {word.arg for word in call.keywords if word.arg and not _is_none(word.value)}
    return Declaration(tuple(map(ast.literal_eval, call.args)), frozenset(given))


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def declared_names(package: str, decorator: str) -> tuple[str, ...]:
    """Return the first arguments of a decorator in a package; see `declarations`."""
    return tuple(entry.arguments[0] for entry in declarations(package, decorator))


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
