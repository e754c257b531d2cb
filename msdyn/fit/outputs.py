"""Files that a fit writes beside its sequence: options, corrections of its input, previews."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import torch

from msdyn.fit.config import FitConfig
from msdyn.fit.exposure import FrameExposure
from msdyn.fit.initialize import Initialisation
from msdyn.indices import evenly_spaced
from msdyn.render import render_image
from msdyn.scene import Scene
from msdyn.sequence import GaussianSequence
from msdyn.version import __version__
from msdyn.writing import atomic_path, write_json

__all__ = ["refinement_of", "write_config", "write_previews"]


def write_config(path: Path, config: FitConfig, verdict: dict[str, str]) -> None:
    """Write the options, the verdict on the input, versions and seed next to the result."""
    options = json.loads(json.dumps(asdict(config), default=str))
    write_json(
        path,
        {
            "options": options,
            "input": verdict,
            "msdyn": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    )


def refinement_of(scene: Scene, start: Initialisation, exposure: FrameExposure) -> dict[str, Any]:
    """Return the corrections of cameras, depth and exposure with which a fit starts."""
    changes = start.data.refinement.summary(scene.cameras)
    objects, gains = start.object_depth.summary(), exposure.summary()
    return {**changes, "objects": objects, "exposure": gains}


def write_previews(folder: Path, scene: Scene, sequence: GaussianSequence) -> None:
    """Write input and rendering side by side for five frames."""
    frames = evenly_spaced(len(scene), 5)
    for frame in frames.tolist():
        time = sequence.timeline.time_of_frame(frame)
        image = render_image(sequence, sequence.cameras[frame], time, exposure=True)
        pair = np.concatenate([scene.image(frame), image.rgb8], axis=1)
        with atomic_path(folder / f"{frame:05d}.png") as path:
            iio.imwrite(path, pair)
