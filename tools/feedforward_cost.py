"""Tokens, operations and memory of the feed-forward network, counted without running it.

    python tools/feedforward_cost.py --frames 4 13 --size 224 224 --size 518 294 --size 518 518

One multiply-add counts as two operations. Per query time the motion heads run once over all
frames. With --training, for the paper's stages: operations of a step, steps in the time that the
paper states, and what one clip keeps in memory for gradients, in float32, but for the rasterizer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from msdyn.feedforward import ClipTensors, ModelConfig, Movies
from msdyn.feedforward.training.published import PublishedStage, published_stage

# Days of the stages (MoVieS, A.3); static and dynamic scenes with 5 views take 2 together.
DAYS: dict[PublishedStage, float | None] = {
    "static": None,
    "dynamic": 2.0,
    "views": 2.0,
    "resolution": 1.0,
}
CARDS, RATE = 32, 60e12
"""H20 cards of the paper, and operations per second of one: 40 % of 148 TFLOP/s in bfloat16."""

NETWORKS = {"published": ModelConfig.published_network, "small": ModelConfig.small}


@dataclass(frozen=True)
class Cost:
    """Operations of one pass over a clip, by part."""

    tokens: int
    encode: float
    static: float
    query: float


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--network", choices=NETWORKS, default="published")
    parser.add_argument("--frames", type=int, nargs="+", default=[4, 13])
    parser.add_argument("--size", type=int, nargs=2, action="append", metavar=("W", "H"))
    parser.add_argument("--training", action="store_true", help="count the paper's stages")
    arguments = parser.parse_args()
    config = NETWORKS[arguments.network]()
    with torch.device("meta"):
        count = sum(value.numel() for value in Movies(config).parameters())
    print(
        f"{count:,} parameters: {4e-9 * count:.2f} GB in float32, {16e-9 * count:.1f} GB to train"
    )
    if arguments.training:
        print_training(config)
        return 0
    print("| frames | size | tokens | encoder, aggregator | depth, splats | per query | one, all |")
    print("|---|---|---|---|---|---|---|")
    for width, height in arguments.size or [(224, 224), (518, 518)]:
        for frames in arguments.frames:
            cost = count_operations(config, frames, width, height)
            parts = (cost.encode, cost.static, cost.query)
            cells = " | ".join(f"{1e-12 * part:.1f} TFLOP" for part in parts)
            one, every = (1e-12 * (sum(parts[:2]) + n * cost.query) for n in (1, frames))
            print(
                f"| {frames} | {width}x{height} | {cost.tokens:,} | {cells} | "
                f"{one:.0f}, {every:.0f} TFLOP |"
            )
    return 0


def count_operations(config: ModelConfig, frames: int, width: int, height: int) -> Cost:
    """Return the operations of a network for one clip, counted on tensors without memory."""
    with torch.device("meta"):
        model = Movies(config).eval()
        clip = ClipTensors(
            torch.rand(1, frames, 3, height, width),
            torch.eye(4).expand(1, frames, 4, 4),
            torch.ones(1, frames, 4),
            torch.ones(1, frames),
        )
        query = torch.ones(1)

    def counted(function: Callable):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            result = function()
        return result, counter.get_total_flops()

    features, encode = counted(lambda: model.encode(clip))
    static, heads = counted(lambda: model.static(features))
    motion = 0
    if config.motion:
        _, motion = counted(lambda: model.move(features, static, query))
    patches = features.grid[0] * features.grid[1]
    return Cost(frames * (patches + config.special_tokens), encode, heads, motion)


def print_training(config: ModelConfig) -> None:
    """Print a row for each stage of the paper's training."""
    config = replace(config, published=False)
    print("| stage | clip | batch | kept | kept, recomputed | days | steps |")
    print("|---|---|---|---|---|---|---|")
    for name, days in DAYS.items():
        run = published_stage(name, 1, ("clips",), network=config)
        clips = run.stages[0].clips
        assert clips is not None
        frames, side, queries = clips.frames[1], clips.long_side, clips.queries
        cost = count_operations(run.model, frames, side, side)
        forward = cost.encode + cost.static + queries * cost.query
        # Twice the forward pass for gradients, and once more for what is recomputed.
        step = 4 * forward * clips.scenes * run.parts
        kept = [kept_memory(run.model, frames, side, queries, again) for again in (False, True)]
        steps = "" if days is None else f"{days * 86400 * CARDS * RATE / step:,.0f}"
        print(
            f"| `{name}` | {1e-12 * forward:.1f} TFLOP | {1e-15 * step:.1f} PFLOP | "
            f"{1e-9 * kept[0]:.1f} GB | {1e-9 * kept[1]:.1f} GB | {days or ''} | {steps} |"
        )


def kept_memory(
    config: ModelConfig, frames: int, side: int, queries: int, recompute: bool
) -> float:
    """Return the bytes that a clip keeps for gradients, besides weights, in float32."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.device("meta"):
        model = Movies(config).train()
        model.recompute = recompute
        clip = ClipTensors(
            torch.rand(1, frames, 3, side, side),
            torch.eye(4).expand(1, frames, 4, 4),
            torch.ones(1, frames, 4),
            torch.ones(1, frames),
        )
        results = []
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features = model.encode(clip)
            static = model.static(features)
            for _ in range(queries):
                motion = None
                if config.motion:
                    motion = model.move(features, static, torch.ones(1))
                results.append(model.gaussians(features, static, motion))
    weights = {value.untyped_storage()._cdata for value in model.parameters()}
    return float(sum(storage.nbytes() for key, storage in kept.items() if key not in weights))


if __name__ == "__main__":
    sys.exit(main())
