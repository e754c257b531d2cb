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

from msdyn.devices import DeviceName, choose_device
from msdyn.errors import InputError
from msdyn.feedforward.training.curriculum import small_on_cpu
from msdyn.feedforward.training.evaluation import evaluate, unseen_batches
from msdyn.feedforward.training.loop import Trainer, TrainingConfig
from msdyn.feedforward.training.pictures import save_sheet
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
    seed: int = 0
    """Of weights and scenes."""
    save_every: int = 200
    """Steps between checkpoints, each with figures on unseen scenes and a contact sheet."""
    device: DeviceName = "auto"
    """Device to train on; auto takes a GPU if there is one."""

    def __post_init__(self) -> None:
        for name in ("steps", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, got {getattr(self, name)}")

    @property
    def training(self) -> TrainingConfig:
        """The curriculum."""
        return replace(small_on_cpu(self.steps, seed=self.seed), save_every=self.save_every)


def train(config: TrainCommandConfig, training: TrainingConfig | None = None) -> dict[str, float]:
    """Train, or resume training, in a folder, and return the figures on unseen scenes.

    Writes `config.json`, `model.safetensors`, `checkpoint.pt`, `log.jsonl` and pictures.

    Args:
        config: options of the command.
        training: the curriculum; that of the options by default.

    Raises:
        InputError: the folder has a run with other options, or training diverges.
    """
    training = training or config.training
    folder = config.out
    _check_folder(folder, training)
    trainer = Trainer(training, choose_device(config.device))
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.is_file():
        trainer.restore(checkpoint)
        _log.info("resuming at step %d of %d", trainer.step, training.steps)
    last = training.stages[-1]
    options = replace(last.batch, scenes=4, queries=2, query_times="random", targets=True)
    batches = unseen_batches(last.scenes, options, _UNSEEN, device=trainer.device)
    sheet = unseen_batches(
        last.scenes, replace(options, scenes=_SHEET, queries=1), _SHEET, device=trainer.device
    )[0]
    figures: dict[str, float] = {}

    def watch(trainer: Trainer) -> dict[str, float]:
        save_sheet(trainer.model, sheet, folder / "pictures" / f"{trainer.step:06d}.png")
        figures.update({k: round(v, 4) for k, v in evaluate(trainer.model, batches).items()})
        return figures

    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    with tqdm(total=training.steps, initial=trainer.step, desc="train", unit="step") as bar:
        trainer.run(folder, watch=watch, each=lambda _: bar.update())
    return figures or watch(trainer)


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
