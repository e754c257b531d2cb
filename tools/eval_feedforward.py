"""Measure a feed-forward network on scenes that it has not seen, beside trivial predictions.

    python tools/eval_feedforward.py small --json feedforward_small.json

Random scenes with unseen seeds: `random` ones of the first training, `varied` ones of its
continuation, and `held-out` ones, with shapes and textures that no training has. Scenes of
`msdyn.synthetic`, which have other shapes, textures and another renderer: windows of four frames of
a clip, whose query times lie between the input frames, seen by the moving camera of the clip. Each
figure is beside that of a trivial prediction: zero motion, the mean depth of the clip, the same
Gaussians without motion, the input frame nearest in time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from machine import describe_machine
from oracle_network import Oracle

from msdyn.feedforward import Movies
from msdyn.feedforward.assemble import Pruning, assemble
from msdyn.feedforward.inference import input_size, predict_window, resized_image
from msdyn.feedforward.pretrained import FoundModel, find_model
from msdyn.feedforward.scenes.random_scenes import SceneOptions
from msdyn.feedforward.training.curriculum import HELD_OUT_SCENES, VARIED_SCENES, small_on_cpu
from msdyn.feedforward.training.evaluation import evaluate, unseen_batches
from msdyn.render import render_image
from msdyn.scene import Scene
from msdyn.sequence import GaussianSequence
from msdyn.synthetic import Truth, make_scene, render_truth, write_truth
from msdyn.writing import write_json

SCENES = ("two-boxes", "demo", "rigid", "articulated", "deformable", "two-hands")
RANDOM: dict[str, SceneOptions] = {
    "random": small_on_cpu(1).stages[-1].scenes,
    "varied": VARIED_SCENES,
    "held-out": HELD_OUT_SCENES,
}
FRAMES, EVERY = 36, 3
CPU = torch.device("cpu")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("model", help="name of a network, or file of weights")
    parser.add_argument("--only", nargs="+", default=[*RANDOM, *SCENES])
    parser.add_argument("--count", type=int, default=64, help="random scenes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = find_model(arguments.model)
    model = found.load()
    rows: dict[str, dict[str, float]] = {}
    print(f"{'scenes':<12} {'EPE moving':>16} {'static':>7} {'AbsRel':>13} {'PSNR':>6} ", end="")
    print(f"{'no motion':>9} {'nearest':>7}")
    for name in arguments.only:
        if name in RANDOM:
            rows[name] = random_figures(model, found, RANDOM[name], arguments.count)
        else:
            rows[name] = scene_figures(model, found, name)
        _print(name, rows[name])
    if arguments.json:
        machine = describe_machine(None, ("msdyn", "tools"))
        write_json(arguments.json, {"measured_on": machine, "model": found.about, "rows": rows})
    return 0


def random_figures(
    model: Movies, found: FoundModel, scenes: SceneOptions, count: int
) -> dict[str, float]:
    """Return figures on random scenes of a kind with unseen seeds."""
    options = replace(
        small_on_cpu(1).stages[-1].batch,
        scenes=4, frames=found.frames, queries=2, query_times="random", targets=True,
    )  # fmt: skip
    return evaluate(model, unseen_batches(scenes, options, count))


def scene_figures(model: Movies, found: FoundModel, name: str) -> dict[str, float]:
    """Return figures on windows of a clip of `msdyn.synthetic`."""
    truth = render_truth(make_scene(name, frames=FRAMES, width=160, height=120))
    sums: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(write_truth(truth, Path(folder) / "scene"))
        length = EVERY * (found.frames - 1)
        for start in range(0, FRAMES - length, length):
            frames = list(range(start, start + length + 1, EVERY))
            for key, values in _window_figures(model, found, truth, scene, frames).items():
                sums.setdefault(key, []).extend(values)
    return {key: float(np.mean(values)) for key, values in sums.items()}


def _window_figures(
    model: Movies, found: FoundModel, truth: Truth, scene: Scene, frames: list[int]
) -> dict[str, list[float]]:
    """Return errors, of pixels (in the network's units) and of images (dB)."""
    size = input_size(scene.info.width, scene.info.height, found.long_side, model.config.patch)
    options: dict[str, Any] = {"size": size, "scale": None, "device": CPU}
    window = predict_window(model, scene, frames, **options)
    exact = predict_window(Oracle(truth.spec, [frames]), scene, frames, **(options | {"scale": 3}))
    relative = ((window.depth - exact.depth).abs() / exact.depth).flatten()
    constant = ((exact.depth.mean() - exact.depth).abs() / exact.depth).flatten()
    length = exact.displacements.norm(dim=-1) / window.scale
    error = (window.displacements - exact.displacements).norm(dim=-1) / window.scale
    moving = length.amax(-1, keepdim=True).expand(length.shape) > 1e-4
    others = ~torch.eye(len(frames), dtype=torch.bool)[:, None, None].expand(length.shape)
    figures = {
        "epe": error[moving & others],
        "epe_zero": length[moving & others],
        "epe_static": error[~moving & others],
        "absrel": relative,
        "absrel_constant": constant,
    }
    result = {key: [float(value.mean())] for key, value in figures.items()}
    sequence, _ = assemble(scene, [window], moving=model.config.moving, pruning=Pruning())
    still = sequence.replaced(
        motion=type(sequence.motion)(0 * sequence.motion.displacements, sequence.motion.key_frames)
    )
    between = [f for f in range(frames[0], frames[-1]) if f not in frames]
    for key, values in _image_figures(sequence, still, scene, frames, between, size).items():
        result[key] = values
    return result


def _image_figures(
    sequence: GaussianSequence,
    still: GaussianSequence,
    scene: Scene,
    frames: list[int],
    between: list[int],
    size: tuple[int, int],
) -> dict[str, list[float]]:
    cameras = scene.cameras.resized(*size)
    result: dict[str, list[float]] = {"psnr": [], "psnr_without_motion": [], "psnr_nearest": []}
    for frame in between:
        time = float(scene.info.timeline.times[frame])
        target = _small(scene.image(frame), size)
        nearest = min(frames, key=lambda f: abs(f - frame))
        images = {
            "psnr": render_image(sequence, cameras[frame], time).rgb,
            "psnr_without_motion": render_image(still, cameras[frame], time).rgb,
            "psnr_nearest": _small(scene.image(nearest), size),
        }
        for key, image in images.items():
            result[key].append(-10 * np.log10(np.square(image - target).mean()))
    return result


def _small(image: np.ndarray, size: tuple[int, int]) -> Float[np.ndarray, "height width 3"]:
    return resized_image(image, size).permute(1, 2, 0).numpy()


def _print(name: str, row: dict[str, float]) -> None:
    print(
        f"{name:<12} {row['epe']:.4f} / {row['epe_zero']:.4f}  {row['epe_static']:.4f} "
        f"{row['absrel']:.3f} / {row['absrel_constant']:.3f} {row['psnr']:6.2f} "
        f"{row['psnr_without_motion']:9.2f} {row['psnr_nearest']:7.2f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
