"""Weights & Biases: an offline run in `wandb/`, which `wandb sync` sends where the user says.

Nothing is sent unless the environment says so (WANDB_MODE=online), and neither the name nor the
load of the machine, the code, the list of packages or the console is recorded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import UInt8

from msdyn.logs.log import LoggedRun, plain
from msdyn.logs.registry import register_log

__all__ = ["WandbLog"]

_STEP = "step"


@register_log("wandb", package="wandb", install="pip install 'msdyn[wandb]'")
class WandbLog:
    """A run of Weights & Biases; one that goes on has the same number."""

    def __init__(self, run: LoggedRun) -> None:
        # Before it is imported: it sends reports of its own errors and use otherwise.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb: Any = import_module("wandb")
        self._wandb = wandb
        run.folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "console": "off",
            "silent": True,
            "disable_git": True,
            "disable_code": True,
            "save_code": False,
            "x_disable_stats": True,
            "x_disable_meta": True,
            "x_save_requirements": False,
            "host": "",
        }
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", run.command),
            name=run.name,
            id=run.number,
            resume="allow",
            dir=str(run.folder),
            config=plain(run.config),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(**settings),
        )
        # Its own counter takes no step below the last one, as after a return to a checkpoint.
        self._run.define_metric(_STEP, hidden=True)
        self._run.define_metric("*", step_metric=_STEP)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to curves."""
        self._run.log({**values, _STEP: step})

    def picture(self, name: str, image: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        """Show a picture."""
        self._run.log({name: self._wandb.Image(image), _STEP: step})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
