"""Repeat the paper's ablation (Table III), and more, on synthetic scenes with exact truth.

    python tools/ablation.py --suite small --json small.json
    python tools/ablation.py --suite full --out out/ablation --json full.json

Rows are variants of the method, each fitted to every scene with every kind of priors and evaluated
on two held-out cameras, true 3D tracks and true object poses. Each fit has a folder under --out
with its result; finished fits are not repeated, so an interrupted run can be resumed.

    small   L1, L1+L2, full and single, sensor priors, one seed
    full    all variants and priors; three seeds for the rows of `small` under sensor priors
    random  the rows of `small` on random scenes 0 to 4 (5 to 9 are for the final table only)

The output is `table.md`, `figure.png` and `pictures.png` in --out, and the file of --json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

from ablation_spec import (
    FROZEN,
    MAIN_ROWS,
    ORACLES,
    PRIORS,
    RANDOM_SCENES,
    ROWS,
    SCENES,
    SHOWN,
    Cell,
    Size,
    cells_of,
)
from ablation_table import summarise, write_figure, write_pictures, write_table
from frozen_scene import write_frozen
from view_errors import ViewErrors, moving_pixels

from msdyn.thread_share import thread_budget, thread_environment

LPIPS_FILES = ("lpips_alexnet_features.pth", "lpips_v0.1_alex_heads.pth")


def make_scenes(scene: str, kinds: list[tuple[str, int]], size: Size, out: Path) -> float:
    """Render a scene and write it with each kind of priors and seed; return the seconds taken."""
    from msdyn.synthetic import make_scene, render_truth, write_priors

    started = time.perf_counter()
    wanted = [(kind, seed, out / scene / f"{kind}-{seed}") for kind, seed in kinds]
    missing = [entry for entry in wanted if not (entry[2] / "made").is_file()]
    if missing:
        spec = make_scene(scene, frames=size.frames, width=size.width, height=size.height)
        truth = render_truth(spec)
        for kind, seed, folder in missing:
            write_priors(truth, folder, level=kind, seed=seed)
            (folder / "made").touch()
    return time.perf_counter() - started


def run_cell(cell: Cell, size: Size, out: Path, lpips_files: Sequence[Path] = ()) -> dict[str, Any]:
    """Fit and evaluate; return the figures, also written as `result.json`."""
    from msdyn.evaluate import (
        Variant,
        evaluate_object_motion,
        evaluate_tracks,
        evaluate_views,
        load_lpips,
        save_comparison,
    )
    from msdyn.evaluate.stamp import code_stamp
    from msdyn.fit import fit_scene
    from msdyn.scene import Scene
    from msdyn.synthetic import make_scene
    from msdyn.writing import without_nan, write_json

    folder = cell.folder(out)
    result_path = folder / "result.json"
    scene = Scene(folder.parent)
    if "true" in cell.row:
        import true_motion  # noqa: F401  registers its models
    config = _config(cell, size, folder)
    options = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    if result_path.is_file():
        result = json.loads(result_path.read_text(encoding="utf-8"))
        if result["options"] == options:
            return result
    spec = make_scene(cell.scene, frames=size.frames, width=size.width, height=size.height)
    shown = round(SHOWN * (len(scene) - 1))
    moving = moving_pixels(spec)
    if cell.row in FROZEN:
        around, level = FROZEN[cell.row], {"level": cell.priors, "seed": cell.seed}
        scene = write_frozen(spec, scene, shown, folder / "scene", around=around, **level)
        config = replace(config, scene=scene.directory)
        moving = {name: masks[shown : shown + 1] for name, masks in moving.items()}
        shown = 0
    elif config.motion.model.startswith("true"):
        _tell_truth(spec, scene, config)
    started = time.perf_counter()
    sequence = fit_scene(scene, config)
    fitted = time.perf_counter()
    errors = ViewErrors(moving)

    def keep(view: Any, frame: int, image: Any) -> None:
        errors.add(view, frame, image)
        if frame == shown:
            path = folder / f"{view.name}.png"
            save_comparison(path, view.image(frame), image.rgb8, view.covisible(frame))

    variant = Variant(order=ROWS[cell.row].get("order", "input"))
    lpips = load_lpips(lpips_files)
    views = evaluate_views(sequence, scene, variant=variant, keep=keep, lpips=lpips)
    tracks, motion = {}, {}
    if cell.row not in FROZEN:
        tracks = evaluate_tracks(sequence, scene) or {}
        motion = evaluate_object_motion(sequence, scene) or {}
    result = {
        **dataclasses.asdict(cell),
        "options": options,
        "mpsnr": views["mpsnr"],
        "mssim": views["mssim"],
        "ssim": views["ssim"],
        "mlpips": views["mlpips"],
        "flicker": views["flicker"],
        "parts": errors.result(),
        "views": {name: view["mpsnr"] for name, view in views["views"].items()},
        "epe3d": tracks.get("epe3d_moving"),
        "epe3d_visible": tracks.get("epe3d_moving_visible"),
        "epe3d_blended": tracks.get("epe3d_moving_blended"),
        "jitter": tracks.get("jitter"),
        "acceleration_error": tracks.get("acceleration_error"),
        "rotation_degrees": motion.get("rotation_degrees"),
        "translation": motion.get("translation"),
        "gaussians": [len(sequence.static), len(sequence.moving)],
        "seconds": {"fit": fitted - started, "evaluate": time.perf_counter() - fitted},
        "stamp": code_stamp(),
    }
    result = without_nan(result)
    write_json(result_path, result)
    return result


def _config(cell: Cell, size: Size, folder: Path) -> Any:
    from msdyn.fit import preset

    base = preset("quick")
    row = {key: value for key, value in ROWS[cell.row].items() if key != "order"}
    density = replace(base.density, **row.pop("density", {}))
    names = {field.name for field in dataclasses.fields(base)}
    options = {"epochs": size.epochs} | {k: row.pop(k) for k in list(row) if k in names}
    return replace(
        base,
        scene=folder.parent,
        out=folder,
        seed=cell.seed,
        density=density,
        motion=replace(base.motion, **row),
        **options,
    )


def _tell_truth(spec: Any, scene: Any, config: Any) -> None:
    """Tell the motion models of `true_motion.py` where the true surfaces are in the fit's world."""
    import torch
    from true_motion import use_truth

    from msdyn.fit.data import load_fit_data

    data = load_fit_data(
        scene,
        long_side=config.long_side,
        holdout_every=config.holdout_every,
        device=torch.device("cpu"),
        refine=config.refine,
        static_tracks=config.static_tracks,
        seed=config.seed,
    )
    use_truth(spec, data.fit_from_scene)


def run_all(
    cells: list[Cell], size: Size, out: Path, jobs: int, lpips_files: Sequence[Path] = ()
) -> list[dict[str, Any]]:
    """Run all fits, `jobs` in parallel, with a progress bar; return their results in order."""
    from tqdm import tqdm

    kinds: dict[str, list[tuple[str, int]]] = {}
    for cell in cells:
        kinds.setdefault(cell.scene, [])
        if (cell.priors, cell.seed) not in kinds[cell.scene]:
            kinds[cell.scene].append((cell.priors, cell.seed))
    context = multiprocessing.get_context("spawn")  # torch and numba are not fork-safe
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_quiet) as pool:
        scenes = [pool.submit(make_scenes, name, kinds[name], size, out) for name in kinds]
        for future in tqdm(as_completed(scenes), desc="scenes", total=len(scenes)):
            future.result()
        fits = {pool.submit(run_cell, cell, size, out, lpips_files): cell for cell in cells}
        results, progress = [], tqdm(as_completed(fits), desc="fits", total=len(fits))
        for future in progress:
            result = future.result()
            results.append(result)
            progress.write(
                f"{result['row']:14} {result['scene']:17} {result['priors']:7}"
                f" {result['mpsnr']:6.2f} dB  EPE {100 * (result['epe3d'] or nan):5.2f} cm"
                f"  {result['seconds']['fit']:4.0f} s"
            )
    order = {cell: number for number, cell in enumerate(cells)}
    return sorted(results, key=lambda r: order[Cell(r["row"], r["scene"], r["priors"], r["seed"])])


def default_lpips() -> list[Path]:
    """Return the weights of LPIPS in the folder that MSDYN_WEIGHTS names; none without them."""
    folder = Path(os.environ.get("MSDYN_WEIGHTS", "."))
    files = [folder / name for name in LPIPS_FILES]
    return files if all(path.is_file() for path in files) else []


def _quiet() -> None:
    os.environ["TQDM_DISABLE"] = "1"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--suite", choices=["small", "full", "random"], default="small")
    parser.add_argument("--scenes", nargs="+", help="default: those of the suite")
    parser.add_argument("--priors", nargs="+", choices=PRIORS, help="default: those of the suite")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), help="default: those of the suite")
    parser.add_argument(
        "--seeds", type=int, default=3, help="number of seeds of the main rows of `full`"
    )
    parser.add_argument("--frames", type=int, default=Size.frames)
    parser.add_argument("--width", type=int, default=Size.width)
    parser.add_argument("--epochs", type=int, default=Size.epochs)
    parser.add_argument("--jobs", type=int, default=thread_budget(), help="number of parallel fits")
    parser.add_argument(
        "--lpips",
        type=Path,
        nargs=2,
        default=default_lpips(),
        metavar=("FEATURES", "HEADS"),
        help="weights of mLPIPS; by default those in the folder MSDYN_WEIGHTS, if they are there",
    )
    parser.add_argument("--out", type=Path, default=Path("out/ablation"))
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    # The processes share the cores.
    os.environ.update(thread_environment(max(1, thread_budget() // arguments.jobs)))

    full = arguments.suite == "full"
    scenes = RANDOM_SCENES if arguments.suite == "random" else SCENES
    cells = cells_of(
        arguments.suite,
        arguments.scenes or list(scenes),
        arguments.priors or list(PRIORS if full else ["sensor"]),
        arguments.rows or [r for r in (ROWS if full else MAIN_ROWS) if r not in ORACLES],
        arguments.seeds,
    )
    size = Size(arguments.frames, arguments.width, arguments.epochs)
    out = arguments.out / f"{size.frames}x{size.width}x{size.epochs}"
    started = time.perf_counter()
    results = run_all(cells, size, out, arguments.jobs, arguments.lpips)
    summary = summarise(results, time.perf_counter() - started, sys.argv[1:])
    print(write_table(summary, out / "table.md"))
    write_figure(summary, out / "figure.png")
    write_pictures(results, out)
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
