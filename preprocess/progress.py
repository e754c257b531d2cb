"""Progress of the stages, whose steps are frames."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from msdyn.progress import track

__all__ = ["progress"]

Item = TypeVar("Item")


def progress(items: Iterable[Item], stage: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items`, which are the steps of a stage; see `msdyn.progress`."""
    return track(items, stage, total)
