"""Novel views of benchmarks: images of a camera at a time, whatever draws them.

A renderer is any function from camera and time to an image, so that a fit, a prediction and a
network that is asked for every single image are measured alike. Images are compared with 8 bits per
channel; nothing is optimised at test time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, UInt8

from msdyn.errors import InputError
from msdyn.evaluate.image_metrics import masked_psnr, masked_ssim, masked_ssim_dycheck
from msdyn.evaluate.lpips import Lpips
from msdyn.geometry import Cameras
from msdyn.render import render_image
from msdyn.scene import Scene
from msdyn.sequence import GaussianSequence

__all__ = ["Renderer", "Target", "evaluate_targets", "renderer_of", "targets_of_views"]

Renderer: TypeAlias = Callable[[Cameras, float], UInt8[np.ndarray, "height width 3"]]
"""From one camera and a normalised time to an RGB image."""

_FIGURES = ("psnr", "ssim", "mssim", "lpips", "psnr_moving")


@dataclass(frozen=True)
class Target:
    """A true image.

    Attributes:
        camera: one camera, in the world of the input.
        time: normalised time of the input clip.
        image: RGB.
        covisible: the pixels that count; all of them if None.
        moving: the pixels that show something that moves; None if not known.
    """

    camera: Cameras
    time: float
    image: UInt8[np.ndarray, "height width 3"]
    covisible: Bool[np.ndarray, "height width"] | None = None
    moving: Bool[np.ndarray, "height width"] | None = None


def renderer_of(sequence: GaussianSequence) -> Renderer:
    """Return the renderer of a sequence."""
    return lambda camera, time: render_image(sequence, camera, time).rgb8


def targets_of_views(scene: Scene) -> Iterator[Target]:
    """Yield the images of the held-out views of a scene that have covisible pixels, by time.

    Raises:
        InputError: the scene has no held-out views.
    """
    if not scene.views:
        raise InputError(f"{scene.directory / 'views'}: no held-out views to evaluate on")
    for frame in range(len(scene)):
        for view in scene.views.values():
            if frame not in view.frames or not (covisible := view.covisible(frame)).any():
                continue
            time = view.times.get(frame, scene.info.timeline.time_of_frame(frame))
            yield Target(view.cameras[frame], time, view.image(frame), covisible)


def evaluate_targets(
    renderer: Renderer, targets: Iterable[Target], *, lpips: Lpips | None = None
) -> dict[str, float | int | None]:
    """Return the means over images of their metrics.

    Args:
        renderer: what is evaluated.
        targets: true images.
        lpips: the network of LPIPS; without it, that metric is None.

    Returns:
        `psnr` and `ssim` of the pixels that count, `mssim` (DyCheck's definition), `lpips`, for
        images with a mask DyCheck's mLPIPS; `psnr_moving` of moving pixels, over images that have
        some; the number of `images`. A metric of no image is NaN.
    """
    rows: dict[str, list[float]] = {name: [] for name in _FIGURES}
    count = 0
    for target in targets:
        count += 1
        image, truth = renderer(target.camera, target.time) / 255, target.image / 255
        mask = target.covisible
        rows["psnr"].append(masked_psnr(image, truth, mask))
        rows["ssim"].append(masked_ssim(image, truth, mask))
        rows["mssim"].append(masked_ssim_dycheck(image, truth, mask))
        if lpips is not None:
            distance = lpips.average(image, truth) if mask is None else lpips(image, truth, mask)
            rows["lpips"].append(distance)
        if target.moving is not None and target.moving.any():
            rows["psnr_moving"].append(masked_psnr(image, truth, target.moving))
    means: dict[str, float | int | None] = {}
    for name, values in rows.items():
        # SSIM is NaN for an image without a whole covisible window.
        numbers = [value for value in values if not np.isnan(value)]
        means[name] = float(np.mean(numbers)) if numbers else float("nan")
    if lpips is None:
        means["lpips"] = None
    return {**means, "images": count}
