"""Packages whose names are imported when they are first used, so that importing them is fast.

    __getattr__ = lazy_names(__name__, {"config": ("FitConfig", "preset"), "fitter": ("Fitter",)})

The names stand in `__all__` and, for type checkers, in imports under `TYPE_CHECKING`. No name may
be that of a module of the package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the function `__getattr__` of a package.

    Args:
        package: its name.
        homes: names by the module that defines them, within the package or, from `msdyn.` on, any.
    """
    home = {name: module for module, names in homes.items() for name in names}

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = home[name] if home[name].startswith("msdyn.") else f"{package}.{home[name]}"
        value = getattr(import_module(module), name)
        setattr(sys.modules[package], name, value)
        return value

    return find
