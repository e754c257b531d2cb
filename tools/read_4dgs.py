""".4dgs files at any time, by the reader of the format's own package."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import fourdgs
import numpy as np
from fourdgs.quantization import sh_coefficient
from splats import Splats

SH_C0 = 0.28209479177387814


def scene_of(path: Path) -> fourdgs.Scene:
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read(path: Path, _changed: int) -> fourdgs.Scene:
    return fourdgs.read(path)


def splats_at(path: Path, time: float) -> Splats:
    """Return the Gaussians of a file at a normalised time of the clip."""
    return splats_at_seconds(path, time * float(scene_of(path).header.attributes["clip_seconds"]))


def splats_at_seconds(path: Path, seconds: float) -> Splats:
    """Return the Gaussians of a file at a time on its clock."""
    scene = scene_of(path)
    state, stored = scene.state_at(seconds), scene.gaussians
    chosen = state["indices"]
    harmonics = (stored.colors[chosen, None, :3].astype(float) - 0.5) / SH_C0
    if stored.sh is not None:
        higher = sh_coefficient(stored.sh[chosen]).reshape(len(chosen), 3, -1).swapaxes(1, 2)
        harmonics = np.concatenate([harmonics, higher], 1)
    return Splats(
        state["centers"],
        state["orientations"][:, [3, 0, 1, 2]],
        stored.scales[chosen].astype(float),
        state["opacity"],
        harmonics,
    )
