"""A log of numbered steps: a line of JSON for each entry, cut back when the work is resumed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from msdyn.writing.files import atomic_path

__all__ = ["StepLog"]


class StepLog:
    """Writes entries, each with its "step", to a file.

    Attributes:
        path: the file, which appears with the first entry.
        last: the last entry, None if there is none.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        """Open the log of work that goes on after a step; entries of later steps are dropped."""
        self.path = path
        self.last: dict[str, Any] | None = None
        self.go_back(step)

    def go_back(self, step: int) -> None:
        """Drop the entries of later steps."""
        path, self.last = self.path, None
        if not path.is_file():
            return
        lines = path.read_bytes().splitlines(keepends=True)
        entries = [(line, _entry(line)) for line in lines]
        kept = [(line, entry) for line, entry in entries if entry and _step(entry) <= step]
        if kept:
            self.last = kept[-1][1]
        if len(kept) == len(lines):
            return
        if not kept:
            path.unlink()
            return
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"".join(line for line, _ in kept))

    def add(self, entry: dict[str, Any]) -> None:
        """Append an entry."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.last = entry


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return the entry of a line, None if it is not one, as after a full disk."""
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _step(entry: dict[str, Any]) -> float:
    """Return the step of an entry, infinity if it has none."""
    step = entry.get("step")
    return step if isinstance(step, int | float) else math.inf
