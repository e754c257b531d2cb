"""`msdyn-train`: train the small feed-forward network."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from msdyn.cli.run import parse, run
from msdyn.feedforward.training.run import TrainCommandConfig

DESCRIPTION = (
    "Train the small feed-forward network on random scenes, which are made as training goes. The "
    "same command resumes an interrupted run; msdyn-predict --model OUT/model.safetensors uses it."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(_train, parse(TrainCommandConfig, argv, "msdyn-train", DESCRIPTION))


def _train(config: TrainCommandConfig) -> None:
    from msdyn.feedforward.training.run import train

    logging.basicConfig(format="%(message)s", level=logging.INFO)
    figures = train(config)
    print(f"{config.steps} steps; on unseen scenes, beside trivial predictions:")
    print(f"  motion of moving pixels  {figures['epe']:.4f}, zero motion {figures['epe_zero']:.4f}")
    print(f"  motion of static pixels  {figures['epe_static']:.4f}")
    print(
        f"  depth (AbsRel)           {figures['absrel']:.3f}, "
        f"mean depth {figures['absrel_constant']:.3f}"
    )
    print(
        f"  PSNR at other times      {figures['psnr']:.2f} dB, without motion "
        f"{figures['psnr_without_motion']:.2f}, nearest input frame {figures['psnr_nearest']:.2f}"
    )
    print(f"weights, log and pictures in {config.out}")
