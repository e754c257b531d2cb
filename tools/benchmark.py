"""Fit and evaluate every recording of a folder on its held-out cameras.

    python tools/benchmark.py --suite real recordings --out out/real
    python tools/benchmark.py --suite real recordings --rows L1 full --frames 48 --epochs 40

Every entry of the folder is one recording: CMU Panoptic as Dynamic 3D Gaussians packages it, D-NeRF
or Blender, Nerfies or HyperNeRF, our own layout (cameras.json), DyCheck, or a scene directory with
held-out views. The layout is found by its files. Each is preprocessed and fitted by every row in
processes of their own. What is done is not repeated, and a recording that fails is named in the
table and stops none of the others.

The output is `table.md`, `results.json` and `pictures.png` in --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablation_spec import MAIN_ROWS, ORACLES, ROWS
from real_table import summarise_real, write_real_pictures, write_real_table

from msdyn.thread_share import thread_budget, thread_environment

PLAIN = ("panoptic", "blender", "nerfies", "recording")


@dataclass(frozen=True)
class Settings:
    """What is done with every recording."""

    out: Path
    frames: int
    width: int
    factor: int
    epochs: int
    input_camera: str | None
    preprocess: tuple[str, ...]
    lpips: tuple[Path, ...]


def layout_of(path: Path) -> str | None:
    """Return the layout of a recording, None of anything else."""
    from msdyn.preprocess.recording_kinds import kind_of

    if not path.is_dir():
        return None
    kind = kind_of(path)
    if kind is None and (path / "scene.json").is_file():
        return "scene"
    return kind if kind in ("dycheck", *PLAIN) else None


def prepare(path: Path, layout: str, settings: Settings) -> Path:
    """Make the scene directory of a recording, or bring it up to date, and return it.

    Raises:
        RuntimeError: preprocessing fails; the message is its last line.
    """
    if layout == "scene":
        return path
    scene = settings.out / "scenes" / path.name
    options = [str(path), "--from", layout, "--out", str(scene)]
    if layout == "dycheck":
        options += ["--max-frames", str(settings.frames), "--factor", str(settings.factor)]
    else:
        options += ["--max-frames", str(settings.frames), "--long-side", str(settings.width)]
        options += ["--accept-poor", *settings.preprocess]
        if settings.input_camera is not None:
            options += ["--input-camera", settings.input_camera]
    code = "import sys; from msdyn.cli.preprocess import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise RuntimeError(lines[-1][:300] if lines else f"exit code {done.returncode}")
    return scene


def fit_row(name: str, row: str, directory: Path, settings: Settings) -> dict[str, Any]:
    """Fit a row to a scene and evaluate it; return the figures, also written as `result.json`."""
    from msdyn.evaluate import evaluate_tracks, evaluate_views, load_lpips, save_comparison
    from msdyn.evaluate.stamp import code_stamp
    from msdyn.fit import fit_scene
    from msdyn.scene import Scene
    from msdyn.writing import without_nan, write_json

    plain = "".join(c if c.isalnum() else "_" for c in row)
    folder = settings.out / "fits" / name / plain
    scene = Scene(directory)
    config = config_of(row, directory, folder, settings.epochs)
    stages = {stage: record["input_hash"] for stage, record in scene.info.stages.items()}
    weights = [str(path) for path in settings.lpips]
    key = {"options": dataclasses.asdict(config), "stages": stages, "lpips": weights}
    key = json.loads(json.dumps(key, default=str))
    path = folder / "result.json"
    if path.is_file():
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["made_of"] == key:
            return result
    started = time.perf_counter()
    sequence = fit_scene(scene, config)
    fitted = time.perf_counter()
    shown = {view.name: view.frames[len(view.frames) // 2] for view in scene.views.values()}

    def keep(view: Any, frame: int, image: Any) -> None:
        if frame == shown[view.name]:
            mask = view.covisible(frame)
            save_comparison(folder / f"{view.name}.png", view.image(frame), image.rgb8, mask)

    lpips = load_lpips(settings.lpips, download=False)
    views = evaluate_views(sequence, scene, keep=keep, lpips=lpips)
    tracks = evaluate_tracks(sequence, scene) or {}
    result = without_nan(
        {
            "scene": name,
            "row": row,
            "priors": "real",
            "seed": config.seed,
            "made_of": key,
            **{k: views[k] for k in ("mpsnr", "mssim", "mlpips", "ssim", "flicker", "covisible")},
            "views": {view: figures["mpsnr"] for view, figures in views["views"].items()},
            "epe3d": tracks.get("epe3d_moving"),
            "acceleration_error": tracks.get("acceleration_error"),
            "gaussians": [len(sequence.static), len(sequence.moving)],
            "seconds": {"fit": fitted - started, "evaluate": time.perf_counter() - fitted},
            "stamp": code_stamp(),
        }
    )
    write_json(path, result)
    return result


def config_of(row: str, directory: Path, folder: Path, epochs: int) -> Any:
    """Return the options of a fit: those of the ablation's row."""
    from msdyn.fit import preset

    base, changes = preset("quick"), dict(ROWS[row])
    own = {field.name for field in dataclasses.fields(base)}
    options = {key: changes.pop(key) for key in list(changes) if key in own}
    motion = replace(base.motion, **changes)
    return replace(
        base, **({"epochs": epochs} | options), scene=directory, out=folder, motion=motion
    )


def weights_of_lpips() -> list[Path]:
    """Return the weights of LPIPS in the folder that MSDYN_WEIGHTS names; none without them."""
    folder = Path(os.environ.get("MSDYN_WEIGHTS", "."))
    files = [folder / "lpips_alexnet_features.pth", folder / "lpips_v0.1_alex_heads.pth"]
    return files if all(path.is_file() for path in files) else []


def run_all(
    recordings: dict[Path, str], rows: list[str], settings: Settings, jobs: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Preprocess and fit, `jobs` in parallel; return results, and the reasons of failures."""
    results: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    context = multiprocessing.get_context("spawn")  # torch and numba are not fork-safe
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        scenes = {
            pool.submit(prepare, path, layout, settings): path
            for path, layout in recordings.items()
        }
        fits = {}
        for future in as_completed(scenes):
            name = scenes[future].name
            try:
                directory = future.result()
            except Exception as error:  # whatever it is, it stops none of the others
                failures[name] = str(error)
                sys.stderr.write(f"{name}: {error}\n")
                continue
            for row in rows:
                fits[pool.submit(fit_row, name, row, directory, settings)] = name, row
        for future in as_completed(fits):
            name, row = fits[future]
            try:
                result = future.result()
            except Exception as error:
                failures[f"{name}, {row}"] = (
                    str(error).splitlines()[0] if str(error) else repr(error)
                )
                sys.stderr.write(f"{name}, {row}: {failures[f'{name}, {row}']}\n")
                continue
            results.append(result)
            sys.stdout.write(
                f"{row:10} {name:24} {result['mpsnr']:6.2f} dB  {result['seconds']['fit']:4.0f} s\n"
            )
    order = {(path.name, row): n for n, (path, row) in enumerate(
        (path, row) for path in recordings for row in rows)}  # fmt: skip
    return sorted(results, key=lambda r: order[r["scene"], r["row"]]), failures


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="every entry of it is one recording")
    parser.add_argument("--suite", choices=["real"], default="real")
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=[row for row in ROWS if row not in ORACLES],
        default=list(MAIN_ROWS),
    )
    parser.add_argument("--only", nargs="+", help="names of recordings")
    parser.add_argument("--input-camera", help="of recordings that have one of this name")
    parser.add_argument("--frames", type=int, default=48, help="most frames of a clip")
    parser.add_argument("--width", type=int, default=320, help="longer side of the images, px")
    parser.add_argument(
        "--factor", type=int, choices=(1, 2), default=2, help="of DyCheck: size of the images"
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--preprocess",
        default="",
        help="further options of msdyn-preprocess; methods that are named take the place of what a "
        "recording has (--depth small that of its depth)",
    )
    parser.add_argument(
        "--lpips",
        nargs="+",
        type=Path,
        default=weights_of_lpips(),
        help="weights of mLPIPS; by default those in the folder MSDYN_WEIGHTS, if they are there",
    )
    parser.add_argument("--jobs", type=int, default=thread_budget(), help="parallel fits")
    parser.add_argument("--out", type=Path, default=Path("out/real"))
    arguments = parser.parse_args(argv)
    if not arguments.folder.is_dir():
        parser.error(f"{arguments.folder}: no such folder")
    found = {path: layout_of(path) for path in sorted(arguments.folder.iterdir())}
    recordings = {
        path: layout
        for path, layout in found.items()
        if layout is not None and (not arguments.only or path.name in arguments.only)
    }
    if not recordings:
        parser.error(f"{arguments.folder}: no recordings of a known layout in it")
    # The processes share the cores.
    os.environ.update(thread_environment(max(1, thread_budget() // arguments.jobs)))
    settings = Settings(
        arguments.out.resolve(),
        arguments.frames,
        arguments.width,
        arguments.factor,
        arguments.epochs,
        arguments.input_camera,
        tuple(arguments.preprocess.split()),
        tuple(arguments.lpips),
    )
    started = time.perf_counter()
    results, failures = run_all(recordings, arguments.rows, settings, arguments.jobs)
    names = {path.name: layout for path, layout in recordings.items()}
    command = sys.argv[1:] if argv is None else argv
    summary = summarise_real(results, names, failures, time.perf_counter() - started, command)
    settings.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(summary, indent=1) + "\n"
    (settings.out / "results.json").write_text(text, encoding="utf-8")
    sys.stdout.write(write_real_table(summary, settings.out / "table.md"))
    write_real_pictures(results, settings.out)
    return 0 if results else 1


if __name__ == "__main__":
    sys.exit(main())
