"""Kernels and waits of a fit and of rendering on a pretend card (`pretend_card.py`): no GPU needed.

`python tools/gpu_check.py --only audit --json FILE` runs it. A kernel is an operation of torch that
computes something, or a function of gsplat; torch launches one or a few for it. A wait is whatever
makes the host wait for the GPU. Numbers of kernels depend on the options, not on the sizes.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from pretend_card import CARD, Card
from pretend_gsplat import gsplat_on_the_card
from time_sequence import random_sequence

from msdyn.fit import DensityConfig, Fitter, MotionConfig, preset
from msdyn.fit.sampling import frames_of_step
from msdyn.render import draw, render_image
from msdyn.scene import Scene

__all__ = ["audit_fit", "audit_rendering"]

_EVERY = 2  # steps between density controls


def audit_fit(scene: Path) -> dict[str, Any]:
    """Return kernels and waits of steps of a fit, for some variants of its options.

    Args:
        scene: a small scene directory.
    """
    small = replace(
        preset("default"),
        scene=scene,
        epochs=4,  # cameras are optimised after a tenth of the steps
        batch=2,
        static_gaussians=200,
        moving_gaussians=100,
        motion=MotionConfig(prefit_steps=1),
        density=DensityConfig(start=0.0, stop=1.0, every=_EVERY, grow_gradient=1e-9),
    )
    variants = {
        "default": small,
        "time-varying weights": replace(
            small, motion=replace(small.motion, weights="time-varying")
        ),
        "single": replace(small, motion=replace(small.motion, model="single")),
        "cameras and exposure": replace(small, refine="joint", exposure="on"),
    }
    result = {}
    for name, config in variants.items():
        with tempfile.TemporaryDirectory() as folder:
            result[name] = _audit_steps(Scene(scene), replace(config, out=Path(folder)))
    return result


def _audit_steps(scene: Scene, config: Any) -> dict[str, Any]:
    """Return what an ordinary step does, and the waits of one with density control."""
    card = Card()
    rows = []
    with (
        mock.patch("msdyn.fit.fitter.choose_device", lambda name: CARD),
        gsplat_on_the_card(card),
        card,
    ):
        fitter = Fitter(scene, config)
        fitter.start()
        for _ in range(_EVERY + 2):
            card.clear()
            fitter._step_in_parts(frames_of_step(fitter.data.frames, config, fitter.step))
            fitter.step += 1
            rows.append((Counter(card.kernels), Counter(map(str, card.waits))))
    kernels, waits = rows[1]
    return {
        "kernels": kernels.total(),
        "waits": dict(waits),
        "largest": dict(kernels.most_common(12)),
        "waits_of_density_control": dict(rows[_EVERY][1]),
        "waits_of_the_next_step": dict(rows[_EVERY + 1][1]),
    }


@torch.no_grad()
def audit_rendering() -> dict[str, Any]:
    """Return kernels and waits of a frame, with the motion at a time between key frames."""
    sequence = random_sequence(300, 6, 64, 48)
    card = Card()
    result = {}
    with gsplat_on_the_card(card), card:
        sequence = sequence.to(CARD)
        cameras = sequence.cameras.tensors(CARD)
        times = torch.linspace(0, 4.9, 6, device=CARD)
        for name, render in {
            "colour": lambda: draw(sequence.posed(times[1:2]), cameras[1:2], depth=False),
            "on_host": lambda: render_image(sequence, sequence.cameras[1], 0.3),
        }.items():
            render()  # constants are copied once
            card.clear()
            render()
            result[name] = {
                "kernels": card.kernels.total(),
                "waits": dict(Counter(map(str, card.waits))),
            }
    return result
