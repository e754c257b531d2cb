"""Converters by name. To add one, write a generator of clips and register it:

    @register_converter("toy", layout="<scene>/images/*.png")
    def clips(source: Path) -> Iterator[Clip]: ...

The module is in `msdyn/feedforward/data/convert/` or is a plugin (see `msdyn.plugins`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from msdyn.errors import InputError
from msdyn.feedforward.data.clip import Clip

__all__ = ["Converter", "converter_names", "find_converter", "register_converter"]

Converter: TypeAlias = Callable[[Path], Iterator[Clip]]
"""Yields the clips of a data set in a folder."""

_CONVERTERS: dict[str, Converter] = {}


def register_converter(name: str, *, layout: str) -> Callable[[Converter], Converter]:
    """Return the decorator that makes a converter known by the name of its data set.

    The registered converter raises an `InputError` if there is no such folder or no clip in it.

    Args:
        name: of the data set.
        layout: of its folder, for messages.
    """

    def register(converter: Converter) -> Converter:
        @functools.wraps(converter)
        def checked(source: Path) -> Iterator[Clip]:
            source = Path(source)
            if not source.is_dir():
                raise InputError(f"{source}: no such folder; expected {layout}")
            empty = True
            for clip in converter(source):
                empty = False
                yield clip
            if empty:
                raise InputError(f"{source}: found no sequence of {name}; expected {layout}")

        _CONVERTERS[name] = checked
        return checked

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
