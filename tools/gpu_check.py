"""Check and time msdyn on a GPU, and write the results to one JSON file.

    python tools/gpu_check.py --make-scene SCENE.zip          no GPU needed; trimesh, embreex
    python tools/gpu_check.py --scene SCENE.zip --json FILE   with a GPU
    python tools/gpu_check.py --quick --json FILE             all parts on a CPU, tiny
    python tools/gpu_check.py --only audit --json FILE        kernels and waits, without a GPU

Time on a GPU is short; two calls, of which the second can be given what the first showed broken:

    ... --only tests rendering fit --limits tests=60 rendering=50 fit=190 --fit-seconds 130
    ... --only fit feedforward training --limits fit=480 feedforward=60 training=60

1. the tests marked `gpu`: gsplat against the float64 oracle and the CPU kernels, with gradients
2. rendering: frames per second with motion evaluated for every frame, and time to the first frame
3. the feed-forward network of the published size, with random weights: seconds and memory
4. a fit of a 150-frame clip of 480x360 with the paper's options, and a profile of its steps
5. the audit: kernels and waits of a step and a frame on a pretend card, see `gpu_audit.py`

With a limit, a part runs in a process of its own, which is ended when it has not finished by then;
the report has the place where it hung. Neither a network nor an installed msdyn is needed. A part
whose requirements are missing (pytest, CUDA, gsplat, the scene) is reported as skipped; the exit
code is 1 if a part failed. The file is rewritten after each part, so an interrupted run keeps the
results so far.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
if importlib.util.find_spec("msdyn") is None:
    sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from machine import describe_machine  # noqa: E402


class Skip(Exception):
    """A requirement of a part is missing."""


@dataclass(frozen=True)
class Size:
    """Sizes of the workloads."""

    device: str
    gaussians: int
    sizes: tuple[tuple[int, int], ...]
    clip: tuple[int, int, int]  # frames, width, height
    scene: str


FULL = Size("cuda", 150_000, ((480, 360), (960, 720)), (150, 480, 360), "demo")
PARTS = ("tests", "rendering", "feedforward", "training", "fit", "audit")
QUICK = Size("cpu", 1_500, ((64, 48),), (4, 64, 48), "two-boxes")


def run_tests(quick: bool) -> dict[str, Any]:
    """Run the tests marked `gpu`, in files that mention it or gsplat; skipped without CUDA."""
    if importlib.util.find_spec("pytest") is None:
        raise Skip("pytest is not installed")
    files = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if re.search(r"\b(gpu|gsplat)\b", path.read_text(encoding="utf-8"))
    ]
    if quick:
        files = ["tests/raster/test_gsplat.py"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={report}", *files],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
        if not report.is_file():
            raise RuntimeError(f"pytest left no report:\n{run.stdout[-3000:]}{run.stderr[-3000:]}")
        cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    result = {
        "passed": len(cases) - len(failed) - skipped,
        "failed": failed,
        "skipped": skipped,
        "files": files,
    }
    if failed or run.returncode not in (0, 5):
        result["output"] = run.stdout[-12_000:]
        result["error"] = f"{len(failed)} tests failed, exit code {run.returncode}"
    return result


def check_rendering(size: Size, quick: bool) -> dict[str, Any]:
    """Time rendering at every image size."""
    from time_sequence import compare_forms, random_sequence, time_first_frame, time_rendering

    result: dict[str, Any] = {"fps": []}
    for width, height in size.sizes:
        sequence = random_sequence(size.gaussians, size.clip[0], width, height)
        if "first_frame_seconds" not in result:
            result["first_frame_seconds"] = time_first_frame(sequence, size.device)
        result["fps"].append(time_rendering(sequence, size.device, quick))
        if size.device == "cuda":
            result["fps"][-1]["gsplat_forms_ms"] = compare_forms(sequence, width, height)
    return result


def check_feedforward(size: Size) -> dict[str, Any]:
    """Time one pass of the feed-forward network, for several clips."""
    from bench_feedforward import measure

    from msdyn.feedforward import ModelConfig

    if size is QUICK:
        return {"passes": [measure(ModelConfig.small(), 3, (64, 48), "float32", size.device)]}
    config = ModelConfig.published_network()
    clips = ((4, (224, 224)), (13, (224, 224)), (13, (518, 294)), (13, (518, 518)))
    return {
        "passes": [
            measure(config, frames, shape, "bfloat16", size.device) for frames, shape in clips
        ]
    }


def check_training(size: Size) -> dict[str, Any]:
    """Time steps of the medium network's training, in each of its stages."""
    from dataclasses import replace

    from msdyn.feedforward.training import Processes, Trainer
    from msdyn.feedforward.training.curriculum import medium_on_gpu, small_on_cpu

    quick = size is QUICK
    config = (small_on_cpu if quick else medium_on_gpu)(1000)
    rows = []
    for stage in config.stages:
        batch = replace(stage.batch, scenes=1, size=32) if quick else stage.batch
        run = replace(config, stages=(replace(stage, batch=batch),))
        trainer = Trainer(run, Processes(torch.device(size.device)))
        trainer.train_step()  # compiles
        start = time.perf_counter()
        steps = 2 if quick else 20
        losses = [trainer.train_step() for _ in range(steps)][-1]
        seconds = (time.perf_counter() - start) / steps
        rows.append({"stage": stage.name, "seconds_per_step": seconds, "losses": losses})
    return {"stages": rows}


def make_scene(path: Path, size: Size) -> None:
    """Render a synthetic scene into a directory, or into an archive where the name ends in .zip."""
    from msdyn.scene import Scene, frame_path, write_depth, write_image
    from msdyn.synthetic import make_scene, render_truth, write_truth

    frames, width, height = size.clip
    truth = render_truth(
        make_scene(size.scene, frames=frames, width=width, height=height),
        samples=1 if size is QUICK else 4,
        progress=size is not QUICK,
    )
    folder = path.with_suffix("") if path.suffix == ".zip" else path
    write_truth(truth, folder)
    shutil.rmtree(folder / "views", ignore_errors=True)
    if path.suffix == ".zip":
        scene = Scene(folder)
        for frame in range(frames):  # six bits of colour and float16 depth compress well
            image = scene.image(frame) & 0xFC | 2
            write_image(frame_path(folder / "images", frame, ".png"), image)
            write_depth(folder, frame, scene.depth(frame).astype(np.float16).astype(np.float32))
        shutil.make_archive(str(folder), "zip", folder)
        shutil.rmtree(folder)


def check_audit() -> dict[str, Any]:
    """Count kernels and waits on a pretend card; on any machine."""
    from gpu_audit import audit_fit, audit_rendering

    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene"
        _require_renderer()
        make_scene(scene, QUICK)
        return {"fit": audit_fit(scene), "rendering": audit_rendering()}


def _require_renderer() -> None:
    missing = [name for name in ("trimesh", "embreex") if importlib.util.find_spec(name) is None]
    if missing:
        raise Skip(f"no --scene, and no {' and '.join(missing)} to make one")


def check_fit(size: Size, path: Path | None, seconds: float, quick: bool) -> dict[str, Any]:
    """Fit a scene with the paper's options for at most `seconds`, and render the result."""
    from profile_fit import profile_fit
    from time_sequence import time_rendering

    from msdyn.fit import MotionConfig, preset
    from msdyn.sequence import load_sequence

    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene"
        if path is None:
            _require_renderer()
            make_scene(scene, size)
        elif path.is_dir():
            scene = path
        else:
            shutil.unpack_archive(path, scene)
        config = replace(
            preset("paper"), scene=scene, out=Path(folder) / "fit", device=size.device, restart=True
        )
        if quick:
            config = replace(
                config,
                epochs=12,
                batch=2,
                static_gaussians=300,
                moving_gaussians=200,
                motion=MotionConfig(prefit_steps=5),
            )
        result = profile_fit(config, first=8 if quick else 50, every=10, seconds=seconds)
        if result["finished"]:
            sequence = load_sequence(config.out / "sequence.safetensors")
            result["rendering"] = time_rendering(sequence, size.device, quick)
    return result


def run_within(limit: float, name: str, arguments: list[str]) -> dict[str, Any]:
    """Run one part in a process of its own, and end it after a time.

    Args:
        limit: seconds.
        name: of the part.
        arguments: of this program, without those of limits and of the report.
    """
    with tempfile.TemporaryDirectory() as folder:
        report, log = Path(folder) / "part.json", Path(folder) / "log"
        command = [sys.executable, __file__, *arguments, "--only", name, "--json", str(report)]
        command += ["--dump-after", str(max(limit - 2, 0.5 * limit))]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if report.is_file():
            return json.loads(report.read_text(encoding="utf-8"))[name]
        reason = f"exit code {process.returncode}"
        if process.returncode == -signal.SIGKILL:
            reason = f"ended after its limit of {limit:g} s"
        text = log.read_text(encoding="utf-8", errors="replace")
        return {"error": reason, "output": text[-8000:]}


def _limits(given: list[str] | None, names: list[str]) -> dict[str, float]:
    """Parse limits `part=seconds`.

    Raises:
        SystemExit: another form.
    """
    limits = {}
    for entry in given or []:
        name, _, seconds = entry.partition("=")
        if name not in names or not re.fullmatch(r"\d+(\.\d+)?", seconds):
            raise SystemExit(f"--limits: expected PART=SECONDS of {', '.join(names)}, got {entry}")
        limits[name] = float(seconds)
    return limits


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--scene", type=Path, help="scene directory or archive to fit")
    parser.add_argument(
        "--make-scene", type=Path, help="only render a scene for --scene to this path"
    )
    parser.add_argument("--quick", action="store_true", help="everything tiny, on the CPU")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PARTS,
        help="parts to run, in this order; default: all",
    )
    parser.add_argument(
        "--fit-seconds",
        type=float,
        default=420,
        help="stop the fit after this time, and extrapolate",
    )
    parser.add_argument(
        "--limits",
        nargs="+",
        metavar="PART=SECONDS",
        help="run these parts in processes of their own, and end them after this time",
    )
    parser.add_argument("--dump-after", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--commit", help="commit to report where git is not available")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else FULL
    limits = _limits(options.limits, list(PARTS))
    if options.dump_after:
        faulthandler.dump_traceback_later(options.dump_after)
    if options.make_scene:
        make_scene(options.make_scene, size)
        return 0

    result: dict[str, Any] = {"quick": options.quick, "machine": describe_machine(options.commit)}
    parts: dict[str, Callable[[], Any]] = {
        "tests": lambda: run_tests(options.quick),
        "rendering": lambda: check_rendering(size, options.quick),
        "feedforward": lambda: check_feedforward(size),
        "training": lambda: check_training(size),
        "fit": lambda: check_fit(size, options.scene, options.fit_seconds, options.quick),
        "audit": check_audit,
    }
    passed_on = ["--fit-seconds", str(options.fit_seconds)] + ["--quick"] * options.quick
    if options.scene:
        passed_on += ["--scene", str(options.scene)]
    failed = False
    for name in options.only or parts:
        start = time.perf_counter()
        try:
            if (
                name not in ("tests", "audit")
                and size.device == "cuda"
                and not torch.cuda.is_available()
            ):
                raise Skip("torch finds no CUDA device; --quick runs on a CPU")
            if name in limits:
                result[name] = run_within(limits[name], name, passed_on)
            else:
                result[name] = parts[name]()
        except Skip as reason:
            result[name] = {"skipped": str(reason)}
        except ImportError as error:
            result[name] = {"skipped": f"{error}", "traceback": traceback.format_exc()}
        except Exception as error:  # a failed part must not discard the results of the others
            result[name] = {"error": f"{error}", "traceback": traceback.format_exc()}
        result[name]["part_seconds"] = time.perf_counter() - start
        failed |= "error" in result[name]
        print(f"== {name}: {result[name]['part_seconds']:.1f} s", flush=True)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(result[name], indent=1), flush=True)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
