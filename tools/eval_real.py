"""Run the whole flow on a folder of real clips, as a user would, and show what comes out.

    python tools/eval_real.py clips --out out/real --max-frames 48 --preprocess "--depth small"

Every video of the folder is preprocessed and fitted with every eighth frame held out, in processes
of their own. For each clip are printed and written to figures/NAME.json in --out:

    exit          exit codes of msdyn-preprocess and msdyn-fit, and the last line on stderr
    verdicts      of the stages, with their reasons
    seconds       by stage
    psnr          of held-out and of fitted frames, each also of moving pixels only
    unsupported   share of pixels with alpha below one half in cameras rotated by 3, 7 and 12
                  degrees about the moving objects (or the middle of the scene)
    iou           of all moving pixels, where NAME_masks/*.png lies beside the video

and sheets/NAME.png has, for three times: input, masks, depth, the fit in the input camera, and in
the turned ones.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from machine import describe_machine
from tqdm import tqdm

from msdyn.colours import colour_depth, colour_objects
from msdyn.evaluate.protocol import evaluate_frames
from msdyn.geometry import Cameras, world_points_from_depth
from msdyn.geometry.paths import turned_about
from msdyn.render import render_image
from msdyn.scene import IGNORE, STATIC, Scene
from msdyn.sequence import GaussianSequence, load_sequence
from msdyn.writing import write_json

EVERY = 8
DEGREES = (3, 7, 12)
SHEET_WIDTH = 240
SMALLEST = 0.001  # share of moving pixels for which they are the centre of rotation
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("clips", type=Path, help="folder of videos")
    parser.add_argument("--out", type=Path, default=Path("out/real"))
    parser.add_argument("--only", nargs="+", help="names of clips, without suffix")
    parser.add_argument("--max-frames", type=int, default=48)
    parser.add_argument("--long-side", type=int, default=480)
    parser.add_argument("--preprocess", default="", help="further options of msdyn-preprocess")
    parser.add_argument("--fit", default="--preset quick", help="options of msdyn-fit")
    arguments = parser.parse_args()
    videos = sorted(p for p in arguments.clips.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
    if arguments.only:
        videos = [video for video in videos if video.stem in arguments.only]
    if not videos:
        parser.error(f"{arguments.clips}: no such videos")
    for video in tqdm(videos, unit="clip", disable=None):
        scene = arguments.out / "scenes" / video.stem
        figures = {
            "options": [arguments.preprocess, arguments.fit],
            "measured_on": describe_machine(None, ("msdyn", "preprocess", "tools")),
            **run_clip(video, scene, arguments),
        }
        if (scene / "fit" / "sequence.safetensors").is_file():
            sequence, done = load_sequence(scene), Scene(scene)
            figures |= fit_figures(sequence, done, video)
            write_sheet(sequence, done, arguments.out / "sheets" / f"{video.stem}.png")
        write_json(arguments.out / "figures" / f"{video.stem}.json", figures)
        sys.stdout.write(summary(video.stem, figures) + "\n")
    return 0


def run_clip(video: Path, scene: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run both commands and return exit codes, messages, verdicts and seconds."""
    size = ["--max-frames", str(arguments.max_frames), "--long-side", str(arguments.long_side)]
    preprocess = [str(video), "--out", str(scene), *size, *shlex.split(arguments.preprocess)]
    fit = [str(scene), "--holdout-every", str(EVERY), *shlex.split(arguments.fit)]
    result: dict[str, Any] = {"exit": {}, "message": {}, "seconds": {}}
    for name, options in (("preprocess", preprocess), ("fit", fit)):
        start = time.perf_counter()
        code = f"import sys; from msdyn.cli.{name} import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code, *options], capture_output=True, text=True, check=False
        )
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        result["exit"][name] = done.returncode
        result["message"][name] = lines[-1][:300] if lines and done.returncode else ""
        result["seconds"][name] = round(time.perf_counter() - start, 1)
        if name == "preprocess" and (scene / "scene.json").is_file():
            stages = Scene(scene).info.stages
            result["seconds"] |= {k: round(v["seconds"], 1) for k, v in stages.items()}
            result["quality"] = {k: v["quality"] for k, v in stages.items() if v["quality"]}
        if done.returncode:
            break
    return result


def fit_figures(sequence: GaussianSequence, scene: Scene, video: Path) -> dict[str, Any]:
    """Return what is measured on a fit."""
    held_out = list(range(EVERY - 1, len(scene) - 1, EVERY))
    fitted = list(range(EVERY // 2, len(scene), EVERY))
    result: dict[str, Any] = {"psnr": {}}
    for name, frames in (("held_out", held_out), ("fitted", fitted)):
        found = evaluate_frames(sequence, scene, frames)
        result["psnr"][name] = round(found["mpsnr"], 2)
        moving = found["psnr_moving"]
        result["psnr"][f"{name}_moving"] = None if moving is None else round(moving, 2)
    focus, unsupported = focus_of(scene), {}
    for degrees in DEGREES:
        shares = []
        for frame in fitted:
            camera = turned_about(sequence.cameras[frame], focus[frame], np.deg2rad(degrees))
            image = render_image(sequence, camera, frame / (len(scene) - 1))
            shares.append(float((image.alpha < 0.5).mean()))
        unsupported[str(degrees)] = round(float(np.mean(shares)), 4)
    result["unsupported"] = unsupported
    files = sorted(video.with_name(f"{video.stem}_masks").glob("*.png"))
    if files:
        result["iou"] = mask_overlap(scene, files)
    return result


def mask_overlap(scene: Scene, files: list[Path]) -> float:
    """Return the mean intersection over union of moving pixels with true masks, one per frame of
    the video; of the frames that were kept."""
    import cv2
    import imageio.v3 as iio

    height, width = scene.size
    kept = np.linspace(0, len(files) - 1, len(scene)).round().astype(int)
    shares = []
    for frame, index in enumerate(kept):
        true = cv2.resize(iio.imread(files[index]), (width, height)) > 0
        found = scene.mask(frame) > 0
        shares.append((true & found).sum() / max((true | found).sum(), 1))
    return round(float(np.mean(shares)), 4)


def focus_of(scene: Scene) -> Float[np.ndarray, "frames 3"]:
    """Return the centre of rotation per frame: the median of the moving points, or of all."""
    points = []
    for frame in range(len(scene)):
        depth, mask = scene.depth(frame), scene.mask(frame)
        moves = (mask != STATIC) & (mask != IGNORE) & (depth > 0)
        chosen = moves if moves.mean() > SMALLEST else depth > 0
        world = world_points_from_depth(depth, scene.cameras[frame])
        points.append(np.median(world[chosen], axis=0))
    return np.stack(points)


def write_sheet(sequence: GaussianSequence, scene: Scene, path: Path) -> None:
    """Write the contact sheet of a clip."""
    import cv2
    import imageio.v3 as iio

    focus, rows = focus_of(scene), []
    for share in (0.2, 0.5, 0.8):
        frame = round(share * (len(scene) - 1))
        image, mask = scene.image(frame), scene.mask(frame)
        overlay = np.where(mask[..., None] > 0, colour_objects(mask) // 2 + image // 2, image)
        depth = scene.depth(frame)
        near, far = np.percentile(depth[depth > 0], (1, 99))
        cells = [image, overlay, colour_depth(depth, float(near), float(far))]
        for degrees in (0, *DEGREES):
            camera: Cameras = turned_about(
                sequence.cameras[frame], focus[frame], np.deg2rad(degrees)
            )
            cells.append(render_image(sequence, camera, frame / (len(scene) - 1)).rgb8)
        rows.append(np.concatenate([_shrunk(cell, cv2) for cell in cells], axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    iio.imwrite(path, np.concatenate(rows))


def _shrunk(image: UInt8[np.ndarray, "height width 3"], cv2: Any) -> UInt8[np.ndarray, "h w 3"]:
    height = round(image.shape[0] * SHEET_WIDTH / image.shape[1])
    return cv2.resize(image, (SHEET_WIDTH, height), interpolation=cv2.INTER_AREA)


def summary(name: str, figures: dict[str, Any]) -> str:
    """Return one line on a clip."""
    exits = "/".join(str(code) for code in figures["exit"].values())
    if "psnr" not in figures:
        message = next((m for m in figures["message"].values() if m), "")
        return f"{name:<10} exit {exits}  {message}"
    psnr, away = figures["psnr"], figures["unsupported"]
    moving = [psnr["held_out_moving"], psnr["fitted_moving"]]
    shown = ["-" if value is None else f"{value:.1f}" for value in moving]
    return (
        f"{name:<10} exit {exits}  held out {psnr['held_out']:.2f} dB (moving {shown[0]})  "
        f"fitted {psnr['fitted']:.2f} (moving {shown[1]})  unsupported "
        + ", ".join(f"{away[str(d)]:.1%} at {d}" for d in DEGREES)
        + f" degrees  {figures['seconds']['preprocess']:.0f} + {figures['seconds']['fit']:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
