"""Squared errors of held-out views, of moving and of static pixels apart.

mPSNR is of all covisible pixels. Where an ablation asks which part of an error is of the motion,
moving pixels must be told from static ones; their true masks come from casting rays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from msdyn.render import RenderedImage
from msdyn.scene import View
from msdyn.synthetic import SceneSpec
from msdyn.synthetic.raycast import Caster, pixel_centres, rays_through

__all__ = ["PARTS", "ViewErrors", "moving_pixels"]

PARTS = ("moving", "static")


def moving_pixels(spec: SceneSpec) -> dict[str, Bool[np.ndarray, "frames height width"]]:
    """Return, for each held-out camera, the pixels whose centre shows a moving object."""
    caster, masks = Caster(spec), {}
    for name, camera in spec.views.items():
        rays = rays_through(camera, pixel_centres(camera))
        hits = [caster.mesh(t).cast(camera.centres[0], rays)[0].face for t in range(spec.frames)]
        moving = (np.stack(hits) >= 0) & (caster.face_object[np.stack(hits)] > 0)
        masks[name] = moving.reshape(spec.frames, camera.height, camera.width)
    return masks


class ViewErrors:
    """Collects the errors of the views of one fit; `add` is what `evaluate_views` may keep with."""

    def __init__(self, moving: dict[str, Bool[np.ndarray, "frames height width"]]) -> None:
        self._moving = moving
        self._rows: dict[str, dict[int, Float[np.ndarray, "parts 2"]]] = {}

    def add(self, view: View, frame: int, image: RenderedImage) -> None:
        """Add the errors of the covisible pixels of an image."""
        difference = (image.rgb8.astype(float) - view.image(frame)) / 255
        squared, covisible = (difference**2).mean(-1), view.covisible(frame)
        moving = self._moving[view.name][frame]
        parts = [covisible & moving, covisible & ~moving]
        sums = np.array([[squared[own].sum(), own.sum()] for own in parts])
        self._rows.setdefault(view.name, {})[frame] = sums

    def result(self) -> dict[str, Any]:
        """Return PSNR of moving and static pixels, and the errors by image.

        Returns:
            `psnr_moving` and `psnr_static`: means over the images that have such pixels; `share`:
            the mean share of the moving pixels in the squared error; `images`: by view, for each
            image its frame, and the sum of squared errors and the number of pixels of each part.
        """
        rows = [row for frames in self._rows.values() for row in frames.values()]
        found: dict[str, Any] = {}
        for number, part in enumerate(PARTS):
            own = [row[number] for row in rows if row[number, 1]]
            psnr = [-10 * np.log10(max(total / count, 1e-10)) for total, count in own]
            found[f"psnr_{part}"] = float(np.mean(psnr)) if psnr else float("nan")
        totals = np.sum(rows, 0)
        found["share"] = float(totals[0, 0] / max(totals[:, 0].sum(), 1e-12))
        found["images"] = {
            name: [
                [frame, *(round(float(v), 4) for v in row.reshape(-1))]
                for frame, row in sorted(frames.items())
            ]
            for name, frames in self._rows.items()
        }
        return found
