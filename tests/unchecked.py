"""Construction without the run-time shape checks of the tests, to reach a class's own checks."""

import inspect
from typing import Any, TypeVar

__all__ = ["construct_unchecked"]

T = TypeVar("T")


def construct_unchecked(cls: type[T], **values: Any) -> T:
    """Return an instance made by the unwrapped `__init__` of its class."""
    instance = cls.__new__(cls)
    inspect.unwrap(cls.__init__)(instance, **values)
    return instance
