"""The CPU rasterizer's blending kernels against the yardstick, and against float64.

The yardstick is a plain Numba tile kernel in a file of its own. It and ours run in turns in one
process on the same arrays; the least of several times counts. "Same lists" means that our kernels
work off the yardstick's own tile lists, "own lists" that they work off those of our binning.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import torch

from msdyn.raster.cpu.bin import LOG2_CUT, bin_tiles, order_by_depth, pack_records
from msdyn.raster.cpu.blend import MOMENTS, blend_backward, blend_forward, gather_gradients

__all__ = ["clock", "compare_with_baseline", "load_baseline"]


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


def load_baseline(path: Path) -> ModuleType | None:
    if not path.is_file():
        print(f"no yardstick at {path}: the ratios are left out", file=sys.stderr)
        return None
    spec = importlib.util.spec_from_file_location("baseline_raster", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    error = np.abs(image - ours[1][0][0])[unfinished]

    def gradients(weights: np.ndarray) -> np.ndarray:
        """Return ours [G, 9] of mean, conic, opacity and colour, for an upstream gradient."""
        upstream[:] = weights
        our_backward(own, 1)
        parts = [blank(count, n) for n in (2, 3, 1, 3, 1)]
        gather_gradients(order, *slots, sums[1], conics, opacities, False, tuple(parts))
        return np.concatenate(parts[:4], 1)

    mine = gradients(upstream * unfinished[..., None])
    their_backward()
    theirs = np.zeros((count, 9))
    np.add.at(theirs, scene["ids"], rows)
    theirs[:, [2, 4]] /= 2  # they have the gradients of half the diagonal entries
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
        "difference_from_baseline": {
            "max": float(error.max()),
            "quantile_999": float(np.quantile(error, 0.999)),
            "gradients": float((np.abs(mine - theirs).max(0) / np.abs(theirs).max(0)).max()),
        },
        "error": compare_with_float64(scene, ours[1][0][0], image, gradients),
    }


def compare_with_float64(
    scene: dict[str, Any],
    image: np.ndarray,
    their_image: np.ndarray,
    gradients: Callable[[np.ndarray], np.ndarray],
    samples: int = 400,
) -> dict[str, float]:
    """Compare random pixels, and the gradients of their weighted sum, with float64.

    Every Gaussian is evaluated at every such pixel. A pixel is left out where alpha of some
    Gaussian is within 1e-3 of the cut or the light within 1e-3 of the stop, relatively: there the
    last digits of float32 decide.

    Args:
        scene: of the yardstick, whose order is that of depth.
        image: ours [H, W, 3].
        their_image: the yardstick's.
        gradients: see `compare_with_baseline`.
    """
    rng = np.random.default_rng(2)
    names = ("means", "conics", "opacities", "colors")
    leaves = [torch.from_numpy(scene[name]).double().requires_grad_() for name in names]
    means, conics, opacities, colours = (leaf.detach() for leaf in leaves)
    weights, loss = np.zeros_like(image), torch.zeros((), dtype=torch.float64)
    errors, theirs = [], []
    for place in rng.choice(scene["H"] * scene["W"], samples, replace=False):
        y, x = divmod(int(place), scene["W"])
        centre = torch.tensor([x + 0.5, y + 0.5], dtype=torch.float64)

        def raw_alpha(m: torch.Tensor, c: torch.Tensor, o: torch.Tensor) -> torch.Tensor:
            dx, dy = (m - centre).unbind(-1)  # noqa: B023 - called in this round of the loop
            sigma = 0.5 * (c[:, 0] * dx * dx + c[:, 2] * dy * dy) + c[:, 1] * dx * dy
            return o * torch.exp(-sigma)

        near = torch.where(raw_alpha(means, conics, opacities) > 0.9 / 255)[0]
        raw = raw_alpha(*(leaf[near] for leaf in leaves[:3]))
        alpha = torch.where(raw >= 1 / 255, raw.clamp(max=0.999), 0.0)
        after = (1 - alpha).cumprod(0)
        doubtful = ((raw * 255).log().abs() < 1e-3) | ((after / 1e-4).log().abs() < 1e-3)
        if bool(doubtful.any()):
            continue
        alpha = torch.where(after > 1e-4, alpha, 0.0)
        before = torch.cat([after.new_ones(1), (1 - alpha).cumprod(0)[:-1]])
        exact = (alpha * before) @ leaves[3][near]
        errors.append(np.abs(exact.detach().numpy() - image[y, x]).max())
        if not bool((after <= 1e-4).any()):
            theirs.append(np.abs(exact.detach().numpy() - their_image[y, x]).max())
        weights[y, x] = rng.random(3)
        loss = loss + (exact * torch.from_numpy(weights[y, x])).sum()
    loss.backward()
    truth = torch.cat([leaf.grad.reshape(len(leaf), -1) for leaf in leaves], 1).numpy()
    mine = gradients(weights)
    return {
        "max": float(max(errors)),
        "mean": float(np.mean(errors)),
        "gradients": float((np.abs(mine - truth).max(0) / np.abs(truth).max(0)).max()),
        "max_of_baseline": float(max(theirs)),
        "pixels": len(errors),
    }
