"""Training the small network in a folder: the work of `msdyn-train`."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from tqdm import tqdm

from msdyn.devices import DeviceName
from msdyn.errors import InputError
from msdyn.feedforward.training.checkpoints import find_checkpoint
from msdyn.feedforward.training.config import TrainingConfig
from msdyn.feedforward.training.curriculum import small_on_cpu
from msdyn.feedforward.training.evaluation import evaluate, unseen_batches
from msdyn.feedforward.training.loop import Trainer
from msdyn.feedforward.training.objective import PerceptualLoss
from msdyn.feedforward.training.parallel import Parallel, Processes
from msdyn.feedforward.training.pictures import save_sheet
from msdyn.feedforward.training.records import Records
from msdyn.files import read_json, write_json
from msdyn.version import __version__

__all__ = ["TrainCommandConfig", "train"]

_log = logging.getLogger(__name__)

_UNSEEN = 32
_SHEET = 6


@dataclass(frozen=True)
class TrainCommandConfig:
    """Train the small feed-forward network on random scenes."""

    out: tyro.conf.Positional[Path]
    """Folder for weights, checkpoint, log and pictures; a run in it is resumed."""
    steps: int = 8000
    """Steps of the curriculum; about a second each on one core."""
    parts: int = 1
    """Batches of a step. Processes started by torchrun divide them; the result is the same for any
    number of processes, but for rounding errors."""
    initial: str | None = None
    """Weights to start from: the name of a network, or a file, also the released one or VGGT-1B's;
    random by default."""
    seed: int = 0
    """Of weights and scenes."""
    save_every: int = 200
    """Steps between checkpoints, each with figures on unseen scenes and a contact sheet."""
    device: DeviceName = "auto"
    """Device to train on; auto takes a GPU if there is one."""
    parallel: Parallel = "ddp"
    """Under torchrun: copy the network to every process, or divide it among them."""

    def __post_init__(self) -> None:
        for name in ("steps", "parts", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, got {getattr(self, name)}")

    @property
    def training(self) -> TrainingConfig:
        """The curriculum."""
        return replace(
            small_on_cpu(self.steps, seed=self.seed),
            parts=self.parts,
            initial=self.initial,
            save_every=self.save_every,
        )


def train(
    config: TrainCommandConfig,
    training: TrainingConfig | None = None,
    *,
    perceptual: PerceptualLoss | None = None,
) -> dict[str, float]:
    """Train, or resume training, in a folder, and return the figures on unseen scenes.

    Writes `config.json`, `model.safetensors`, a checkpoint, `log.jsonl`, TensorBoard's files and
    pictures. Under `torchrun` all processes call it, and the first one writes.

    Args:
        config: options of the command.
        training: the curriculum; that of the options by default.
        perceptual: LPIPS, for curricula with its loss.

    Raises:
        InputError: the folder has a run with other options, or training diverges.
    """
    training = training or config.training
    folder = config.out
    with Processes.joined(config.device, config.parallel) as processes:
        if processes.first:
            _check_folder(folder, training)
        processes.wait()
        trainer = Trainer(training, processes, perceptual=perceptual)
        checkpoint = find_checkpoint(folder)
        if checkpoint is not None:
            trainer.restore(checkpoint)
            _log.info("resuming at step %d of %d", trainer.step, training.steps)
        watcher = _Watcher(trainer, folder)
        steps = tqdm(
            total=training.steps,
            initial=trainer.step,
            desc="train",
            unit="step",
            disable=None if processes.first else True,
        )
        with steps as bar:
            trainer.run(folder, watch=watcher, each=lambda _: bar.update())
        return watcher.figures or watcher(trainer, None)


class _Watcher:
    """Evaluates a network on unseen scenes and draws a sheet of some of them.

    Attributes:
        figures: of the last evaluation.
    """

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        last, device = trainer.config.stages[-1], trainer.processes.device
        options = replace(last.batch, scenes=4, queries=2, query_times="random", targets=True)
        self._batches = unseen_batches(last.scenes, options, _UNSEEN, device=device)
        options = replace(options, scenes=_SHEET, queries=1)
        self._sheet = unseen_batches(last.scenes, options, _SHEET, device=device)[0]
        self._pictures = folder / "pictures"
        self._pictures.mkdir(parents=True, exist_ok=True)
        self.figures: dict[str, float] = {}

    def __call__(self, trainer: Trainer, records: Records | None) -> dict[str, float]:
        """Return figures; the network runs in all processes, the first one keeps the sheet."""
        path = self._pictures / f"{trainer.step:06d}.png"
        save_sheet(trainer.model, self._sheet, path if trainer.processes.first else None)
        if records is not None:
            records.add_picture("unseen", path, trainer.step)
        figures = evaluate(trainer.model, self._batches)
        self.figures = {name: round(value, 4) for name, value in figures.items()}
        return self.figures


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
