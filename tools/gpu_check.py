"""Check and time msdyn on a GPU, and write what was found to one JSON file.

    python tools/gpu_check.py --make-scene SCENE.zip          anywhere; needs trimesh and embreex
    python tools/gpu_check.py --scene SCENE.zip --json FILE   on the machine with the GPU
    python tools/gpu_check.py --quick --json FILE             all of it on a CPU, tiny

1. the tests marked `gpu`: gsplat's path against the float64 oracle and the CPU's, with gradients
2. rendering: frames a second with the motion evaluated for every frame, and the time to the first
3. a fit of a 150-frame clip of 480x360 with the paper's options, and where its time goes

Nothing needs a network or an installed msdyn. What is missing (pytest, CUDA, gsplat, the scene) is
written down as skipped; the exit code is 1 where something failed. The file is written anew after
each part, so a run that is cut off leaves what it had.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
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

PACKAGES = ("torch", "gsplat", "numpy", "numba", "scipy", "scikit-learn", "roma", "pytest")


class Skip(Exception):
    """Something that a part needs is not here."""


@dataclass(frozen=True)
class Size:
    """How much of everything there is."""

    device: str
    gaussians: int
    sizes: tuple[tuple[int, int], ...]
    clip: tuple[int, int, int]  # frames, width, height
    scene: str


FULL = Size("cuda", 150_000, ((480, 360), (960, 720)), (150, 480, 360), "demo")
QUICK = Size("cpu", 1_500, ((64, 48),), (4, 64, 48), "two-boxes")


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def describe_machine(commit: str | None) -> dict[str, Any]:
    """Return the card, the versions and the commit."""

    def output(*command: str) -> str | None:
        try:
            run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return run.stdout.strip()

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    card = None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        card = {
            "name": properties.name,
            "bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "driver": output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        }
    return {
        "card": card,
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "versions": versions,
        "commit": commit or output("git", "rev-parse", "HEAD"),
        "changed": bool(output("git", "status", "--porcelain", "--untracked-files=no")),
    }


def run_tests(quick: bool) -> dict[str, Any]:
    """Run the tests marked `gpu`, of the files that mention it; without CUDA they are skipped."""
    if importlib.util.find_spec("pytest") is None:
        raise Skip("pytest is not installed")
    files = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if re.search(r"\bgpu\b", path.read_text(encoding="utf-8"))
    ]
    if quick:
        files = ["tests/render/test_gsplat.py"]
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


def random_sequence(count: int, frames: int, width: int, height: int) -> Any:
    """Return a sequence of `count` Gaussians of about a pixel, a third of them moving.

    The motion has three objects, 5 primitives of each and 10 grains of each of those.
    """
    from msdyn.geometry import Cameras
    from msdyn.motion import Blend, MotionField
    from msdyn.scene import Timeline
    from msdyn.sequence import Gaussians, GaussianSequence

    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    z = 2 + 4 * uniform(count, 1)
    points = torch.cat([(uniform(count, 2) - 0.5) * torch.tensor([1, height / width]) * z, z], 1)
    scales = (0.5 + 1.5 * uniform(count)) / 640 * z[:, 0]
    colours = uniform(count, 3)
    moving = count // 3

    def part(rows: slice) -> Gaussians:
        return Gaussians.from_points(points[rows], colours[rows], scales[rows], opacity=0.6)

    patterns, places = (3, 15, 150), (2, 4, 4)
    identity = torch.tensor([1.0, 0, 0, 0, 1, 0])
    field = MotionField(
        [torch.rand(n, 3, generator=generator) for n in patterns],
        [identity + 0.02 * torch.randn(n, frames, 6, generator=generator) for n in patterns],
        [0.02 * torch.randn(n, frames, 3, generator=generator) for n in patterns],
        [torch.arange(3), torch.arange(15) // 5, torch.arange(150) // 10],
        torch.arange(frames).float(),
        torch.arange(1, 4),
    )
    blends = [
        Blend(
            torch.randint(0, n, (moving, k), generator=generator),
            torch.randn(moving, k, generator=generator),
        )
        for n, k in zip(patterns, places, strict=True)
    ]
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 0, 3] = np.linspace(-0.1, 0.1, frames)
    return GaussianSequence(
        part(slice(moving, None)),
        part(slice(moving)),
        field,
        blends,
        torch.randint(1, 4, (moving,), generator=generator),
        timeline=Timeline.uniform(frames, 30.0),
        cameras=Cameras.pinhole(float(width), width, height, poses),
        canonical_frame=0,
        world_units="arbitrary",
    )


@torch.no_grad()
def time_rendering(sequence: Any, device: str, quick: bool) -> dict[str, Any]:
    """Return frames a second of a sequence in its own cameras, at times between its frames.

    `colour` and `everything` (with depth and the share of moving Gaussians) leave the image on the
    device; `on_host` is `render_image`, as numpy; `batches_of_8` are posed and drawn at once.
    """
    from msdyn.render import draw, render_image

    sequence = sequence.to(device)
    cameras, frames = sequence.cameras, len(sequence.timeline)
    width, height = cameras.width, cameras.height

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=device)

    intrinsics, poses = tensor(cameras.intrinsics), tensor(cameras.cam_from_world)
    positions = tensor(np.linspace(0, frames - 1, frames) * 0.999)
    moving = (sequence.at(0.0).objects > 0).float()[:, None]

    def drawn(rows: slice, *, everything: bool) -> torch.Tensor:
        return draw(
            sequence.posed(positions[rows]),
            intrinsics[rows],
            poses[rows],
            width,
            height,
            extra=moving if everything else None,
            depth=everything,
        ).features

    def one_by_one(everything: bool) -> None:
        for i in range(frames):
            drawn(slice(i, i + 1), everything=everything)

    def in_batches() -> None:
        for i in range(0, frames, 8):
            drawn(slice(i, i + 8), everything=False)

    def on_host() -> None:
        for i in range(frames):
            render_image(sequence, cameras[i], i / (frames - 1))

    def pose_only() -> None:
        for i in range(frames):
            sequence.posed(positions[i : i + 1])

    variants: dict[str, Callable[[], None]] = {
        "colour": lambda: one_by_one(False),
        "everything": lambda: one_by_one(True),
        "on_host": on_host,
        "batches_of_8": in_batches,
        "motion_only": pose_only,
    }
    result: dict[str, Any] = {"gaussians": len(sequence), "image": [width, height]}
    for name, step in variants.items():
        times = []
        for _ in range(2 if quick else 4):
            wait(device)
            start = time.perf_counter()
            step()
            wait(device)
            times.append(time.perf_counter() - start)
        result[name] = frames / min(times[1:])
    return result


# Run by itself, as the first thing of a process: the time to a first frame counts all there is.
FIRST_FRAME = """
import json, sys, time
start = time.perf_counter()
import torch
from msdyn.render import render_image
from msdyn.sequence import load_sequence
path, device = sys.argv[1:]
marks = [time.perf_counter()]
sequence = load_sequence(path).to(device)
marks.append(time.perf_counter())
for _ in range(2):
    render_image(sequence, sequence.cameras[0], 0.5)
    marks.append(time.perf_counter())
names = ("imports", "loading", "first_image", "second_image")
print(json.dumps({n: b - a for n, a, b in zip(names, [start, *marks], marks)}))
"""


def time_first_frame(sequence: Any, device: str) -> dict[str, float]:
    """Return seconds, in a new process, of importing, loading and the first two images."""
    from msdyn.sequence import save_sequence

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sequence.safetensors"
        save_sequence(sequence.cpu(), path)
        python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        run = subprocess.run(
            [sys.executable, "-c", FIRST_FRAME, str(path), device],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": python_path},
        )
    if run.returncode:
        raise RuntimeError(run.stderr[-3000:])
    times = json.loads(run.stdout.splitlines()[-1])
    return {**times, "to_the_first": sum(times.values()) - times["second_image"]}


def compare_forms(sequence: Any, width: int, height: int) -> dict[str, float]:
    """Return milliseconds, forward and backward, of gsplat's dense and packed form."""
    from gsplat import rasterization

    posed = sequence.to("cuda").canonical()
    tensors = [posed.means[0], posed.quats_wxyz[0], posed.scales, posed.opacities]
    leaves = [value.detach().clone().requires_grad_() for value in tensors]
    colours = torch.rand(len(sequence), 8, device="cuda", requires_grad=True)
    camera = sequence.cameras[0]
    view = torch.as_tensor(camera.cam_from_world, dtype=torch.float32, device="cuda")
    lens = torch.as_tensor(camera.intrinsics, dtype=torch.float32, device="cuda")
    result = {}
    for name, packed in (("dense", False), ("packed", True)):
        for turn in range(40):
            if turn == 10:
                wait("cuda")
                start = time.perf_counter()
            image, _, _ = rasterization(*leaves, colours, view, lens, width, height, packed=packed)
            image.sum().backward()
        wait("cuda")
        result[name] = (time.perf_counter() - start) / 30 * 1e3
    return result


def check_rendering(size: Size, quick: bool) -> dict[str, Any]:
    """Time rendering at every image size."""
    result: dict[str, Any] = {"fps": []}
    for width, height in size.sizes:
        sequence = random_sequence(size.gaussians, size.clip[0], width, height)
        if "first_frame_seconds" not in result:
            result["first_frame_seconds"] = time_first_frame(sequence, size.device)
        result["fps"].append(time_rendering(sequence, size.device, quick))
        if size.device == "cuda":
            result["fps"][-1]["gsplat_forms_ms"] = compare_forms(sequence, width, height)
    return result


def make_scene(path: Path, size: Size) -> None:
    """Render a synthetic scene into a directory, or into an archive where the name ends in .zip."""
    from msdyn.scene import Scene, write_depth
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
        for frame in range(frames):  # eleven bits of depth are enough here, and pack well
            write_depth(folder, frame, scene.depth(frame).astype(np.float16).astype(np.float32))
        shutil.make_archive(str(folder), "zip", folder)
        shutil.rmtree(folder)


def check_fit(size: Size, path: Path | None, seconds: float, quick: bool) -> dict[str, Any]:
    """Fit a scene with the paper's options, for so many seconds at most, and render the result."""
    from profile_fit import profile_fit

    from msdyn.fit import MotionConfig, preset
    from msdyn.sequence import load_sequence

    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene"
        if path is None:
            missing = [n for n in ("trimesh", "embreex") if importlib.util.find_spec(n) is None]
            if missing:
                raise Skip(f"no --scene, and {' and '.join(missing)} to make one with missing")
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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--scene", type=Path, help="scene directory or archive to fit")
    parser.add_argument("--make-scene", type=Path, help="only render such a scene to this path")
    parser.add_argument("--quick", action="store_true", help="everything tiny, on the CPU")
    parser.add_argument(
        "--only", nargs="+", choices=("tests", "rendering", "fit"), help="parts to do; all"
    )
    parser.add_argument(
        "--fit-seconds", type=float, default=420, help="stop the fit after so long, and reckon"
    )
    parser.add_argument("--commit", help="where there is no git to ask")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else FULL
    if options.make_scene:
        make_scene(options.make_scene, size)
        return 0

    result: dict[str, Any] = {"quick": options.quick, "machine": describe_machine(options.commit)}
    parts: dict[str, Callable[[], Any]] = {
        "tests": lambda: run_tests(options.quick),
        "rendering": lambda: check_rendering(size, options.quick),
        "fit": lambda: check_fit(size, options.scene, options.fit_seconds, options.quick),
    }
    failed = False
    for name in options.only or parts:
        start = time.perf_counter()
        try:
            if name != "tests" and size.device == "cuda" and not torch.cuda.is_available():
                raise Skip("torch finds no CUDA device; --quick runs on a CPU")
            result[name] = parts[name]()
        except Skip as reason:
            result[name] = {"skipped": str(reason)}
        except ImportError as error:
            result[name] = {"skipped": f"{error}", "traceback": traceback.format_exc()}
        except Exception as error:  # one part must not take the others' figures with it
            result[name] = {"error": f"{error}", "traceback": traceback.format_exc()}
        result[name]["part_seconds"] = time.perf_counter() - start
        failed |= "error" in result[name]
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"== {name}\n{json.dumps(result[name], indent=1)}", flush=True)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
