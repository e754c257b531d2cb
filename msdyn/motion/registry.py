"""Motion models by name. To add one, subclass `Motion` in a module of its own and register it:

    @register_motion("toy")
    class ToyMotion(Motion): ...

The module lies in `msdyn/motion/models/`, or is a plugin (see `msdyn.plugins`). `msdyn-fit --motion
toy` then fits it, and everything else opens what was fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from msdyn.errors import InputError
from msdyn.motion.protocol import Motion

__all__ = ["motion_class", "motion_names", "register_motion"]

M = TypeVar("M", bound=Motion)
_CLASSES: dict[str, type[Motion]] = {}


def register_motion(name: str) -> Callable[[type[M]], type[M]]:
    """Return the decorator that makes a motion model known by a name."""

    def register(cls: type[M]) -> type[M]:
        cls.name = name
        _CLASSES[name] = cls
        return cls

    return register


def motion_names() -> tuple[str, ...]:
    """Return the names of all motion models."""
    return tuple(_CLASSES)


def motion_class(name: str) -> type[Motion]:
    """Return a motion model by its name.

    Raises:
        InputError: no such model.
    """
    if name not in _CLASSES:
        raise InputError(f"motion: expected one of {', '.join(_CLASSES)}, got {name!r}")
    return _CLASSES[name]
