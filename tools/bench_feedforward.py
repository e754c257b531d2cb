"""Time and memory of the feed-forward network by frames, image size and precision.

    python tools/bench_feedforward.py --json feedforward.json            # the published sizes
    python tools/bench_feedforward.py --network small --frames 4 13 --size 64 48

The weights are random. Every row is measured in a process of its own: seconds of one pass (encoder
and aggregator; depth and appearance; motion to one query time) and its peak memory, of the process
on a CPU, of the tensors on a GPU.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from machine import describe_machine

from msdyn.feedforward import ClipTensors, ModelConfig, Movies
from msdyn.feedforward.model import needs_float32
from msdyn.writing import write_json

NETWORKS = {"published": ModelConfig.published_network, "small": ModelConfig.small}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--network", choices=NETWORKS, default="published")
    parser.add_argument("--frames", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224), metavar=("W", "H"))
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--chunk", type=int, help="frames that a head processes at once")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        (frames,), (precision,) = arguments.frames, arguments.precision
        config, size = NETWORKS[arguments.network](), arguments.size
        print(
            json.dumps(measure(config, frames, size, precision, arguments.device, arguments.chunk))
        )
        return 0
    rows = []
    print("| frames | size | precision | encode | static | query | peak memory |")
    print("|---|---|---|---|---|---|---|")
    for precision in arguments.precision:
        for frames in arguments.frames:
            row = _in_process(arguments, frames, precision)
            rows.append(row)
            seconds = " | ".join(f"{row[part]:.2f} s" for part in ("encode", "static", "query"))
            size = "x".join(map(str, arguments.size))
            print(f"| {frames} | {size} | {precision} | {seconds} | {row['gib']:.2f} GiB |")
    if arguments.json:
        machine = describe_machine(None, ("msdyn", "tools"))
        write_json(arguments.json, {"measured_on": machine, "rows": rows})
    return 0


def _in_process(arguments: argparse.Namespace, frames: int, precision: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", "--network", arguments.network]
    command += ["--frames", str(frames), "--size", *map(str, arguments.size)]
    command += ["--precision", precision, "--device", arguments.device]
    command += ["--chunk", str(arguments.chunk)] if arguments.chunk else []
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


@torch.inference_mode()
def measure(
    config: ModelConfig,
    frames: int,
    size: Sequence[int],
    precision: str,
    device_name: str,
    chunk: int | None = None,
) -> dict[str, Any]:
    """Return the seconds of each part of a pass, after one to warm up on a GPU, and the memory.

    Args:
        config: of the network.
        frames: input frames.
        size: width and height, px.
        precision: "float32" or "bfloat16".
        device_name: "cpu" or "cuda".
        chunk: frames that a head processes at once; None for all.
    """
    width, height = size
    device, half = torch.device(device_name), precision == "bfloat16"
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    model = _random_network(config, device, half)
    model.frame_chunk = chunk
    clip = ClipTensors(
        torch.rand(1, frames, 3, height, width),
        torch.eye(4).expand(1, frames, 4, 4),
        torch.tensor([1.0, width / height, 0.5, 0.5]).expand(1, frames, 4),
        torch.linspace(0, 1, frames)[None],
    ).to(device)
    seconds: dict[str, float] = {}
    query = torch.tensor([0.5], device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        for _ in range(2 if device.type == "cuda" else 1):
            start = _now(device)
            features = model.encode(clip)
            encoded = _now(device)
            static = model.static(features)
            predicted = _now(device)
            model.gaussians(features, static, model.move(features, static, query))
            moved = _now(device)
            seconds = {
                "encode": encoded - start,
                "static": predicted - encoded,
                "query": moved - predicted,
            }
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shape = {"frames": frames, "width": width, "height": height, "precision": precision}
    return shape | seconds | {"gib": peak / 2**30, "threads": torch.get_num_threads()}


def _random_network(config: ModelConfig, device: torch.device, half: bool) -> Movies:
    """Return a network of random weights, made in place: never twice in memory."""
    with torch.device("meta"):
        model = Movies(config)
    for name, value in list(model.named_parameters()):
        dtype = torch.bfloat16 if half and not needs_float32(name) else torch.float32
        owner, _, leaf = name.rpartition(".")
        random = torch.empty(value.shape, dtype=dtype, device=device).uniform_(-0.02, 0.02)
        setattr(model.get_submodule(owner), leaf, torch.nn.Parameter(random, requires_grad=False))
    return model.eval()


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    sys.exit(main())
