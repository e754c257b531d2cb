"""Time the rendering of whole sequences, including their motion, on a CPU or GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_render import random_gaussians
from jaxtyping import Float

from msdyn.geometry import SH_C0, Cameras
from msdyn.motion import MotionField
from msdyn.motion.pattern_field import PatternField
from msdyn.motion.weights import BlendWeights
from msdyn.render import draw, render_image
from msdyn.scene import Timeline
from msdyn.sequence import Gaussians, GaussianSequence, save_sequence

__all__ = ["compare_forms", "random_sequence", "time_first_frame", "time_rendering"]

ROOT = Path(__file__).parents[1]


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def random_sequence(count: int, frames: int, width: int, height: int) -> GaussianSequence:
    """Return a sequence of the benchmark's Gaussians, a third of them moving.

    The motion has three objects, 5 primitives of each and 10 grains of each of those.
    """
    means, quats, scales, opacities, colours = random_gaussians(count, width, height, 3)[:5]
    harmonics = ((colours - 0.5) / SH_C0)[:, None]
    moving = count // 3

    def part(rows: slice) -> Gaussians:
        logits = opacities[rows].logit(1e-3)
        return Gaussians(means[rows], scales[rows].log(), quats[rows], logits, harmonics[rows])

    generator = torch.Generator().manual_seed(0)
    patterns, neighbours = (3, 15, 150), (2, 4, 4)
    identity = torch.tensor([1.0, 0, 0, 0, 1, 0])
    field = PatternField(
        [torch.rand(n, 3, generator=generator) for n in patterns],
        [identity + 0.02 * torch.randn(n, frames, 6, generator=generator) for n in patterns],
        [0.02 * torch.randn(n, frames, 3, generator=generator) for n in patterns],
        [torch.arange(3), torch.arange(15) // 5, torch.arange(150) // 10],
        torch.arange(frames).float(),
        torch.arange(1, 4),
    )
    weights = [
        BlendWeights(
            torch.randint(0, n, (moving, k), generator=generator),
            torch.randn(moving, k, generator=generator),
        )
        for n, k in zip(patterns, neighbours, strict=True)
    ]
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 0, 3] = np.linspace(-0.1, 0.1, frames)
    return GaussianSequence(
        part(slice(moving, None)),
        part(slice(moving)),
        MotionField(field, weights),
        torch.randint(1, 4, (moving,), generator=generator),
        timeline=Timeline.uniform(frames, 30.0),
        cameras=Cameras.pinhole(float(width), width, height, poses),
        canonical_frame=0,
        world_units="arbitrary",
    )


@torch.no_grad()
def time_rendering(sequence: GaussianSequence, device: str, quick: bool) -> dict[str, Any]:
    """Return frames per second of a sequence in its own cameras, at times between its frames.

    `colour` and `everything` (with depth and the weight of moving Gaussians) leave the image on the
    device; `on_host` is `render_image`, to numpy; `batches_of_8` render eight frames in one call;
    `motion_only` poses without rendering.
    """
    sequence = sequence.to(device)
    cameras, frames = sequence.cameras, len(sequence.timeline)
    width, height = cameras.width, cameras.height
    on_device = cameras.tensors(device)
    positions = torch.linspace(0, (frames - 1) * 0.999, frames, device=device)
    moving = (sequence.at(0.0).labels > 0).float()[:, None]

    def rendered(
        rows: slice, *, everything: bool
    ) -> Float[torch.Tensor, "frames height width channels"]:
        return draw(
            sequence.posed(positions[rows]),
            on_device[rows],
            extra=moving if everything else None,
            depth=everything,
        ).features

    def one_by_one(everything: bool) -> None:
        for i in range(frames):
            rendered(slice(i, i + 1), everything=everything)

    def in_batches() -> None:
        for i in range(0, frames, 8):
            rendered(slice(i, i + 8), everything=False)

    def on_host() -> None:
        for i in range(frames):
            render_image(sequence, cameras[i], i / (frames - 1))

    def pose_only() -> None:
        for i in range(frames):
            sequence.posed(positions[i : i + 1])

    variants: dict[str, Callable[[], None]] = {
        "colour": lambda: one_by_one(False),
        "everything": lambda: one_by_one(True),
        "on_host": on_host,
        "batches_of_8": in_batches,
        "motion_only": pose_only,
    }
    result: dict[str, Any] = {"gaussians": sequence.num_gaussians, "image": [width, height]}
    for name, step in variants.items():
        times = []
        for _ in range(2 if quick else 4):
            wait(device)
            start = time.perf_counter()
            step()
            wait(device)
            times.append(time.perf_counter() - start)
        result[name] = frames / min(times[1:])
    return result


# Run in a new process, so that the time to a first frame includes all imports.
FIRST_FRAME = """
import json, sys, time
start = time.perf_counter()
import torch
from msdyn.render import render_image
from msdyn.sequence import load_sequence
path, device = sys.argv[1:]
marks = [time.perf_counter()]
sequence = load_sequence(path).to(device)
marks.append(time.perf_counter())
for _ in range(2):
    render_image(sequence, sequence.cameras[0], 0.5)
    marks.append(time.perf_counter())
names = ("imports", "loading", "first_image", "second_image")
print(json.dumps({n: b - a for n, a, b in zip(names, [start, *marks], marks)}))
"""


def time_first_frame(sequence: GaussianSequence, device: str) -> dict[str, float]:
    """Return seconds for imports, loading and the first two images, in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sequence.safetensors"
        save_sequence(sequence.cpu(), path)
        python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        run = subprocess.run(
            [sys.executable, "-c", FIRST_FRAME, str(path), device],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": python_path},
        )
    if run.returncode:
        raise RuntimeError(run.stderr[-3000:])
    times = json.loads(run.stdout.splitlines()[-1])
    return {**times, "to_the_first": sum(times.values()) - times["second_image"]}


def compare_forms(sequence: GaussianSequence, width: int, height: int) -> dict[str, float]:
    """Return milliseconds, forward and backward, of gsplat's dense and packed modes."""
    from gsplat import rasterization

    posed = sequence.to("cuda").canonical()
    tensors = [posed.means[0], posed.quats_wxyz[0], posed.scales, posed.opacities[0]]
    leaves = [value.detach().clone().requires_grad_() for value in tensors]
    colours = torch.rand(sequence.num_gaussians, 8, device="cuda", requires_grad=True)
    camera = sequence.cameras[0].tensors("cuda")
    result = {}
    for name, packed in (("dense", False), ("packed", True)):
        for repeat in range(40):
            if repeat == 10:  # after warm-up
                wait("cuda")
                start = time.perf_counter()
            image, _, _ = rasterization(
                *leaves, colours, camera.cam_from_world, camera.intrinsics, width, height,
                packed=packed,
            )  # fmt: skip
            image.sum().backward()
        wait("cuda")
        result[name] = (time.perf_counter() - start) / 30 * 1e3
    return result
