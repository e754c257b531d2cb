"""Results that are computed frame by frame, as they are written."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any, Generic, TypeAlias, TypeVar

__all__ = ["Figures", "Streamed"]

Figures: TypeAlias = dict[str, Any]
"""Quality figures by name: JSON values for the record of a stage in `scene.json`."""

Item = TypeVar("Item")


class Streamed(Generic[Item]):
    """One item per frame, computed as it is taken, and figures that are known after the last one.

    An iterator over what a generator yields; the figures are what the generator returns.
    """

    def __init__(self, items: Generator[Item, None, Figures]) -> None:
        self._items = items
        self._figures: Figures | None = None

    @classmethod
    def of(cls, items: Iterable[Item], figures: Figures) -> Streamed[Item]:
        """Return a stream of items whose figures are known beforehand."""

        def generate() -> Generator[Item, None, Figures]:
            yield from items
            return figures

        return cls(generate())

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        try:
            return next(self._items)
        except StopIteration as end:
            if self._figures is None:  # next() on an exhausted generator returns None
                self._figures = end.value
            raise

    @property
    def figures(self) -> Figures:
        """The figures.

        Raises:
            RuntimeError: not all items have been taken.
        """
        if self._figures is None:
            raise RuntimeError("the figures are known once every item has been taken")
        return self._figures
