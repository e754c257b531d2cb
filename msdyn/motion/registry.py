"""Motion models by name. To add one, subclass `Motion` in a module of its own and register it:

    @register_motion("toy")
    class ToyMotion(Motion): ...

The module lies in `msdyn/motion/models/`, or is a plugin (see `msdyn.plugins`). `msdyn-fit --motion
toy` then fits it, and everything else opens what was fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["find_motion", "motion_names", "register_motion"]

M = TypeVar("M")
_CLASSES: dict[str, type] = {}


def register_motion(name: str) -> Callable[[type[M]], type[M]]:
    """Return the decorator that makes a motion model known by a name."""

    def register(cls: type[M]) -> type[M]:
        cls.name = name  # pyright: ignore[reportAttributeAccessIssue]
        _CLASSES[name] = cls
        return cls

    return register


def motion_names() -> tuple[str, ...]:
    """Return the names of all motion models."""
    return tuple(_CLASSES)


def find_motion(name: str) -> type | None:
    """Return the class registered by a name; `msdyn.motion.motion_class` says what is wrong."""
    return _CLASSES.get(name)
