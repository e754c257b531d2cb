"""The error of shared motion patterns on the true motion of synthetic scenes, without images.

    python tools/pattern_limits.py --scenes articulated random-0 --json limits.json

Models are fitted to exact trajectories of half of the points, all frames visible, and evaluated on
the other half, whose motion is mixed from the nearest points as that of Gaussians is. What is left
is the error of the representation and of this mixing: no model can do better in a fit with so many
patterns. With --visible the models know the points only while the camera sees them, and with
--noise 0.005 only with errors of 5 mm: how much of an error is of occlusion, and of noise.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ablation_spec import SCENES
from jaxtyping import Bool, Float, Int
from machine import describe_command, describe_machine
from scipy.spatial import KDTree
from true_motion import fit_to_trajectories

from msdyn.evaluate.stamp import code_stamp
from msdyn.motion import TrackedScene, motion_class
from msdyn.motion.config import MotionConfig
from msdyn.scene import LiftedTracks
from msdyn.synthetic import make_scene, surface_tracks

ROWS: dict[str, MotionConfig] = {
    "L1": MotionConfig(levels=1),
    "L1+L2": MotionConfig(levels=2),
    "full": MotionConfig(),
    "single": MotionConfig(model="single", k=10),
}
_NEAREST = 6


def limit(
    xyz: Float[np.ndarray, "tracks frames 3"],
    objects: Int[np.ndarray, " tracks"],
    config: MotionConfig,
    visible: Bool[np.ndarray, "tracks frames"] | None = None,
    *,
    noise: float = 0.0,
    steps: int = 200,
) -> float:
    """Return the mean distance of points from their true positions, in units of `xyz`.

    Args:
        xyz: true trajectories; those of odd rows are evaluated, from the others' motion.
        objects: mask index of each, from 1.
        config: the motion model.
        visible: where the motion model knows them; everywhere by default.
        noise: standard deviation of the errors with which it knows them.
        steps: of Adam.
    """
    fitted, others = xyz[::2], xyz[1::2]
    frames = xyz.shape[1]
    known = np.ones(fitted.shape[:2], bool) if visible is None else visible[::2]
    given = fitted + noise * np.random.default_rng(0).standard_normal(fitted.shape)
    tracks = LiftedTracks(
        np.where(known[..., None], given, 0.0),
        known,
        known.astype(float),
        objects[::2],
        np.zeros((*known.shape, 2)),
    )
    scene = TrackedScene(tracks, frames // 2, np.arange(frames))
    tracked = motion_class(config.model).from_tracks(scene, config)
    points = tracked.points.clone()
    observed = torch.from_numpy(given).float()
    fit_to_trajectories(tracked.motion, points, observed, steps, torch.from_numpy(known).float())
    errors = []
    for instance in np.unique(objects):
        own = np.flatnonzero(objects[::2] == instance)
        rest = others[objects[1::2] == instance]
        # As at initialisation: the nearest points of the object in one frame.
        frame = frames // 2
        distance, near = KDTree(fitted[own, frame]).query(rest[:, frame], k=min(_NEAREST, len(own)))
        near, distance = near.reshape(len(rest), -1), distance.reshape(len(rest), -1)
        width = np.maximum(distance.mean(1, keepdims=True), 1e-12)
        weights = torch.from_numpy(np.exp(-((distance / width) ** 2))).float()
        with torch.no_grad():
            motion = tracked.motion.select(torch.from_numpy(own)).mixed(
                torch.from_numpy(near).long(), weights
            )
            canonical = motion.undo(torch.from_numpy(rest[:, frame]).float(), float(frame))
            moved = motion.positions(canonical, torch.arange(float(frames))).transpose(0, 1)
        errors.append(np.linalg.norm(moved.numpy() - rest, axis=-1).reshape(-1))
    return float(np.concatenate(errors).mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--scenes", nargs="+", default=list(SCENES))
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--tracks", type=int, default=300, help="points of each object")
    parser.add_argument("--visible", action="store_true", help="known while visible only")
    parser.add_argument("--noise", type=float, default=0.0, help="of what is known, metres")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    print("| | " + " | ".join(arguments.rows) + " |\n|---|" + "---|" * len(arguments.rows))
    for name in arguments.scenes:
        spec = make_scene(name, frames=arguments.frames, width=160, height=120)
        tracks, _ = surface_tracks(spec, per_object=arguments.tracks, static=0)
        seen = tracks.visible.any(1)
        xyz, objects, visible = tracks.xyz[seen], tracks.object[seen].astype(int), None
        if arguments.visible:
            visible = tracks.visible[seen]
        found[name] = {
            row: limit(xyz, objects, ROWS[row], visible, noise=arguments.noise)
            for row in arguments.rows
        }
        cells = [f"{100 * value:.2f}" for value in found[name].values()]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    if arguments.json:
        result = {
            "command": describe_command("pattern_limits.py", sys.argv[1:]),
            "machine": describe_machine(),
            "stamp": code_stamp(),
            "epe": found,
        }
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
