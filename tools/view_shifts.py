"""By how much what a fit shows in held-out images is displaced, in px.

    python tools/view_shifts.py out/ablation/24x160x20/*/exact-0/fit_full --json FILE

A surface that lies too near is displaced away from the input camera in the images of the others,
by more the farther they are from it, whatever is rendered as its depth. The displacement of all
images of a held-out camera is one step of Lucas and Kanade (1981) from the rendered to the true
ones, over covisible pixels, of static and of moving surfaces apart.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_command, describe_machine
from view_errors import PARTS, moving_pixels

# Pixels at the border of the image have no gradient; larger differences are not displacements.
_BORDER, _MOST = 3, 40.0


def shifts_of(folder: Path) -> dict[str, Any]:
    """Return the displacements [x, y], px, by held-out camera and part, of a fit."""
    from msdyn.evaluate import evaluate_views
    from msdyn.scene import Scene
    from msdyn.sequence import load_sequence
    from msdyn.synthetic import make_scene

    scene, name = Scene(folder.parent), folder.parent.parent.name
    height, width = scene.size
    moving = moving_pixels(make_scene(name, frames=len(scene), width=width, height=height))
    sums: dict[str, dict[str, Any]] = {}

    def add(view: Any, frame: int, image: Any) -> None:
        found, true = (v.astype(float).mean(-1) for v in (image.rgb8, view.image(frame)))
        by_y, by_x = np.gradient((found + true) / 2)
        gradient = np.stack([by_x, by_y], -1)
        used = view.covisible(frame) & (np.abs(true - found) < _MOST)
        inner = np.zeros_like(used)
        inner[_BORDER:-_BORDER, _BORDER:-_BORDER] = True
        on_object = moving[view.name][frame]
        for part, own in zip(PARTS, (on_object, ~on_object), strict=True):
            g, difference = gradient[used & inner & own], (found - true)[used & inner & own]
            total = sums.setdefault(view.name, {}).setdefault(part, np.zeros((2, 3)))
            total += np.column_stack([g.T @ g, g.T @ difference])

    evaluate_views(load_sequence(folder / "sequence.safetensors"), scene, keep=add)
    return {
        "scene": name,
        "fit": f"{folder.parent.name}/{folder.name}",
        "shifts": {
            view: {part: np.linalg.solve(t[:, :2], t[:, 2]).tolist() for part, t in parts.items()}
            for view, parts in sums.items()
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folders", type=Path, nargs="+", help="of fits of an ablation")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    results = []
    for folder in arguments.folders:
        results.append(shifts_of(folder))
        for view, parts in results[-1]["shifts"].items():
            text = ", ".join(f"{part} {x:+.2f} {y:+.2f}" for part, (x, y) in parts.items())
            print(f"{results[-1]['scene']:17} {results[-1]['fit']} {view:8} {text}", flush=True)
    if arguments.json:
        summary = {
            "command": describe_command("view_shifts.py", sys.argv[1:]),
            "machine": describe_machine(),
            "results": results,
        }
        arguments.json.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
