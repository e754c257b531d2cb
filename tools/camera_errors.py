"""Errors of the cameras before and after a fit, and what they cost, on synthetic scenes.

    python tools/camera_errors.py --scenes rigid deformable --priors casual exact --seeds 0 1

Every scene is written with each kind of priors and seed, and fitted with each value of `--refine`,
every eighth frame held out. For each fit are printed, and added to results.jsonl in --out:

    degrees, cm   root mean square errors of the cameras' rotations and centres, in the world of the
                  input, which has no error on average; of the input, and of the sequence
    views         mPSNR of two held-out cameras, dB
    held          PSNR of the held-out frames, in the sequence's cameras, dB
    epe           error of the true 3D tracks of moving points, cm
    seconds       of the processor

A value of `--refine` may end in a learning rate of the cameras: joint:0.001.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from machine import describe_machine
from scipy.spatial.transform import Rotation

from msdyn.evaluate import evaluate_frames, evaluate_tracks, evaluate_views
from msdyn.evaluate.stamp import code_stamp
from msdyn.fit import fit_scene, preset
from msdyn.geometry import Cameras
from msdyn.progress import track
from msdyn.scene import Scene, read_cameras, write_cameras
from msdyn.synthetic import make_scene, render_truth, write_priors

EVERY = 8
SIZE = {"frames": 24, "width": 160, "height": 120}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--scenes", nargs="+", default=["rigid"])
    parser.add_argument("--priors", nargs="+", default=["casual", "exact"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--refine", nargs="+", default=["auto", "joint"])
    parser.add_argument("--out", type=Path, default=Path("out/cameras"))
    arguments = parser.parse_args()
    cells = [
        (name, kind, seed, refine)
        for name in arguments.scenes
        for kind in arguments.priors
        for seed in arguments.seeds
        for refine in arguments.refine
    ]
    stamp = {**code_stamp(), "machine": describe_machine()}
    for name, kind, seed, refine in track(cells, "fits"):
        row = {"scene": name, "priors": kind, "seed": seed, "refine": refine}
        row |= run(write_scene(name, kind, seed, arguments.out), seed, refine)
        print(json.dumps(row), flush=True)
        with (arguments.out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row | stamp) + "\n")
    return 0


def write_scene(name: str, kind: str, seed: int, out: Path) -> Path:
    """Return the folder of a scene with its priors, and its true cameras beside them."""
    folder = out / name / f"{kind}-{seed}"
    if not (folder / "true_cameras.json").is_file():
        truth = render_truth(make_scene(name, **SIZE))
        write_priors(truth, folder, level=kind, seed=seed)
        write_cameras(folder / "true_cameras.json", truth.clip.cameras)
    return folder


def run(folder: Path, seed: int, refine: str) -> dict[str, Any]:
    """Fit and evaluate."""
    scene, truth = Scene(folder), read_cameras(folder / "true_cameras.json")
    kind, _, rate = refine.partition(":")
    config = replace(
        preset("quick"),
        refine=kind,
        seed=seed,
        scene=folder,
        out=folder / ("fit_" + refine.replace(":", "_")),
        holdout_every=EVERY,
    )
    if rate:
        config = replace(config, rate=replace(config.rate, cameras=float(rate)))
    started = time.process_time()
    sequence = fit_scene(scene, config)
    seconds = time.process_time() - started
    tracks = evaluate_tracks(sequence, scene)
    assert tracks is not None
    held = evaluate_frames(sequence, scene, list(range(EVERY - 1, len(scene) - 1, EVERY)))
    return {
        "input": errors(scene.cameras, truth),
        "cameras": errors(sequence.cameras, truth),
        "views": round(evaluate_views(sequence, scene)["mpsnr"], 3),
        "held": round(held["mpsnr"], 3),
        "epe": round(100 * tracks["epe3d_moving"], 3),
        "seconds": round(seconds),
    }


def errors(cameras: Cameras, truth: Cameras) -> dict[str, float]:
    """Return root mean square errors: degrees, and centimetres."""
    relative = cameras.cam_from_world[:, :3, :3] @ truth.world_from_cam[:, :3, :3]
    degrees = Rotation.from_matrix(relative).magnitude() * 180 / np.pi
    apart = np.linalg.norm(cameras.centres - truth.centres, axis=1)
    return {"degrees": round(_rms(degrees), 4), "cm": round(100 * _rms(apart), 4)}


def _rms(values: Float[np.ndarray, " frames"]) -> float:
    return float(np.sqrt((values**2).mean()))


if __name__ == "__main__":
    raise SystemExit(main())
