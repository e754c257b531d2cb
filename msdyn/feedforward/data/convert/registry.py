"""Converters by name. To add one, write a generator of clips and register it:

    @register_converter("toy", layout="<scene>/images/*.png")
    def clips(source: Path) -> Iterator[Clip]: ...

Instead of a clip it may yield a function that returns clips. Errors of that function concern one
sequence, so that the others can be converted nevertheless. The module is in
`msdyn/feedforward/data/convert/` or is a plugin (see `msdyn.plugins`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from msdyn.errors import InputError
from msdyn.feedforward.data.clip import Clip
from msdyn.reading import reading

__all__ = ["Converter", "LazyClips", "converter_names", "find_converter", "register_converter"]

LazyClips: TypeAlias = Callable[[], Clip | Iterable[Clip]]
"""Returns the clip or the clips of a sequence."""


@runtime_checkable
class Converter(Protocol):
    """Yields the clips of a data set."""

    def __call__(
        self, source: Path, damaged: Callable[[Exception], None] | None = None
    ) -> Iterator[Clip]:
        """Yield the clips of a data set.

        Args:
            source: folder of the data set.
            damaged: called with the error of a sequence that cannot be read, which is then left
                out; by default the error is raised.

        Raises:
            FileNotFoundError: a file is missing.
            InputError: there is no such folder or no sequence in it, or a file is wrong.
        """
        ...


_CONVERTERS: dict[str, Converter] = {}


def register_converter(
    name: str, *, layout: str
) -> Callable[[Callable[[Path], Iterator[Clip | LazyClips]]], Converter]:
    """Return the decorator that makes a converter known by the name of its data set.

    Args:
        name: of the data set.
        layout: of its folder, for messages.
    """

    def register(converter: Callable[[Path], Iterator[Clip | LazyClips]]) -> Converter:
        @functools.wraps(converter)
        def checked(
            source: Path, damaged: Callable[[Exception], None] | None = None
        ) -> Iterator[Clip]:
            source = Path(source)
            if not source.is_dir():
                raise InputError(f"{source}: no such folder; expected {layout}")
            empty = True
            for sequence in converter(source):
                empty = False
                try:
                    with reading(source, f"data set of {name}"):
                        yield from _clips(sequence)
                except (InputError, FileNotFoundError) as error:
                    if damaged is None:
                        raise
                    damaged(error)
            if empty:
                raise InputError(f"{source}: found no sequence of {name}; expected {layout}")

        _CONVERTERS[name] = checked
        return checked

    return register


def _clips(sequence: Clip | LazyClips) -> Iterable[Clip]:
    found = sequence if isinstance(sequence, Clip) else sequence()
    return [found] if isinstance(found, Clip) else found


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
