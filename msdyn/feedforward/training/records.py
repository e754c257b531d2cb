"""The log of a run: a line of JSON for each entry, and TensorBoard where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msdyn.writing import StepLog

__all__ = ["Records"]


class Records:
    """Writes the log of a run: `log.jsonl`, and `tensorboard/` if the package is there."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        """Open the log of a run that goes on after a step; what it has of later ones is dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        self._log = StepLog(folder / "log.jsonl", step)
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, entry: dict[str, Any]) -> None:
        """Write an entry with its step; numbers in it, and in dictionaries in it, are curves."""
        self._log.add(entry)
        if self._writer is None:
            return
        for name, value in entry.items():
            values = value if isinstance(value, dict) else {"": value}
            for inner, number in values.items():
                if name != "step" and isinstance(number, int | float):
                    path = f"{name}/{inner}" if inner else f"training/{name}"
                    self._writer.add_scalar(path, number, entry["step"])
        self._writer.flush()

    def add_picture(self, name: str, path: Path, step: int) -> None:
        """Show a picture of a file."""
        if self._writer is not None:
            from msdyn.reading import read_rgb

            self._writer.add_image(name, read_rgb(path), step, dataformats="HWC")
            self._writer.flush()

    def close(self) -> None:
        """Finish writing."""
        if self._writer is not None:
            self._writer.close()
