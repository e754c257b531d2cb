"""TensorBoard: files of events in `tensorboard/`, shown by `tensorboard --logdir FOLDER`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from msdyn.logs.log import LoggedRun, plain
from msdyn.logs.registry import register_log

__all__ = ["TensorboardLog"]

_QUEUE, _FLUSH_SECONDS = 1000, 10
"""Entries that wait at most, and how long: what is lost where the process is killed."""


@register_log(
    "tensorboard", package="tensorboard", install="pip install 'msdyn[train]'", numbered=False
)
class TensorboardLog:
    """A log of TensorBoard; a run that goes on drops what it has of later steps."""

    def __init__(self, run: LoggedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(run.folder / "tensorboard"),
            purge_step=run.step + 1,
            max_queue=_QUEUE,
            flush_secs=_FLUSH_SECONDS,
        )
        if not run.step and run.config:
            text = "\n".join(f"    {key}: {value}" for key, value in plain(run.config).items())
            self._writer.add_text("config", text, 0)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to curves."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def picture(self, name: str, image: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        """Show a picture."""
        self._writer.add_image(name, image, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Finish writing."""
        self._writer.close()
