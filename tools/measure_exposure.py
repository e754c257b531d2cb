"""Measure `msdyn-fit --exposure` on synthetic clips with exact truth whose exposure is changed.

    python tools/measure_exposure.py --out out/exposure --json benchmarks/exposure_cpu.json

A clip is rendered without flicker. Its frames are then decoded to linear light, multiplied by gains
per frame and channel, clipped, and encoded again; the held-out cameras keep the true colours. Every
clip is fitted with each value of the option and evaluated on the held-out cameras (mPSNR of
covisible pixels as it is, after one scale per channel for all images, and on moving pixels only)
and on held-out frames of the clip. Finished fits are not repeated. Real clips, preprocessed, are
given by `--real DIR ...` instead; of them, frames are held out only.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np

HOLDOUT = 8


def linear(colour: np.ndarray) -> np.ndarray:
    """Decode sRGB (IEC 61966-2-1)."""
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def encoded(light: np.ndarray) -> np.ndarray:
    """Encode sRGB, clipped to what a sensor holds."""
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def tone_mapped(light: np.ndarray) -> np.ndarray:
    """Encode with more contrast, as phones do: no gain of the encoded colours undoes a gain."""
    colour = encoded(light)
    return 0.5 * colour + 0.5 * colour * colour * (3 - 2 * colour)


def gains(kind: str, frames: int, seed: int) -> np.ndarray:
    """Return [T, 3] gains in linear light, 1 on the (geometric) mean but for `clipped`."""
    rng = np.random.default_rng(seed)
    time_, stops = np.linspace(0, 1, frames), np.zeros((frames, 3))
    if kind in ("steps", "tone", "clipped"):
        ends = np.sort(rng.choice(np.arange(2, frames - 2), 4, replace=False))
        levels = rng.permutation([-0.6, -0.3, 0.0, 0.3, 0.6])
        stops[:] = levels[np.searchsorted(ends, np.arange(frames), side="right")][:, None]
        stops += 0.9 if kind == "clipped" else 0
    elif kind == "drift":
        stops[:] = 0.6 * np.cos(np.pi * (time_ + rng.uniform(0, 2)))[:, None]
    elif kind == "white balance":
        stops[:] = 0.5 * np.cos(np.pi * (time_ + rng.uniform(0, 2)))[:, None] * [1, 0.1, -1]
    elif kind == "flashes":
        stops[rng.choice(np.arange(1, frames - 1), 3, replace=False)] = 0.9
    elif kind == "jitter":
        stops[:] = rng.normal(0, 0.12, (frames, 1)) + rng.normal(0, 0.03, (frames, 3))
    if kind != "clipped":
        stops -= stops.mean(0)
    return 2.0**stops


def make_clip(scene: str, kind: str, seed: int, size: tuple[int, int], out: Path) -> Path:
    """Write the scene directory of a clip with a kind of flicker and return it."""
    from msdyn.synthetic import make_scene, render_truth, write_priors

    clean = out / scene / f"clean-{seed}"
    if not (clean / "made").is_file():
        frames, width = size
        spec = make_scene(scene, frames=frames, width=width, height=width * 3 // 4, seed=seed)
        truth = render_truth(spec)
        write_priors(truth, clean, level="sensor", seed=seed)
        masks = {name: shot.masks for name, shot in truth.views.items()}
        np.savez_compressed(clean / "view_masks.npz", **masks)  # pyright: ignore
        (clean / "made").touch()
    folder = out / scene / f"{kind.replace(' ', '_')}-{seed}"
    if (folder / "made").is_file():
        return folder
    shutil.copytree(clean, folder, dirs_exist_ok=True)
    images = sorted((folder / "images").glob("*.png"))
    curve = tone_mapped if kind == "tone" else encoded
    for gain, path in zip(gains(kind, len(images), seed), images, strict=True):
        if kind != "none":
            colour = curve(linear(iio.imread(path) / 255) * gain)
            iio.imwrite(path, (colour * 255).round().astype(np.uint8))
    if kind in ("tone", "clipped"):  # the held-out cameras have the curve and the mean exposure
        level = 2.0**0.9 if kind == "clipped" else 1.0
        for path in (folder / "views").glob("*/images/*.png"):
            colour = curve(linear(iio.imread(path) / 255) * level)
            iio.imwrite(path, (colour * 255).round().astype(np.uint8))
    return folder


def psnr(error: np.ndarray) -> float:
    """Return dB of squared errors."""
    return float(-10 * np.log10(max(error.mean(), 1e-10)))


def view_figures(sequence: Any, scene: Any) -> dict[str, float]:
    """Return figures of the held-out cameras, which have no flicker."""
    from msdyn.render import render_image

    masks = np.load(scene.directory / "view_masks.npz")
    pairs = []
    for view in scene.views.values():
        for frame in list(view.frames)[::2]:
            time_ = sequence.timeline.time_of_frame(frame)
            image = render_image(sequence, view.cameras[frame], time_).rgb8 / 255
            seen = view.covisible(frame)
            moving = masks[view.name][frame][seen] > 0
            pairs.append((image[seen], view.image(frame)[seen] / 255, moving))
    scale = sum((a * b).sum(0) for a, b, _ in pairs) / sum((a * a).sum(0) for a, b, _ in pairs)
    rows = defaultdict(list)
    for image, truth, moving in pairs:
        error, scaled = (image - truth) ** 2, (scale * image - truth) ** 2
        rows["views"].append(psnr(error))
        rows["views scaled"].append(psnr(scaled))
        rows["moving scaled"].append(psnr(scaled[moving]))
    return {name: float(np.mean(values)) for name, values in rows.items()}


def run_cell(clip: Path, option: str, seed: int, epochs: int) -> dict[str, Any]:
    """Fit and evaluate; return the figures, also written beside the fit."""
    from msdyn.evaluate import evaluate_frames
    from msdyn.fit import DensityConfig, fit_scene, preset
    from msdyn.reading import read_json
    from msdyn.scene import Scene

    folder = clip / f"fit_{option}"
    result_path = folder / "result.json"
    if result_path.is_file():
        return json.loads(result_path.read_text(encoding="utf-8"))
    base = preset("quick")
    config = replace(
        base, scene=clip, out=folder, exposure=option, epochs=epochs, seed=seed,
        holdout_every=HOLDOUT, static_gaussians=2500, moving_gaussians=1200, device="cpu",
        density=DensityConfig(max_static=4000, max_moving=2000),
    )  # fmt: skip
    scene, started = Scene(clip), time.perf_counter()
    sequence = fit_scene(scene, config)
    seconds = time.perf_counter() - started
    held_out = list(range(HOLDOUT - 1, len(scene) - 1, HOLDOUT))
    frames = evaluate_frames(sequence, scene, held_out)
    exposure = sequence.exposure
    result = {
        **(view_figures(sequence, scene) if scene.views else {}),
        "held-out frames": frames["mpsnr"],
        "held-out frames moving": frames["psnr_moving"],
        "seconds": seconds,
        "log_gains": None if exposure is None else np.round(exposure.log_gains, 4).tolist(),
        "decision": read_json(folder / "refinement.json").get("exposure"),
    }
    result_path.write_text(json.dumps(result), encoding="utf-8")
    return result


KINDS = ("none", "jitter", "steps", "drift", "white balance", "flashes", "clipped", "tone")
FIGURES = (
    "views",
    "views scaled",
    "moving scaled",
    "held-out frames",
    "held-out frames moving",
)


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the change in dB by the option, per kind: mean over clips, and lowest to highest."""
    figures = [name for name in FIGURES if all(name in row["off"] for row in results.values())]
    head = ["kind", "clips", "chosen by auto", f"{figures[0]}: off"]
    head += [f"{name}: on - off" for name in figures]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    by_kind = defaultdict(list)
    for row in results.values():
        by_kind[row["kind"]].append(row)
    for kind, rows in by_kind.items():
        both = [row for row in rows if "on" in row]
        chosen = [bool(row["on"]["decision"]["significant"]) for row in both]
        cells = [kind, str(len(both)), f"{sum(chosen)} of {len(chosen)}"]
        cells += [f"{np.mean([row['off'][figures[0]] for row in both]):.2f}"]
        for name in figures:
            change = [row["on"][name] - row["off"][name] for row in both]
            cells.append(f"{np.mean(change):+.2f} ({min(change):+.2f} to {max(change):+.2f})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=Path("out/exposure"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scenes", nargs="+", default=["rigid", "deformable"])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--real", nargs="+", type=Path, help="scene directories")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--width", type=int, default=112)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only-clips", action="store_true")
    arguments = parser.parse_args()
    size = (arguments.frames, arguments.width)
    seeds, kinds = range(arguments.seeds), arguments.kinds
    cells = [(k, scene, seed) for seed in seeds for k in kinds for scene in arguments.scenes]
    if arguments.real:
        cells = [("real: " + folder.name, str(folder), 0) for folder in arguments.real]
    results = {}
    for kind, scene, seed in cells:
        real = bool(arguments.real)
        clip = Path(scene) if real else make_clip(scene, kind, seed, size, arguments.out)
        row: dict[str, Any] = {"kind": kind, "scene": clip.parent.name, "seed": seed}
        for option in () if arguments.only_clips else ("off", "on"):
            row[option] = run_cell(clip, option, seed, arguments.epochs)
            shown = {k: round(row[option][k], 3) for k in FIGURES if row[option].get(k)}
            print(clip, option, shown, row[option]["decision"], flush=True)
        results[f"{scene}, {kind}, {seed}"] = row
    if arguments.only_clips:
        return 0
    print(table(results))
    if arguments.json:
        from msdyn.evaluate.stamp import code_stamp

        content = {"command": sys.argv[1:], "stamp": code_stamp(), "clips": results}
        arguments.json.write_text(json.dumps(content) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
