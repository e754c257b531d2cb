"""`manifest.json`: the contents, times and conventions of a folder of exported files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Real

from msdyn.sequence import GaussianSequence
from msdyn.version import __version__

__all__ = ["manifest"]


def manifest(
    sequence: GaussianSequence, times: Real[np.ndarray, " times"], paths: list[Path], content: str
) -> dict[str, Any]:
    """Return the manifest of exported files, one per time (or per pair of successive times).

    Args:
        sequence: the fit.
        times: normalised.
        paths: the files.
        content: kind of the files, for `format`.
    """
    timeline = sequence.timeline
    duration = float(timeline.seconds[-1] - timeline.seconds[0])
    seconds = [float(time) * duration for time in times]
    return {
        "format": f"msdyn-{content}",
        "version": 1,
        "msdyn": __version__,
        "fps": timeline.fps,
        "times": [float(time) for time in times],
        "seconds": seconds,
        "frames": [float(f) for f in timeline.frame_positions(times)],
        "files": [path.name for path in paths],
        "world_units": sequence.world_units,
        "conventions": "world and scale of the input cameras; OpenCV axes; times from 0 (first "
        "frame) to 1 (last frame), seconds since the first frame",
    }
