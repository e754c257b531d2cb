"""The log of a fit: lines of `metrics.jsonl`, and the logs that `--log` names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from msdyn.fit.config import FitConfig
from msdyn.logs import LoggedRun, open_logs
from msdyn.reading import read_rgb
from msdyn.writing import StepLog

__all__ = ["FitLog"]

_GROUPS = {
    "loss": "loss/total",
    "psnr": "psnr",
    "static": "gaussians/static",
    "moving": "gaussians/moving",
    "seconds": "seconds",
}
"""Names of curves; all other values are terms of the loss."""


class FitLog(StepLog):
    """Writes entries of a fit; as a context, it ends with the previews, and closes all logs."""

    def __init__(self, path: Path, step: int, config: FitConfig) -> None:
        """Open the log of a fit that goes on after a step.

        Raises:
            MissingExtraError: the package of a log is not installed.
        """
        super().__init__(path, step)
        options = json.loads(json.dumps(asdict(config), default=str))
        self._logs = open_logs(config.log, LoggedRun("msdyn-fit", path.parent, options, step))

    def __enter__(self) -> FitLog:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None and self.last is not None and self._logs:
            for path in sorted((self.path.parent / "previews").glob("*.png")):
                picture = read_rgb(path)
                self._logs.picture(f"preview/{path.stem}", picture, self.last["step"])
        self.close()

    def add(self, entry: dict[str, Any], optimisers: Iterable[torch.optim.Optimizer] = ()) -> None:
        """Append an entry; the logs have the learning rates of the optimisers too."""
        super().add(entry)
        if self._logs:
            self._logs.scalars(_curves(entry) | _rates(optimisers), entry["step"])

    def close(self) -> None:
        """Finish the logs; further entries are lines only."""
        self._logs.close()


def _curves(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of an entry by the names of their curves."""
    values = {name: value for name, value in entry.items() if name != "step"}
    return {_GROUPS.get(name, f"loss/{name}"): value for name, value in values.items()}


def _rates(optimisers: Iterable[torch.optim.Optimizer]) -> dict[str, float]:
    """Return the learning rate of each named group of parameters, of the motion without a name."""
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    return {f"rate/{group.get('name', 'motion')}": group["lr"] for group in groups}
