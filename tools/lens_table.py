"""Measure what the lens of a clip is worth: a scene filmed through it, fitted with and without it.

    python tools/lens_table.py --out out/lenses

Renders a synthetic scene through lenses (exact rays), writes images, depth, masks and a COLMAP
model, preprocesses and fits (quick) each with its lens and as if it were a pinhole camera, and
prints the PSNR of held-out pinhole cameras, and of the frames as they were taken.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from msdyn.evaluate import evaluate_views
from msdyn.fit import fit_scene, preset
from msdyn.geometry import Lens
from msdyn.io import write_colmap
from msdyn.preprocess import PreprocessConfig, preprocess_video
from msdyn.render import LensPainter, render_image
from msdyn.scene import Scene, frame_path, write_depth, write_image, write_mask
from msdyn.sequence import GaussianSequence
from msdyn.synthetic import SceneSpec, make_scene, render_truth, write_truth
from msdyn.synthetic.picture import render_picture
from msdyn.synthetic.raycast import Caster
from msdyn.synthetic.shading import Shader

LENSES = {
    "OPENCV": (-0.25, 0.06, 0.002, -0.001),
    "OPENCV_FISHEYE": (0.03, -0.01, 0.004, -0.001),
}


def film(spec: SceneSpec, lens: Lens, folder: Path) -> None:
    """Write images, depth and masks of a scene through a lens, and COLMAP models with and without
    its distortion."""
    caster = Caster(spec)
    shader = Shader(caster)
    for frame in range(spec.frames):
        camera, light = spec.cameras[frame], shader.light(frame)
        picture = render_picture(caster, shader, frame, camera, light, 4, lens)
        write_image(frame_path(folder / "images", frame, ".png"), picture.image)
        write_depth(folder, frame, picture.depth)
        write_mask(folder, frame, picture.mask)
    names = [f"{frame:05d}.png" for frame in range(spec.frames)]
    lenses = [lens] * spec.frames
    write_colmap(folder / "lens", spec.cameras, names, lenses=lenses)
    write_colmap(folder / "pinhole", spec.cameras, names)


def original_psnr(sequence: GaussianSequence, scene: Scene, folder: Path) -> float:
    """Return the PSNR, dB, of the frames as they were taken, rendered through the lens, where the
    fit has seen them."""
    import imageio.v3 as iio

    errors, height, width = [], *scene.size
    y, x = np.mgrid[:height, :width] + 0.5
    shown = np.ones((height, width), bool)  # what the undistorted frames show of the taken ones
    if scene.lenses is not None:
        straight, shown = scene.lenses[0].straight(np.stack([x, y], axis=-1))
        shown &= ((straight >= 0) & (straight < [width, height])).all(-1)
    for frame in range(len(scene)):
        time, camera = float(sequence.timeline.times[frame]), sequence.cameras[frame]
        if scene.lenses is None:
            image = render_image(sequence, camera, time)
        else:
            image = LensPainter(sequence, lenses=scene.lenses).image(camera, time)
        truth = iio.imread(frame_path(folder / "images", frame, ".png")) / 255
        errors.append(float(((image.rgb - truth) ** 2)[shown].mean()))
        if frame == len(scene) // 2:
            pair = np.concatenate([image.rgb8, (truth * 255).astype(np.uint8)], axis=1)
            write_image(scene.directory / "original.png", pair)
    return float(-10 * np.log10(np.mean(errors)))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scene", default="demo")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", nargs=2, type=int, default=(160, 120))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lenses", nargs="+", default=list(LENSES), choices=list(LENSES))
    arguments = parser.parse_args()
    width, height = arguments.size
    spec = make_scene(arguments.scene, frames=arguments.frames, width=width, height=height)
    truth = Scene(write_truth(render_truth(spec), arguments.out / "truth"))
    k = spec.cameras.intrinsics[0]
    pinhole = (k[0, 0], k[1, 1], k[0, 2], k[1, 2])
    print("| lens | moved, px | given | held-out cameras, PSNR | frames as taken, PSNR |")
    print("|---|---|---|---|---|", flush=True)
    for model in arguments.lenses:
        lens = Lens(model, (*pinhole, *LENSES[model]), width, height)
        folder = arguments.out / model
        film(spec, lens, folder)
        for given in ("lens", "pinhole"):
            config = PreprocessConfig(
                video=folder / "images",
                out=folder / f"scene-{given}",
                folder_fps=spec.fps,
                cameras="files",
                cameras_path=folder / given,
                depth="files",
                depth_path=folder / "depth",
                masks="files",
                masks_path=folder / "masks",
                tracks="flow",
                preset="offline",
                world_units="metric",
            )
            scene = preprocess_video(config)
            options = replace(
                preset("quick"),
                scene=scene.directory,
                out=scene.directory / "fit",
                epochs=arguments.epochs,
            )
            sequence = fit_scene(scene, options)
            views = evaluate_views(sequence, truth)["mpsnr"]
            own = original_psnr(sequence, scene, folder)
            print(
                f"| {model} | {lens.displacement:.0f} | {given} | {views:.2f} | {own:.2f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
