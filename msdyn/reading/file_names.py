"""The order of numbered files."""

import os
import re
from pathlib import Path

__all__ = ["natural_order"]


def natural_order(path: str | os.PathLike) -> list[tuple[int, str]]:
    """Return a sorting key of file names by which `frame2` comes before `frame10`."""
    parts = re.findall(r"\d+|\D+", Path(path).name)
    digits = [part.lstrip("0") if part.isdecimal() else None for part in parts]
    return [
        (-1, part) if number is None else (len(number), number)  # int() refuses 5000 digits
        for part, number in zip(parts, digits, strict=True)
    ]
