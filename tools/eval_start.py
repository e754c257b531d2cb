"""Measure the start of a fit from a prediction against the start from tracks.

    python tools/eval_start.py --only two-boxes rigid --priors sensor --json start.json

The predictions are of a network that knows the truth, exact or with smooth errors of depth and
motion, and of a trained one (--model). Printed are the mPSNR of held-out views and the error of 3D
tracks on moving points after some epochs of the quick preset.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from machine import describe_machine
from oracle_network import SCALE, Errors, Oracle

from msdyn.evaluate import evaluate_tracks, evaluate_views
from msdyn.feedforward.assemble import Pruning, assemble
from msdyn.feedforward.inference import predict_windows
from msdyn.feedforward.predict import PredictConfig, predict_scene
from msdyn.feedforward.windows import choose_windows
from msdyn.fit import FitConfig, Fitter, preset
from msdyn.scene import Scene
from msdyn.sequence import GaussianSequence, save_sequence
from msdyn.synthetic import Truth, make_scene, render_truth, write_priors
from msdyn.writing import write_json

FRAMES = 20  # an epoch is as many steps, after which a fit reports
EPOCHS = (2, 5, 20)
EXACT, NOISY = Errors(), Errors(depth=0.05, motion=0.2)
SIDE = 160
STARTS = ("tracks", "exact", "noisy", "network")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", nargs="+", default=["rigid", "articulated", "deformable"])
    parser.add_argument("--priors", nargs="+", default=["sensor"])
    parser.add_argument("--model", help="file of weights, or name, of a trained network")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as work:
        for name in arguments.only:
            spec = make_scene(name, frames=FRAMES, width=240, height=180)
            truth = render_truth(spec, progress=True)
            for priors in arguments.priors:
                folder = Path(work) / f"{name}-{priors}"
                write_priors(truth, folder, level=priors, seed=arguments.seed)
                for label, figures in _starts(truth, Scene(folder), arguments):
                    rows[f"{name}, {priors}, {label}"] = figures
                    _print(f"{name}, {priors}, {label}", figures)
    if arguments.json:
        write_json(
            arguments.json,
            {"measured_on": describe_machine(None, ("msdyn", "preprocess", "tools")), "rows": rows},
        )
    return 0


def _starts(truth: Truth, scene: Scene, arguments: argparse.Namespace):
    """Yield the figures of each start of a fit."""
    options = replace(
        preset("quick"), scene=scene.directory, seed=arguments.seed, epochs=EPOCHS[-1]
    )
    if "tracks" in arguments.starts:
        yield "tracks", _figures(scene, options, None)
    for label, errors in (("exact", EXACT), ("noisy", NOISY)):
        if label in arguments.starts:
            predicted = _predict(truth, scene, errors)
            yield f"predicted, {label}", _figures(scene, options, predicted)
    if arguments.model and "network" in arguments.starts:
        predicted = predict_scene(scene, PredictConfig(scene.directory, model=arguments.model))
        yield "predicted, network", _figures(scene, options, predicted)


def _predict(truth: Truth, scene: Scene, errors: Errors) -> GaussianSequence:
    """Return the prediction of the network that knows the truth."""
    chosen = choose_windows(len(scene), 13, 2, 3)
    windows, _ = predict_windows(
        Oracle(truth.spec, chosen, errors=errors),
        scene,
        chosen,
        size=(SIDE, SIDE * 3 // 4),
        scale=SCALE,
        device=torch.device("cpu"),
    )
    return assemble(scene, windows, moving=0.003, pruning=Pruning())[0]


def _figures(
    scene: Scene, options: FitConfig, predicted: GaussianSequence | None
) -> dict[str, dict[str, float]]:
    """Return the figures by the number of epochs; of a prediction, also its own, unfitted."""
    figures: dict[str, dict[str, float]] = {}
    if predicted is not None:
        figures["prediction"] = _measure(predicted, scene)
        (scene.directory / "predict").mkdir(exist_ok=True)
        save_sequence(predicted, scene.directory / "predict" / "sequence.safetensors")
        options = replace(options, init="predict")
    options = replace(options, out=scene.directory / options.init)
    first = Fitter(scene, replace(options, out=scene.directory / "start"))
    first.directory.mkdir(exist_ok=True)
    first.start()
    figures["0"] = _measure(first.state(), scene)

    def watch(fitter: Fitter) -> None:
        if fitter.step % FRAMES == 0 and fitter.step // FRAMES in EPOCHS:
            figures[str(fitter.step // FRAMES)] = _measure(fitter.state(), scene)

    Fitter(scene, replace(options, restart=True), watch).run()
    return figures


def _measure(sequence: GaussianSequence, scene: Scene) -> dict[str, float]:
    views, tracks = evaluate_views(sequence, scene), evaluate_tracks(sequence, scene)
    return {"mpsnr": views["mpsnr"], "epe3d_moving": tracks["epe3d_moving"] if tracks else None}


def _print(label: str, figures: dict[str, dict[str, float]]) -> None:
    cells = [
        f"{key}: {row['mpsnr']:.2f} dB {100 * row['epe3d_moving']:.1f} cm"
        for key, row in figures.items()
    ]
    print(f"{label:<36}", " | ".join(cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
