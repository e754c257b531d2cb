"""The log of a run: a line of JSON for each entry, and TensorBoard where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["Records"]


class Records:
    """Writes the log of a run: `log.jsonl`, and `tensorboard/` if the package is there."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def add(self, entry: dict[str, Any]) -> None:
        """Write an entry with its step; numbers in it, and in dictionaries in it, are curves."""
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
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
            import imageio.v3 as iio

            self._writer.add_image(name, iio.imread(path), step, dataformats="HWC")
            self._writer.flush()

    def close(self) -> None:
        """Finish writing."""
        if self._writer is not None:
            self._writer.close()
