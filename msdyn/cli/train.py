"""`msdyn-train`: train the feed-forward network."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from msdyn.cli.inputs import require_files
from msdyn.cli.run import RESUMES, parse, run
from msdyn.feedforward.training.command import TrainCommandConfig
from msdyn.logs import require_logs
from msdyn.progress import stage

DESCRIPTION = (
    "Train the feed-forward network: the small one on random scenes, which are made as training "
    "goes, or a stage of the paper's training on clips. The same command resumes an interrupted "
    "run; torchrun --nproc-per-node N -m msdyn.cli.train shares it among N processes. "
    "msdyn-predict --model OUT/model.safetensors uses the result."
)
EXAMPLES = (
    "out/small  # the small network on random scenes; hours on a CPU",
    "out/static --recipe static --data clips  # a stage of the paper's training",
)

# Figure, its name, and the trivial predictions that are beside it.
_LINES: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("motion of moving pixels", "epe", (("epe_zero", "zero motion"),)),
    ("motion of static pixels", "epe_static", ()),
    ("depth (AbsRel)", "absrel", (("absrel_constant", "mean depth"),)),
    (
        "PSNR at other times, dB",
        "psnr",
        (("psnr_without_motion", "without motion"), ("psnr_nearest", "nearest input frame")),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    config = parse(TrainCommandConfig, argv, "msdyn-train", DESCRIPTION, examples=EXAMPLES)
    return run(_train, config, interrupted=RESUMES)


def _train(config: TrainCommandConfig) -> None:
    require_files(*config.data, *config.validation, *config.lpips)
    if config.initial is not None and Path(config.initial).suffix:
        require_files(Path(config.initial))
    require_logs(config.log)
    with stage("loading"):
        import torch

        from msdyn.evaluate import load_lpips
        from msdyn.feedforward.training.run import train

    torch.set_num_threads(config.threads)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    lpips = load_lpips(config.lpips) if config.lpips else None
    perceptual = None if lpips is None else lambda device: lpips.to(device).between
    figures = train(config, perceptual=perceptual)
    if int(os.environ.get("RANK", "0")):
        return
    print(
        f"{config.steps} steps{'; on unseen scenes, beside trivial predictions:' * bool(figures)}"
    )
    for label, name, beside in _LINES:
        if name in figures:
            others = [f"{text} {figures[key]:.4g}" for key, text in beside if key in figures]
            print(f"  {label:<24} {', '.join([f'{figures[name]:.4g}', *others])}")
    print(f"weights, log and pictures in {config.out}")


if __name__ == "__main__":
    sys.exit(main())
