"""Motion models by name. To add one, subclass `Motion` in a module of its own and register it:

    @register_motion("toy")
    class ToyMotion(Motion): ...

The module is in `msdyn/motion/models/` or is a plugin (see `msdyn.plugins`). `msdyn-fit --motion
toy` then fits it, and all other commands read the result.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TypeVar

from msdyn.plugins import declared_names

__all__ = ["find_motion", "motion_names", "register_motion"]

M = TypeVar("M")
_BUILT_IN = "msdyn.motion.models"
_CLASSES: dict[str, type] = {}


def register_motion(name: str) -> Callable[[type[M]], type[M]]:
    """Return the decorator that registers a motion model by name."""

    def register(cls: type[M]) -> type[M]:
        cls.name = name  # pyright: ignore[reportAttributeAccessIssue]
        _CLASSES[name] = cls
        return cls

    return register


def motion_names() -> tuple[str, ...]:
    """Return the names of all motion models; those of msdyn are not imported for it."""
    return tuple(dict.fromkeys([*declared_names(_BUILT_IN, "register_motion"), *_CLASSES]))


def find_motion(name: object) -> type | None:
    """Return the class registered by a name, or None; see also `msdyn.motion.motion_class`."""
    import_module(_BUILT_IN)
    return _CLASSES.get(name) if isinstance(name, str) else None
