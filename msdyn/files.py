"""Writing files that nobody sees half of, sorting file names."""

import contextlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["atomic_path", "natural_order", "without_nan", "write_json"]


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary sibling of `path` (same suffix), moved onto `path` when the block succeeds.

    On an exception the temporary file is removed and `path` keeps its previous content.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{path.stem[:40]}-", suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files private
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def natural_order(path: str | os.PathLike) -> list[tuple[int, str]]:
    """Return a sorting key of file names by which `frame2` comes before `frame10`."""
    parts = re.findall(r"\d+|\D+", Path(path).name)
    digits = [part.lstrip("0") if part.isdecimal() else None for part in parts]
    return [
        (-1, part) if number is None else (len(number), number)  # int() refuses 5000 digits
        for part, number in zip(parts, digits, strict=True)
    ]


def without_nan(value: Any) -> Any:
    """Replace numbers that JSON does not know (infinity, NaN) by None, in dicts of dicts too."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
