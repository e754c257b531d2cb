"""Measure what merging predicted Gaussians saves and costs, with a network that knows the truth.

    python tools/eval_pruning.py --scene two-boxes

Prints the number of static Gaussians and the PSNR of covisible pixels of the held-out views, by the
size of the voxels.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from oracle_network import SCALE, Oracle

from msdyn.evaluate import evaluate_views
from msdyn.feedforward.assemble import Pruning, assemble
from msdyn.feedforward.inference import predict_windows
from msdyn.scene import Scene
from msdyn.synthetic import make_scene, render_truth, write_truth


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--scene", default="two-boxes")
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--size", nargs=2, type=int, default=(128, 96))
    parser.add_argument("--voxels", nargs="+", type=float, default=[0, 1, 2, 4])
    arguments = parser.parse_args()
    width, height = arguments.size
    spec = make_scene(arguments.scene, frames=arguments.frames, width=width, height=height)
    chosen = [list(range(arguments.frames))]
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(write_truth(render_truth(spec), Path(folder) / "scene"))
        windows, _ = predict_windows(
            Oracle(spec, chosen),
            scene,
            chosen,
            size=(width, height),
            scale=SCALE,
            device=torch.device("cpu"),
        )
        for voxel in arguments.voxels:
            sequence, counts = assemble(scene, windows, moving=0.003, pruning=Pruning(voxel=voxel))
            psnr = evaluate_views(sequence, scene)["mpsnr"]
            print(f"voxel {voxel:g} px: {counts['static_merged']:,} static, {psnr:.1f} dB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
