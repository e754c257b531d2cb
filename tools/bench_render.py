"""Time the CPU rasterizer: by part, and by the size of its input.

    python tools/bench_render.py [--json FILE] [--plot FILE] [--quick] [--threads N]
                                 [--repeats N] [--only-threads]

With one thread, its CPU time is measured; with more, wall-clock time.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from machine import describe_machine

from msdyn.raster import rasterize
from msdyn.raster.cpu import rasterize as cpu_backend

PARTS = (
    "project_forward",
    "order_by_depth",
    "pack_records",
    "bin_tiles",
    "blend_forward",
    "blend_backward",
    "gather_gradients",
    "project_backward",
)


def clock() -> float:
    """Return seconds: with one thread its CPU time, which depends less on other processes."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def random_gaussians(
    count: int, width: int, height: int, channels: int
) -> list[Float[torch.Tensor, "*_shape"]]:
    """Fill the view of a camera with Gaussians of 0.5 to 2 px at a width of 640.

    Sizes are fixed in the scene, so that they grow in pixels with the image.

    Returns:
        The first seven arguments of `rasterize`: means, quaternions, scales, opacities, features,
        intrinsics and `cam_from_world`.
    """
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Float[torch.Tensor, "*_shape"]:
        return torch.rand(*shape, generator=generator)

    z = 2 + 4 * uniform(count, 1)
    xy = (uniform(count, 2) - 0.5) * torch.tensor([1.0, height / width]) * z
    scales = (0.5 + 1.5 * uniform(count, 3)) / 640 * z
    quats = torch.randn(count, 4, generator=generator)
    intrinsics = torch.tensor([[[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]]])
    return [
        torch.cat([xy, z], 1),
        quats,
        scales,
        uniform(count),
        uniform(count, channels),
        intrinsics.float(),
        torch.eye(4)[None],
    ]


@contextmanager
def timed_parts(times: dict[str, list[float]]) -> Iterator[None]:
    """Record the milliseconds of each kernel in `times` during the context."""

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            start = clock()
            result = function(*arguments, **options)
            kernel = next(filter(callable, arguments), function)
            times.setdefault(kernel.__name__, []).append(1e3 * (clock() - start))
            return result

        return run

    # The last two call the kernel that is among their arguments.
    names = ("order_by_depth", "pack_records", "bin_tiles", "on_ranges", "on_threads")
    functions = {name: getattr(cpu_backend, name) for name in names}
    for name, function in functions.items():
        setattr(cpu_backend, name, timed(function))
    try:
        yield
    finally:
        for name, function in functions.items():
            setattr(cpu_backend, name, function)


def time_whole_call(
    count: int, width: int, height: int, channels: int, repeats: int, *, separately: bool = False
) -> dict[str, float]:
    """Return milliseconds of `forward`, `backward` and each of `PARTS`, with depth.

    They are those of the fastest round, so that the parts add up to the whole; or, `separately`,
    the minimum of each over all rounds, for a computer that is never idle for a whole round.
    """
    tensors = random_gaussians(count, width, height, channels)
    trained = [tensor.requires_grad_() for tensor in tensors[:5]]
    upstream = [torch.rand(1, height, width, channels), torch.rand(1, height, width)]
    times: dict[str, list[float]] = {}
    with timed_parts(times):
        for _ in range(repeats + 1):
            start = clock()
            rendering = rasterize(*tensors, width, height, depth=True, backend="cpu")
            middle = clock()
            outputs = [rendering.features, rendering.depth]
            torch.autograd.grad(outputs, trained, upstream)
            end = clock()
            times.setdefault("forward", []).append(1e3 * (middle - start))
            times.setdefault("backward", []).append(1e3 * (end - middle))
    if separately:
        return {name: min(values[1:]) for name, values in times.items()}
    whole = np.add(times["forward"], times["backward"])
    best = 1 + int(np.argmin(whole[1:]))  # the first round may compile
    return {name: values[best] for name, values in times.items()}


def shares(times: dict[str, float]) -> dict[str, float]:
    """Return the share of each part, and of the rest, in the whole call, forward and backward."""
    whole = times["forward"] + times["backward"]
    parts = {name: times[name] / whole for name in PARTS}
    return {**parts, "the rest": 1 - sum(parts.values())}


def scaling(repeats: int, quick: bool) -> dict[str, list[dict[str, float]]]:
    """Time the whole call for growing numbers of Gaussians, pixels, channels and threads."""
    sizes = [(160, 120), (320, 240), (640, 480), (960, 720), (1280, 960)]
    counts = [12_500, 25_000, 50_000, 100_000, 200_000]
    many = [1, 3, 7, 15, 31]
    if quick:
        sizes, counts, many = sizes[:2], counts[:2], many[:2]

    def run(x: float, *arguments: int) -> dict[str, float]:
        return {"x": x, **time_whole_call(*arguments, repeats)}

    return {
        "gaussians": [run(count, count, 640, 480, 3) for count in counts],
        "pixels": [run(w * h, 50_000, w, h, 3) for w, h in sizes],
        "channels": [run(n + 1, 50_000, 640, 480, n) for n in many],
        "threads": by_threads(3 * repeats),
    }


def by_threads(repeats: int) -> list[dict[str, float]]:
    """Time the whole call with one thread, two and so on, in wall-clock time."""
    threads = torch.get_num_threads()
    rows = []
    for count in range(1, threads + 1):
        torch.set_num_threads(count)
        rows.append({"x": count, **time_whole_call(100_000, 640, 480, 3, repeats, separately=True)})
    return rows


def straightness(rows: list[dict[str, float]], part: str) -> float:
    """Return R^2 of a linear fit to a part's times."""
    x, y = ([row[name] for row in rows] for name in ("x", part))
    return float(np.corrcoef(x, y)[0, 1] ** 2)


def plot_scaling(tables: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Plot time against Gaussians, pixels and channels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    titles = {
        "gaussians": "Gaussians, at 640x480",
        "pixels": "pixels, 50 000 Gaussians",
        "channels": "channels, 50 000 Gaussians",
    }
    for axes, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        x = [row["x"] for row in tables[name]]
        for part in ("backward", "forward"):
            y = [row[part] for row in tables[name]]
            (points,) = axes.plot(x, y, "o", label=part)
            slope, start = np.polyfit(x, y, 1)
            axes.plot([0, max(x)], [start, start + slope * max(x)], color=points.get_color(), lw=1)
        axes.set(xlabel=title, xlim=(0, None), ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("ms, whole call")
    figure.axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


FIRST_CALLS = """
import sys, time
start = time.process_time()
import msdyn
marks = [time.process_time()]
import torch
from bench_render import random_gaussians
from msdyn.raster import rasterize
marks.append(time.process_time())
for _ in range(2):
    tensors = random_gaussians(1000, 64, 48, 3)
    tensors[0].requires_grad_()
    rendering = rasterize(*tensors, 64, 48, depth=True, backend="cpu")
    (rendering.features.sum() + rendering.depth.sum()).backward()
    marks.append(time.process_time())
print(*(b - a for a, b in zip([start, *marks], marks)))
"""


def time_start() -> dict[str, float]:
    """Return the CPU seconds that new processes take to import msdyn and to render.

    A call is forward and backward, all in one thread. The first process compiles the kernels, the
    second loads them from the cache.
    """
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for state in ("compiling", "cached"):
            run = subprocess.run(
                [sys.executable, "-c", FIRST_CALLS],
                cwd=Path(__file__).parent,
                env={**os.environ, "NUMBA_CACHE_DIR": folder},
                capture_output=True,
                text=True,
                check=True,
            )
            imports, _, first, second = map(float, run.stdout.split())
            result["import_msdyn"] = imports
            result[f"first_call_{state}"] = first
            result["second_call"] = second
    return result


def machine() -> dict[str, Any]:
    return describe_machine(code=("msdyn/raster", "msdyn/jit.py"))


def measure(repeats: int, quick: bool) -> dict[str, Any]:
    """Return all figures."""
    threads = torch.get_num_threads()
    result: dict[str, Any] = {
        "machine": machine(),
        "threads": threads,
        "repeats": repeats,
        "seconds_to_start": time_start(),
    }
    result["whole_calls"] = []
    for spec in [(20_000, 320, 240), (100_000, 640, 480)][: 1 if quick else None]:
        times = time_whole_call(*spec, 3, repeats)
        result["whole_calls"].append(
            {
                "scene": list(spec),
                "milliseconds": times,
                "shares": shares(times),
                "forward_over_blending": times["forward"] / times["blend_forward"],
            }
        )
    tables = scaling(max(3, repeats // 3), quick)
    result["scaling"] = tables
    result["straightness"] = {
        name: {part: straightness(rows, part) for part in ("forward", "backward")}
        for name, rows in tables.items()
        if name != "threads"
    }
    return result


def describe(result: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = []
    for whole in result["whole_calls"]:
        lines.append("whole call, {} Gaussians, {}x{}, colour + depth:".format(*whole["scene"]))
        for name, share in whole["shares"].items():
            milliseconds = whole["milliseconds"].get(name)
            time_text = "" if milliseconds is None else f"{milliseconds:8.2f} ms"
            lines.append(f"    {name:18s}{time_text:11s}{100 * share:6.1f} %")
        lines.append(f"    forward / blending {whole['forward_over_blending']:.2f}")
    for name, rows in result["scaling"].items():
        note = ""
        if name in result["straightness"]:
            note = ", R^2 {forward:.3f}, {backward:.3f}".format(**result["straightness"][name])
        lines.append(f"{name:>12s}   forward  backward (ms){note}")
        lines += [f"{row['x']:12g}{row['forward']:10.2f}{row['backward']:10.2f}" for row in rows]
    lines += [f"{name:>24s} {value:.3f} s" for name, value in result["seconds_to_start"].items()]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--plot", type=Path, help="draw the scaling to this PNG")
    parser.add_argument("--quick", action="store_true", help="one small scene, few repeats")
    parser.add_argument("--threads", type=int, help="default: torch's number")
    parser.add_argument(
        "--only-threads",
        action="store_true",
        help="only time the call with one thread, two and so on",
    )
    parser.add_argument(
        "--repeats", type=int, default=15, help="rounds, of which the fastest counts"
    )
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.only_threads:
        rows = by_threads(options.repeats)
        result = {"machine": machine(), "repeats": options.repeats, "scaling": {"threads": rows}}
        for name in ("forward", "backward", *PARTS):
            print(f"{name:18s}" + "".join(f"{row[name]:8.2f}" for row in rows) + " ms")
    else:
        repeats = 3 if options.quick else options.repeats
        result = measure(repeats, options.quick)
        print(describe(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot:
        plot_scaling(result["scaling"], options.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
