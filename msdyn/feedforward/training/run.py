"""Training a network in a folder: the work of `msdyn-train`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from msdyn.errors import InputError
from msdyn.feedforward.batches import TrainingBatch
from msdyn.feedforward.data.library import ClipLibrary
from msdyn.feedforward.training.checkpoints import find_checkpoint
from msdyn.feedforward.training.command import TrainCommandConfig
from msdyn.feedforward.training.config import TrainingConfig
from msdyn.feedforward.training.evaluation import UNSEEN_SEED, evaluate, unseen_batches
from msdyn.feedforward.training.loop import Trainer
from msdyn.feedforward.training.objective import PerceptualLoss
from msdyn.feedforward.training.parallel import Processes
from msdyn.feedforward.training.pictures import save_sheet
from msdyn.feedforward.training.records import Records
from msdyn.progress import Progress
from msdyn.reading import read_json
from msdyn.version import __version__
from msdyn.writing import write_json, writing_to

__all__ = ["train"]

_log = logging.getLogger(__name__)

_UNSEEN = 32
_SHEET = 6


def train(
    config: TrainCommandConfig,
    training: TrainingConfig | None = None,
    *,
    perceptual: Callable[[torch.device], PerceptualLoss] | None = None,
) -> dict[str, float]:
    """Train, or resume training, in a folder, and return the figures on unseen scenes.

    Writes `config.json`, `model.safetensors`, a checkpoint, `log.jsonl`, TensorBoard's files and
    pictures. Under `torchrun` all processes call it, and the first one writes.

    Args:
        config: options of the command.
        training: the curriculum; that of the options by default.
        perceptual: gives LPIPS on a device, for curricula with its loss.

    Raises:
        InputError: the folder has a run with other options, or training diverges.
    """
    training = training or config.training
    folder = config.out
    with (
        Processes.joined(config.device, config.parallel) as processes,
        # Only the first process writes; the others join it.
        writing_to(folder) if processes.first else nullcontext(),
    ):
        if processes.first:
            _check_folder(folder, training)
        processes.wait()
        distance = None if perceptual is None else perceptual(processes.device)
        trainer = Trainer(training, processes, perceptual=distance)
        checkpoint = find_checkpoint(folder)
        if checkpoint is not None:
            trainer.restore(checkpoint)
            _log.info("resuming at step %d of %d", trainer.step, training.steps)
        watcher = _Watcher(trainer, config)
        steps = Progress("train", training.steps, start=trainer.step, hidden=not processes.first)
        with steps as bar:
            trainer.run(folder, logs=config.log, watch=watcher, each=lambda _: bar.update())
        return watcher.figures or watcher(trainer, None)


class _Watcher:
    """Evaluates a network on unseen scenes, or clips kept for that, and draws a sheet of some.

    Attributes:
        figures: of the last evaluation; empty if there is nothing to evaluate on.
    """

    def __init__(self, trainer: Trainer, config: TrainCommandConfig) -> None:
        self._batches, self._sheet = _unseen(trainer, config)
        self._pictures = config.out / "pictures"
        self._pictures.mkdir(parents=True, exist_ok=True)
        self.figures: dict[str, float] = {}

    def __call__(self, trainer: Trainer, records: Records | None) -> dict[str, float]:
        """Return figures; the network runs in all processes, the first one keeps the sheet."""
        if self._sheet is not None:
            path = self._pictures / f"{trainer.step:06d}.png"
            save_sheet(trainer.model, self._sheet, path if trainer.processes.first else None)
            if records is not None:
                records.add_picture("unseen", path, trainer.step)
        figures = evaluate(trainer.model, self._batches)
        self.figures = {name: round(value, 4) for name, value in figures.items()}
        return self.figures


def _unseen(
    trainer: Trainer, config: TrainCommandConfig
) -> tuple[list[TrainingBatch], TrainingBatch | None]:
    """Return batches for figures, and one for a sheet, that training does not see."""
    last, device = trainer.config.stages[-1], trainer.processes.device
    if last.clips is None:
        options = replace(last.batch, scenes=4, queries=2, query_times="random", targets=True)
        batches = unseen_batches(last.scenes, options, _UNSEEN, device=device)
        options = replace(options, scenes=_SHEET, queries=1)
        return batches, unseen_batches(last.scenes, options, _SHEET, device=device)[0]
    if not config.validation:
        return [], None
    library = ClipLibrary(config.validation)
    frames = last.clips.frames[1]
    clips = replace(last.clips, scenes=1, queries=2, frames=(frames, frames), crop=(1.0, 1.0))
    batches = [
        library.batch(clips, seed=UNSEEN_SEED, number=number, device=device)
        for number in range(_UNSEEN)
    ]
    shapes = replace(clips, scenes=_SHEET, aspect=(1.0, 1.0))
    return batches, library.batch(shapes, seed=UNSEEN_SEED, number=0, device=device)


def _check_folder(folder: Path, training: TrainingConfig) -> None:
    """Write the options into a new folder; refuse one with a run with other options."""
    options: dict[str, Any] = json.loads(json.dumps(asdict(training)))
    path = folder / "config.json"
    if path.is_file():
        found = read_json(path)
        if not isinstance(found, dict) or found.get("training") != options:
            raise InputError(
                f"{folder}: has a run with other options; repeat its command to resume it, or "
                "choose another folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {"training": options, "msdyn": __version__, "torch": torch.__version__})
