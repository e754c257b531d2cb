"""Progress bars of the stages."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

__all__ = ["progress"]

Item = TypeVar("Item")


def progress(items: Iterable[Item], stage: str, total: int | None = None) -> "tqdm[Item]":
    """Return `items` behind a progress bar named after the stage, shown on terminals only."""
    return tqdm(items, desc=f"{stage:<8}", total=total, unit="frame", disable=None, leave=False)
