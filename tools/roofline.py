"""Compare the blending kernels with what the vector ports of the processor allow, in one thread.

    python tools/roofline.py [--ports N] [--repeats N] [--json FILE] [--plot FILE]

From the machine code of the loops over pairs of a Gaussian and a block: vector operations, those
that only load, store or copy not counted, and floating-point operations per block. From the lists
of a scene: the blocks, and the lanes that contribute. From a loop of dependent multiplications, of
four cycles each: the frequency. A block takes at least its vector operations over the ports.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_render import machine, random_gaussians, timed_parts
from numba import njit
from numba.core.caching import NullCache

from msdyn.raster import rasterize
from msdyn.raster.cpu import rasterize as cpu_backend
from msdyn.raster.cpu.bin import LOG2_CUT, MASK_BITS, TILE
from msdyn.raster.cpu.blend import blend_forward
from msdyn.raster.cpu.blend_gradients import blend_backward
from msdyn.raster.cpu.lanes import WIDTH
from msdyn.raster.cpu.lanes_blocks import BLOCK_SIDE

SCENES = ((5_000, 160, 120), (20_000, 320, 240), (100_000, 640, 480))
KERNELS: dict[str, Any] = {"blend_forward": blend_forward, "blend_backward": blend_backward}


@njit
def _chain(count, value):
    """Multiply, then combine bits with those of the factor, three cycles and one in each turn.

    The compiler cannot merge turns, as it can those of multiplications and additions.
    """
    for _ in range(count):
        value = (value * 6364136223846793005) ^ (value >> 7)
    return value


def gigahertz() -> float:
    """Return the frequency of the core, the highest of several short measurements."""
    _chain(1, 1)
    seconds = []
    for _ in range(20):
        start = time.thread_time()
        _chain(2_000_000, 1)
        seconds.append(time.thread_time() - start)
    return 4 * 2_000_000 / min(seconds) / 1e9


def operations_per_block(assembly: str) -> dict[str, float]:
    """Count the vector operations of a block in the loops over pairs of a Gaussian and a block.

    The loop that computes alpha shifts integers into the exponent once for each block; another one,
    if there is one, is the loop of the most multiply-adds, and compares once for each block.
    """
    bodies = _innermost_loops(assembly)
    widest = "zmm" if "%zmm" in assembly else "ymm"
    lanes = {"zmm": 16, "ymm": 8}[widest]

    def count(body: list[str], pattern: str) -> int:
        return sum(bool(re.match(pattern, line.strip())) for line in body)

    multiply_add, shift = r"vfn?m(add|sub)\d*ps", r"vpslld\s+\$23"
    first = max(bodies, key=lambda body: count(body, shift))
    second = max(
        (body for body in bodies if not count(body, shift)),
        key=lambda body: count(body, multiply_add),
    )
    vectors, flops = 0.0, 0.0
    for body, blocks in ((first, count(first, shift)), (second, count(second, r"vcmp"))):
        if not count(body, multiply_add):
            continue
        for line in map(str.strip, body):
            mask = re.match(r"k(and|or|xor|not|mov|test|ortest)", line)
            if not (line.startswith("v") and f"%{widest}" in line) and not mask:
                continue
            if re.match(r"vmov|vbroadcast", line):
                continue
            vectors += 1 / blocks
            if re.match(multiply_add, line):
                flops += 2 * lanes / blocks
            elif re.match(r"v(add|sub|mul|div|min|max)ps", line):
                flops += lanes / blocks
    return {"vector operations": vectors, "flops": flops, "lanes": lanes}


def _innermost_loops(assembly: str) -> list[list[str]]:
    """Return the lines of each loop that has no other one within."""
    lines = assembly.splitlines()
    labels = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\.L\w+:", line)}
    spans = []
    for i, line in enumerate(lines):
        jump = re.match(r"\s+j\w+\s+(\.L\w+)", line)
        if jump and labels.get(jump.group(1), i) < i:
            spans.append((labels[jump.group(1)], i))
    return [
        lines[start:end]
        for start, end in spans
        if not any(start <= a and b <= end and (a, b) != (start, end) for a, b in spans)
    ]


@njit
def _count(offsets, entries, records, tiles_x, tiles_y, cut, width, side, bits):
    """Return the blocks of all lists, and the pixels of them where alpha reaches the cut."""
    blocks, useful = 0, 0
    for tile in range(offsets.size - 1):
        within = tile % (tiles_x * tiles_y)
        for k in range(offsets[tile], offsets[tile + 1]):
            i = entries[k] >> bits
            for block in range(width):
                if entries[k] >> block & 1:
                    blocks += 1
                    for lane in range(width):
                        x = within % tiles_x * width + block % side * side + lane % side + 0.5
                        y = within // tiles_x * width + block // side * side + lane // side + 0.5
                        dx, dy = records[i, 0] - x, records[i, 1] - y
                        u, v = records[i, 2] * dx + records[i, 3] * dy, records[i, 4] * dy
                        useful += records[i, 5] - u * u - v * v >= cut
    return blocks, useful


def measure(scene: tuple[int, int, int], repeats: int) -> dict[str, Any]:
    """Return the blocks of a scene, the share of useful lanes and the seconds of both kernels."""
    count, width, height = scene
    tensors = random_gaussians(count, width, height, 3)
    trained = [tensor.requires_grad_() for tensor in tensors[:5]]
    upstream = torch.rand(1, height, width, 3)
    lists: list[Any] = []
    bin_tiles = cpu_backend.bin_tiles

    def kept(order: Any, records: Any, *arguments: Any) -> Any:
        result = bin_tiles(order, records, *arguments)
        lists[:] = [result[0], result[1].copy(), records]
        return result

    times: dict[str, list[float]] = {}
    cpu_backend.bin_tiles = kept
    try:
        with timed_parts(times):
            for _ in range(repeats + 1):
                image = rasterize(*tensors, width, height, backend="cpu").features
                torch.autograd.grad(image, trained, upstream)
    finally:
        cpu_backend.bin_tiles = bin_tiles
    grid = tuple(-(-side // TILE) for side in (width, height))
    blocks, useful = _count(*lists, *grid, LOG2_CUT, WIDTH, BLOCK_SIDE, MASK_BITS)
    return {
        "scene": list(scene),
        "blocks": blocks,
        "useful lanes": useful / (WIDTH * blocks),
        "seconds": {name: min(times[name][1:]) / 1e3 for name in KERNELS},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ports", type=int, default=2, help="ports of the widest vectors")
    parser.add_argument(
        "--repeats", type=int, default=40, help="calls, of which the fastest counts"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--plot", type=Path, help="draw the roofline to this PNG")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for function in KERNELS.values():
        function._cache = NullCache()  # machine code from the cache has no assembly text
    rows = [measure(scene, options.repeats) for scene in SCENES]
    frequency = gigahertz()
    result: dict[str, Any] = {"machine": machine(), "gigahertz": frequency, "kernels": []}
    for name, function in KERNELS.items():
        counts = operations_per_block(next(iter(function.inspect_asm().values())))
        bound = counts["vector operations"] / options.ports
        peak = 2 * options.ports * counts["lanes"] * frequency * 1e9
        for row in rows:
            cycles = row["seconds"][name] * frequency * 1e9 / row["blocks"]
            rate = counts["flops"] * row["blocks"] / row["seconds"][name]
            figures = {
                "kernel": name,
                "scene": row["scene"],
                **counts,
                "cycles per block": cycles,
                "share of the port bound": bound / cycles,
                "share of the FMA peak": rate / peak,
                "useful lanes": row["useful lanes"],
            }
            result["kernels"].append(figures)
            print(
                f"{name:15s} {row['scene'][0]:7d}: {counts['vector operations']:4.1f} operations, "
                f"{cycles:5.1f} cycles a block, {100 * bound / cycles:3.0f} % of the port bound, "
                f"{100 * figures['share of the FMA peak']:3.0f} % of the FMA peak, "
                f"{100 * row['useful lanes']:3.0f} % of the lanes contribute"
            )
    print(f"{frequency:.2f} GHz, {options.ports} ports")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot:
        draw(result, options.ports, options.plot)
    return 0


def draw(result: dict[str, Any], ports: int, path: Path) -> None:
    """Plot achieved operations per cycle over those per vector operation, below the roof."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    lanes = result["kernels"][0]["lanes"]
    x = np.array([0.0, 2.0])
    axes.plot(x, x * ports * lanes, color="black", lw=1, label="port bound")
    axes.axhline(2 * ports * lanes, color="black", lw=1, ls=":", label="FMA peak")
    for row, marker in zip(result["kernels"], 2 * "os^", strict=True):
        intensity = row["flops"] / row["vector operations"] / lanes
        colour = "C0" if row["kernel"] == "blend_forward" else "C1"
        label = f"{row['kernel'].split('_')[1]}, {row['scene'][0]}"
        axes.plot(intensity, row["flops"] / row["cycles per block"], marker, c=colour, label=label)
    axes.set(xlabel="flops per vector operation and lane", ylabel="flops per cycle")
    axes.set(xlim=(0, 2), ylim=(0, None))
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    raise SystemExit(main())
