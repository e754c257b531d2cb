"""Evaluate the fits of an ablation again, in the true world.

    python tools/ablation_aligned.py out/ablation/36x240x20 --priors sensor --json FILE

Cameras with errors determine the world of a fit, its scale above all, only as well as the mean of
their errors. An error of three thousandths of the scale displaces a surface in a held-out camera 28
degrees away by a third of a pixel, the same for every row, whatever the fit. Here the held-out
cameras are moved by the similarity between the true and the refined input cameras
(`align_camera_paths`), and the images rendered again: what is left is the error of the fit.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ablation import _quiet, default_lpips
from ablation_spec import ROWS
from ablation_table import count_wins
from machine import describe_command, describe_machine
from view_errors import ViewErrors, moving_pixels


def aligned(folder: Path, result: dict[str, Any], lpips_files: list[Path]) -> dict[str, Any]:
    """Return the errors of the held-out images of a fit in the true world."""
    from msdyn.evaluate import evaluate_views, load_lpips
    from msdyn.geometry import align_camera_paths
    from msdyn.scene import Scene
    from msdyn.sequence import load_sequence
    from msdyn.synthetic import make_scene

    scene = Scene(folder.parent)
    sequence = load_sequence(folder / "sequence.safetensors")
    height, width = scene.size
    spec = make_scene(result["scene"], frames=len(scene), width=width, height=height)
    fit_from_true = align_camera_paths(spec.cameras, sequence.cameras)
    for view in scene.views.values():
        view.cameras = view.cameras.transformed(fit_from_true)
    errors = ViewErrors(moving_pixels(spec))
    views = evaluate_views(sequence, scene, keep=errors.add, lpips=load_lpips(lpips_files))
    found = errors.result()
    return {
        **{key: result[key] for key in ("row", "scene", "priors", "seed", "epe3d")},
        **{key: views[key] for key in ("mpsnr", "mssim", "ssim", "mlpips", "flicker")},
        "psnr_moving": found["psnr_moving"],
        "psnr_static": found["psnr_static"],
        "scale_error": fit_from_true.scale - 1,
        "as_given": result["mpsnr"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="of finished fits, with the size in its name")
    parser.add_argument("--priors", default="sensor")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=["full", "single"])
    parser.add_argument("--scenes", nargs="+", help="default: all")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    _quiet()
    results = []
    for path in sorted(arguments.folder.glob(f"*/{arguments.priors}-*/fit_*/result.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["row"] not in arguments.rows:
            continue
        if arguments.scenes and result["scene"] not in arguments.scenes:
            continue
        results.append(aligned(path.parent, result, default_lpips()))
        r = results[-1]
        print(
            f"{r['row']:12} {r['scene']:17} {r['seed']} {r['as_given']:6.2f} ->"
            f" {r['mpsnr']:6.2f} dB, moving {r['psnr_moving']:5.2f}, static"
            f" {r['psnr_static']:5.2f}; scale off by {1000 * r['scale_error']:.1f} thousandths",
            flush=True,
        )
    keys = ("as_given", "mpsnr", "psnr_moving", "psnr_static", "mssim", "ssim", "mlpips", "flicker")
    means = {
        row: {key: float(np.mean([r[key] for r in results if r["row"] == row])) for key in keys}
        for row in dict.fromkeys(r["row"] for r in results)
    }
    for row, values in means.items():
        print(row, " ".join(f"{key} {value:.4f}" for key, value in values.items()))
    if arguments.json:
        summary = {
            "command": describe_command("ablation_aligned.py", sys.argv[1:]),
            "machine": describe_machine(),
            "means": means,
            "wins": count_wins(results, "full", "single"),
            "results": results,
        }
        arguments.json.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
