"""Splats as other programs' readers give them, drawn beside msdyn's own renderings.

The readers of `read_<format>.py` return `Splats` of a file that msdyn-export has written; `compare`
draws them by msdyn's rasterizer, from the clip's cameras, and measures them against renderings of
the sequence itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from msdyn.evaluate import masked_psnr
from msdyn.geometry import Cameras
from msdyn.render import draw, render_image
from msdyn.sequence import GaussianSequence, PosedGaussians


@dataclass(frozen=True)
class Splats:
    """Gaussians at one time, in the world of the input cameras.

    Attributes:
        means: [G, 3] scene units.
        quats_wxyz: [G, 4].
        scales: [G, 3] standard deviations, scene units.
        opacities: [G] in [0, 1].
        harmonics: [G, (d+1)^2, 3] of the colour minus one half, evaluated in the world.
    """

    means: Float[np.ndarray, "gaussians 3"]
    quats_wxyz: Float[np.ndarray, "gaussians 4"]
    scales: Float[np.ndarray, "gaussians 3"]
    opacities: Float[np.ndarray, " gaussians"]
    harmonics: Float[np.ndarray, "gaussians coefficients 3"]


def picture(splats: Splats, camera: Cameras) -> Float[np.ndarray, "height width 3"]:
    """Draw splats by msdyn's rasterizer; RGB in [0, 1]."""

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))

    posed = PosedGaussians(
        tensor(splats.means)[None],
        tensor(splats.quats_wxyz)[None],
        tensor(splats.scales),
        tensor(splats.opacities)[None],
        tensor(splats.harmonics),
        torch.zeros(1, 0, 3, 3),
        torch.zeros(len(splats.means), dtype=torch.long),
    )
    drawn = draw(posed, camera.tensors(), depth=False)
    return drawn.features[0].clamp(0, 1).numpy()


def compare(
    sequence: GaussianSequence, at: Callable[[float], Splats], times: list[float]
) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Return, for each time, the PSNR (dB) of a file against the sequence, and the two pictures.

    Args:
        sequence: what was exported.
        at: the splats of the file at a normalised time.
        times: normalised; the cameras are the clip's.
    """
    rows = []
    for time in times:
        camera = sequence.camera_at(time)
        expected = render_image(sequence, camera, time, order="own").rgb
        found = picture(at(time), camera)
        rows.append((masked_psnr(found, expected), found, expected))
    return rows
