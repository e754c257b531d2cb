"""Trackio: runs in its database on this disk, shown by `trackio show`.

The database is where TRACKIO_DIR says, by default in the cache of Hugging Face; nothing is sent,
unless the environment names a server or a space (TRACKIO_SERVER_URL, TRACKIO_SPACE_ID).
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import UInt8

from msdyn.logs.log import LoggedRun, plain
from msdyn.logs.registry import register_log

__all__ = ["TrackioLog"]


@register_log("trackio", package="trackio", install="pip install 'msdyn[trackio]'")
class TrackioLog:
    """A run of Trackio; one that goes on has the same name."""

    def __init__(self, run: LoggedRun) -> None:
        trackio: Any = import_module("trackio")
        self._trackio = trackio
        # It prints where things are, which the documentation says.
        with contextlib.redirect_stdout(io.StringIO()):
            self._run: Any = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", run.command),
                name=run.name,
                resume="allow",
                config=plain(run.config),
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to curves."""
        self._run.log(dict(values), step=step)

    def picture(self, name: str, image: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        """Show a picture."""
        self._run.log({name: self._trackio.Image(image)}, step=step)

    def close(self) -> None:
        """Finish the run."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._trackio.finish()
