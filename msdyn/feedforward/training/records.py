"""The log of a run: a line of JSON for each entry, and curves and pictures in other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msdyn.logs import LoggedRun, installed_logs, open_logs
from msdyn.reading import read_rgb
from msdyn.writing import StepLog

__all__ = ["Records"]

_DEFAULT = ("tensorboard",)
"""Logs that are written where their packages are installed."""


class Records:
    """Writes the log of a run: `log.jsonl`, and the logs of `msdyn.logs`."""

    def __init__(
        self,
        folder: Path,
        step: int = 0,
        logs: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the log of a run that goes on after a step; what it has of later ones is dropped.

        Args:
            folder: of the run.
            step: the last one.
            logs: by name; without, those that need no asking, where they are installed.
            config: options of the run, JSON values.

        Raises:
            MissingExtraError: the package of a log that is named is not installed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._log = StepLog(folder / "log.jsonl", step)
        run = LoggedRun("msdyn-train", folder, config or {}, step)
        self._logs = open_logs(logs or installed_logs(_DEFAULT), run)

    def add(self, entry: dict[str, Any]) -> None:
        """Write an entry with its step; numbers in it, and in dictionaries in it, are curves."""
        self._log.add(entry)
        curves: dict[str, float] = {}
        for name, value in entry.items():
            values = value if isinstance(value, dict) else {"": value}
            for inner, number in values.items():
                if name != "step" and isinstance(number, int | float):
                    curves[f"{name}/{inner}" if inner else f"training/{name}"] = number
        self._logs.scalars(curves, entry["step"])

    def add_picture(self, name: str, path: Path, step: int) -> None:
        """Show a picture of a file."""
        if self._logs:
            self._logs.picture(name, read_rgb(path), step)

    def close(self) -> None:
        """Finish writing."""
        self._logs.close()
