"""Tokens, operations and memory of the feed-forward network, counted without running it.

    python tools/feedforward_cost.py --frames 4 13 --size 224 224 --size 518 294 --size 518 518

One multiply-add counts as two operations. Per query time the motion heads run once over all
frames. Training memory is that of weights, gradients and Adam's two moments in float32, without
activations.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from msdyn.feedforward import ClipTensors, ModelConfig, Movies

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
    arguments = parser.parse_args()
    config = NETWORKS[arguments.network]()
    with torch.device("meta"):
        count = sum(value.numel() for value in Movies(config).parameters())
    print(
        f"{count:,} parameters: {4e-9 * count:.2f} GB in float32, {16e-9 * count:.1f} GB to train"
    )
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
    _, motion = counted(lambda: model.move(features, static, query))
    patches = features.grid[0] * features.grid[1]
    return Cost(frames * (patches + config.special_tokens), encode, heads, motion)


if __name__ == "__main__":
    sys.exit(main())
