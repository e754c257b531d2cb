"""Converters of public data sets to clips, by name. Modules of this package are all imported.

@register_converter("toy")
def clips(source: Path) -> Iterator[Clip]: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from msdyn.errors import InputError
from msdyn.feedforward.data.clip import Clip
from msdyn.plugins import import_submodules

__all__ = ["Converter", "converter_names", "find_converter", "register_converter"]

Converter = Callable[[Path], Iterator[Clip]]
"""Yields the clips of a data set in a folder."""

_CONVERTERS: dict[str, Converter] = {}


def register_converter(name: str, *, layout: str = "") -> Callable[[Converter], Converter]:
    """Return the decorator that makes a converter known by the name of its data set."""

    def register(converter: Converter) -> Converter:
        _CONVERTERS[name] = converter
        return converter

    return register


def converter_names() -> tuple[str, ...]:
    """Return the names of the data sets that can be converted."""
    return tuple(sorted(_CONVERTERS))


def find_converter(name: str) -> Converter:
    """Return the converter of a data set.

    Raises:
        InputError: there is none of this name.
    """
    if name not in _CONVERTERS:
        raise InputError(f"data set: expected one of {', '.join(converter_names())}, got {name!r}")
    return _CONVERTERS[name]


import_submodules(__name__)
