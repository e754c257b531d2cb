"""Time the CPU rasterizer: against the yardstick, part by part, and as its input grows.

    python tools/bench_render.py [--json FILE] [--plot FILE] [--quick] [--baseline FILE]
                                 [--threads N]

The yardstick is a plain Numba tile kernel in a file of its own. It and ours run in turns in one
process on the same arrays; the least of several times counts. "Same lists" means that our kernels
work off the yardstick's own tile lists, "own lists" that they work off those of our binning.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import torch

from msdyn.render import numba_cpu, rasterize
from msdyn.render.numba_bin import LOG2_CUT, bin_tiles, order_by_depth, pack_records
from msdyn.render.numba_blend import MOMENTS, blend_backward, blend_forward, gather_gradients

BASELINE = Path(__file__).parents[2] / "shared" / "bench" / "baseline_raster.py"
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
    """Return seconds: with one thread its CPU time, which other processes disturb less."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def least_times(steps: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Run the steps in turns; return the least milliseconds of each, but for the first round."""
    best = dict.fromkeys(steps, np.inf)
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start = clock()
            step()
            if turn:
                best[name] = min(best[name], 1e3 * (clock() - start))
    return best


def compare_with_baseline(baseline: ModuleType, spec: tuple, repeats: int) -> dict[str, Any]:
    """Time both on one of the yardstick's scenes and compare image and gradients."""
    scene = baseline.standard_scene(*spec)
    count, width, height = len(scene["means"]), scene["W"], scene["H"]
    threads = numba.get_num_threads()
    size, channels = (width, height), (0,) * 3
    means, conics, colors = scene["means"], scene["conics"], scene["colors"]
    opacities = scene["opacities"][:, None]
    reach = np.log2(np.maximum(opacities, 1e-30)) - LOG2_CUT
    deviations = np.sqrt(scene["cov"][:, [0, 1], [0, 1]])
    extents = (np.sqrt(2 * np.log(2) * np.maximum(reach, 0)) * deviations).astype(np.float32)
    depths = np.arange(1, count + 1, dtype=np.float32)[:, None]  # its order is that of the indices

    def pack(order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return pack_records(order, means, conics, opacities, colors, depths, False, extents, size)

    def blank(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.float32)

    # Their lists, in which an index is a rank.
    everything = np.arange(count, dtype=np.int32)
    records, _ = pack(everything)
    same = (scene["offsets"], scene["ids"], records, size, channels, threads)
    # Our lists.
    order = order_by_depth(depths, extents, threads)
    own_records, reached = pack(order)
    offsets, ranks, *slots = bin_tiles(order, own_records, reached, count, 1, size, threads)
    own = (offsets, ranks, own_records, size, channels, threads)

    image, left = blank(height, width, 3), blank(height, width)
    last, rows = np.zeros(len(scene["offsets"]) - 1, np.int64), blank(len(scene["ids"]), 9)
    ours = [
        (blank(1, height, width, 3), blank(1, height, width, 0), *blank(3, 1, height, width))
        for _ in range(2)
    ]
    sums = [blank(len(lists[1]), MOMENTS + 3) for lists in (same, own)]
    arrays = [scene[k] for k in ("offsets", "ids", "means", "conics", "opacities", "colors")]
    baseline.forward(width, height, *arrays, image, left, last)
    upstream = np.random.default_rng(1).random((height, width, 3)).astype(np.float32)

    def their_backward() -> None:
        baseline.backward(width, height, *arrays, left, last, upstream, rows)

    def our_backward(lists: tuple, which: int) -> None:
        grads = (upstream[None], blank(1, height, width, 0), blank(1, height, width))
        blend_backward(*lists, ours[which][3], ours[which][4], grads, sums[which])

    times = least_times(
        {
            "baseline forward": lambda: baseline.forward(width, height, *arrays, image, left, last),
            "same lists forward": lambda: blend_forward(*same, ours[0]),
            "own lists forward": lambda: blend_forward(*own, ours[1]),
            "baseline backward": their_backward,
            "same lists backward": lambda: our_backward(same, 0),
            "own lists backward": lambda: our_backward(own, 1),
        },
        repeats,
    )

    # Only where neither finishes a pixel: there the yardstick draws one Gaussian more than gsplat.
    unfinished = left > 1e-4
    upstream *= unfinished[..., None]
    their_backward()
    our_backward(own, 1)
    gradients = [blank(count, n) for n in (2, 3, 1, 3, 1)]
    gather_gradients(order, *slots, sums[1], conics, opacities, False, tuple(gradients))
    theirs = np.zeros((count, 9))
    np.add.at(theirs, scene["ids"], rows)
    theirs[:, [2, 4]] /= 2  # they have the gradients of half the diagonal entries
    mine = np.concatenate(gradients[:4], 1)
    error = np.abs(image - ours[1][0][0])[unfinished]
    return {
        "scene": list(spec),
        "intersections": {"baseline": len(scene["ids"]), "own": len(ranks)},
        "milliseconds": times,
        **{
            f"{direction}_ratio_{lists}_lists": times[f"baseline {direction}"]
            / times[f"{lists} lists {direction}"]
            for direction in ("forward", "backward")
            for lists in ("same", "own")
        },
        "finished_pixels": float((~unfinished).mean()),
        "image_error": {
            "max": float(error.max()),
            "99.9%": float(np.quantile(error, 0.999)),
        },
        "gradient_error": float((np.abs(mine - theirs).max(0) / np.abs(theirs).max(0)).max()),
    }


def random_gaussians(count: int, width: int, height: int, channels: int) -> list[torch.Tensor]:
    """Fill the view of a camera with Gaussians of 0.5 to 2 px at a width of 640.

    Sizes are fixed in the scene, so that they grow in pixels with the image.
    """
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> torch.Tensor:
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
    """Note how long each kernel takes in the whole call."""

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*arguments: Any) -> Any:
            start = clock()
            result = function(*arguments)
            times.setdefault(name, []).append(1e3 * (clock() - start))
            return result

        return run

    kernels = {name: getattr(numba_cpu, name) for name in PARTS}
    for name, function in kernels.items():
        setattr(numba_cpu, name, timed(name, function))
    try:
        yield
    finally:
        for name, function in kernels.items():
            setattr(numba_cpu, name, function)


def time_whole_call(
    count: int, width: int, height: int, channels: int, repeats: int
) -> dict[str, float]:
    """Return the least milliseconds of `forward`, `backward` and each of `PARTS`, with depth."""
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
    return {name: min(values[1:]) for name, values in times.items()}


def shares(times: dict[str, float]) -> dict[str, float]:
    """Return each part's share of the whole call, forward and backward, and the rest's."""
    whole = times["forward"] + times["backward"]
    parts = {name: times[name] / whole for name in PARTS}
    return {**parts, "the rest": 1 - sum(parts.values())}


def scaling(repeats: int, quick: bool) -> dict[str, list[dict[str, float]]]:
    """Time the whole call as one of Gaussians, pixels, channels and threads grows."""
    sizes = [(160, 120), (320, 240), (640, 480), (960, 720), (1280, 960)]
    counts = [12_500, 25_000, 50_000, 100_000, 200_000]
    many = [1, 3, 7, 15, 31]
    if quick:
        sizes, counts, many = sizes[:2], counts[:2], many[:2]

    def run(x: float, *arguments: int) -> dict[str, float]:
        return {"x": x, **time_whole_call(*arguments, repeats)}

    tables = {
        "gaussians": [run(count, count, 640, 480, 3) for count in counts],
        "pixels": [run(w * h, 50_000, w, h, 3) for w, h in sizes],
        "channels": [run(n + 1, 50_000, 640, 480, n) for n in many],
        "threads": [],
    }
    threads = torch.get_num_threads()
    for count in range(1, threads + 1):
        torch.set_num_threads(count)
        tables["threads"].append(run(count, 100_000, 640, 480, 3))
    return tables


def plot_scaling(tables: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw time against Gaussians, pixels and channels."""
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
            axes.plot(x, [row[part] for row in tables[name]], "o-", label=part)
        axes.set(xlabel=title, xlim=(0, None), ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("ms, whole call")
    figure.axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def load_baseline(path: Path) -> ModuleType | None:
    if not path.is_file():
        print(f"no yardstick at {path}: the ratios are left out", file=sys.stderr)
        return None
    spec = importlib.util.spec_from_file_location("baseline_raster", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def measure(baseline: ModuleType | None, repeats: int, quick: bool) -> dict[str, Any]:
    """Return all figures."""
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.get_num_threads()))
    torch.set_num_threads(threads)  # Numba's pool has changed it as it started
    result: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "threads": threads,
        "versions": {"numba": numba.__version__, "torch": torch.__version__},
        "repeats": repeats,
    }
    if baseline is not None:
        specs = baseline.STANDARD_SCENES[: 1 if quick else None]
        scenes = [compare_with_baseline(baseline, spec, repeats) for spec in specs]
        for name in ("forward_ratio", "backward_ratio"):
            for lists in ("same", "own"):
                key = f"{name}_{lists}_lists"
                result[key] = geometric_mean([scene[key] for scene in scenes])
            result[name] = result[f"{name}_same_lists"]
        result["max_abs_error"] = max(scene["image_error"]["max"] for scene in scenes)
        result["max_gradient_error"] = max(scene["gradient_error"] for scene in scenes)
        result["scenes"] = scenes
    count, width, height = (20_000, 320, 240) if quick else (100_000, 640, 480)
    times = time_whole_call(count, width, height, 3, repeats)
    result["whole_call"] = {
        "scene": [count, width, height],
        "milliseconds": times,
        "shares": shares(times),
        "forward_over_blending": times["forward"] / times["blend_forward"],
    }
    result["scaling"] = scaling(max(3, repeats // 3), quick)
    return result


def describe(result: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = []
    for scene in result.get("scenes", []):
        lines.append(
            "{} Gaussians, {}x{}:".format(*scene["scene"][:3])
            + "".join(
                f" {direction} {scene[f'{direction}_ratio_same_lists']:.2f} times as fast"
                f" ({scene[f'{direction}_ratio_own_lists']:.2f} with own lists);"
                for direction in ("forward", "backward")
            )
            + f" image error {scene['image_error']['max']:.1e}"
            f" (99.9 %: {scene['image_error']['99.9%']:.1e}),"
            f" gradient error {scene['gradient_error']:.1e}"
        )
    whole = result["whole_call"]
    lines.append("whole call, {} Gaussians, {}x{}, colour + depth:".format(*whole["scene"]))
    for name, share in whole["shares"].items():
        milliseconds = whole["milliseconds"].get(name)
        time_text = "" if milliseconds is None else f"{milliseconds:8.2f} ms"
        lines.append(f"    {name:18s}{time_text:11s}{100 * share:6.1f} %")
    lines.append(f"    forward / blending {whole['forward_over_blending']:.2f}")
    for name, rows in result["scaling"].items():
        lines.append(f"{name:>12s}   forward  backward (ms)")
        lines += [f"{row['x']:12g}{row['forward']:10.2f}{row['backward']:10.2f}" for row in rows]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--plot", type=Path, help="draw the scaling to this PNG")
    parser.add_argument("--quick", action="store_true", help="one small scene, few repeats")
    parser.add_argument("--baseline", type=Path, default=BASELINE, help="the yardstick's file")
    parser.add_argument("--threads", type=int, help="instead of torch's number")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    result = measure(load_baseline(options.baseline), 3 if options.quick else 15, options.quick)
    print(describe(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot:
        plot_scaling(result["scaling"], options.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
