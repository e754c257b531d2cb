"""Train a tiny network in a folder; torchrun starts this in several processes.

python train_tiny.py FOLDER HOW UNTIL
"""

import dataclasses
import sys
from pathlib import Path

from feedforward.training.test_loop import CONFIG

from msdyn.feedforward.training.checkpoints import find_checkpoint
from msdyn.feedforward.training.loop import Trainer
from msdyn.feedforward.training.parallel import Processes

TWO_PARTS = dataclasses.replace(CONFIG, parts=2, log_every=1)
WITHOUT_MATCHES = dataclasses.replace(
    TWO_PARTS,
    model=dataclasses.replace(CONFIG.model, correlation=False),
    stages=CONFIG.stages[1:],
    recompute=True,
)
CONFIGS = {"ddp": TWO_PARTS, "fsdp": WITHOUT_MATCHES}


def train(folder: Path, how: str, until: int) -> Trainer:
    with Processes.joined("cpu", how) as processes:
        trainer = Trainer(CONFIGS[how], processes)
        checkpoint = find_checkpoint(folder)
        if checkpoint is not None:
            trainer.restore(checkpoint)
        trainer.run(folder, until=until)
        return trainer


if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
