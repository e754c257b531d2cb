"""What is missing to a perfect image, in dB, by what would have to be known to gain it.

The rows of the ablation that know something of the truth are compared in the one frame that the
scenes that stand still have: full with the priors of the table; with true motion; with true motion
and exact priors; a scene that stands still, from the cameras of the clip; and from all around.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ablation_spec import FROZEN, SHOWN, Size

__all__ = ["STEPS", "decompose", "psnr_at", "write_decomposition"]

STEPS = (
    ("full", "sensor"),
    ("true motion", "sensor"),
    ("true motion", "exact"),
    ("frozen", "exact"),
    ("frozen, around", "exact"),
)
GAINS = ("motion", "priors", "moving", "views")
"""What the second and each further step gains."""


def psnr_at(result: dict[str, Any], frame: int) -> list[float]:
    """Return mPSNR of covisible, of moving and of static covisible pixels in a frame.

    Means over the held-out cameras, NaN where no camera has such pixels.
    """
    wanted = 0 if result["row"] in FROZEN else frame
    rows = []
    for images in result["parts"]["images"].values():
        for number, *values in images:
            if number == wanted:
                sums = np.reshape(values, (2, 2))
                sums = np.stack([sums.sum(0), *sums])  # all, moving, static
                with np.errstate(all="ignore"):
                    rows.append(-10 * np.log10(sums[:, 0] / sums[:, 1]))
    known = np.ma.masked_invalid(rows)
    return np.ma.filled(known.mean(0), np.nan).tolist() if rows else [float("nan")] * 3


def decompose(results: list[dict[str, Any]], frame: int) -> dict[str, list[list[float]]]:
    """Return for each scene that has them the three figures of `psnr_at` at each of `STEPS`."""
    found = {(r["scene"], r["row"], r["priors"]): r for r in results if r["seed"] == 0}
    scenes = dict.fromkeys(r["scene"] for r in results)
    nothing = [float("nan")] * 3
    return {
        scene: [
            psnr_at(found[scene, *step], frame) if (scene, *step) in found else nothing
            for step in STEPS
        ]
        for scene in scenes
        if (scene, *STEPS[0]) in found
    }


def write_decomposition(table: dict[str, list[list[float]]]) -> str:
    """Return a markdown table: mPSNR at each step, in brackets that of moving and static pixels."""
    titles = [f"{row}, {priors}" for row, priors in STEPS]
    lines = ["| | " + " | ".join(titles) + " |", "|---|" + "---|" * len(titles)]
    steps = np.array(list(table.values()))  # [scenes, steps, 3]
    names = [*table, "mean"]
    with np.errstate(all="ignore"):
        complete = steps[np.isfinite(steps[..., 0]).all(1)]
        mean = complete.mean(0) if len(complete) else np.full(steps.shape[1:], np.nan)
    for name, own in zip(names, [*steps, mean], strict=True):
        cells = ["" if np.isnan(v[0]) else f"{v[0]:.2f} ({v[1]:.1f}, {v[2]:.1f})" for v in own]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    gains = []
    for number, title in enumerate(GAINS):
        change = np.diff(steps[:, number : number + 2, 0], axis=1)[:, 0]
        known = change[np.isfinite(change)]
        if len(known):
            gains.append(f"{title} {known.mean():+.2f} dB ({len(known)} scenes)")
    return "\n".join([*lines, "", "Mean gains: " + ", ".join(gains)])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("files", type=Path, nargs="+", help="files of `ablation.py --json`")
    parser.add_argument("--frames", type=int, default=Size.frames, help="of the scenes")
    arguments = parser.parse_args()
    results = [r for path in arguments.files for r in json.loads(path.read_text())["results"]]
    print(write_decomposition(decompose(results, round(SHOWN * (arguments.frames - 1)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
