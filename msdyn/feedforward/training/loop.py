"""The training loop: a curriculum of stages over random scenes.

The batch of a step and all other random numbers of the step depend on the seed and the number of
the step only, so that a resumed run is the same, bit for bit, as one without interruption (on one
device).
"""

from __future__ import annotations

import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from msdyn.errors import InputError
from msdyn.feedforward.checkpoint import save_model, start_from
from msdyn.feedforward.config import ModelConfig
from msdyn.feedforward.correlation import Correlation
from msdyn.feedforward.model import Movies
from msdyn.feedforward.pretrained import find_model
from msdyn.feedforward.training.batches import BatchOptions, TrainingBatch, random_batch
from msdyn.feedforward.training.objective import LossWeights, losses
from msdyn.feedforward.training.random_scenes import SceneOptions
from msdyn.files import atomic_path

__all__ = ["Stage", "Trainer", "TrainingConfig"]

_NOTE = (
    "This small network is a demonstration, trained on random synthetic scenes of rigid objects; "
    "for real clips, give the released MoVieS weights with --model FILE."
)
_POOL = 24
"""Batches that are kept to be used again."""


@dataclass(frozen=True)
class Stage:
    """A part of the training."""

    name: str
    share: float
    """Of the steps."""
    weights: LossWeights
    scenes: SceneOptions = field(default_factory=SceneOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    reuse: int = 2
    """Steps per new batch; the others repeat recent batches with other colours and query times."""


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that determines a training run."""

    model: ModelConfig
    stages: tuple[Stage, ...]
    steps: int
    rate: float = 1e-3
    """Peak learning rate of AdamW; after the warm-up it falls to zero as a cosine."""
    matcher_rate: float = 1.0
    """Factor of the learning rate of the matching network."""
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    """Largest norm of the gradient."""
    initial: str | None = None
    """Weights to start from (`start_from`): the name of a network, or a file."""
    seed: int = 0
    bad_steps: int = 50
    """Steps in a row without finite loss and gradients after which training stops with an error."""
    log_every: int = 50
    save_every: int = 200

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps: expected at least 1, got {self.steps}")
        if not self.stages or any(stage.share <= 0 for stage in self.stages):
            raise InputError("stages: expected at least one, with positive shares")

    def stage(self, step: int) -> int:
        """Return the index of the stage of a step."""
        total = sum(stage.share for stage in self.stages)
        end = 0.0
        for index, stage in enumerate(self.stages):
            end += stage.share / total * self.steps
            if step < round(end):
                return index
        return len(self.stages) - 1

    def rate_factor(self, step: int) -> float:
        """Return the factor of the learning rate at a step: warm-up, then a cosine to zero."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        return warm * 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1)))


class Trainer:
    """Trains a network; `run` may be interrupted and resumed from the folder.

    Attributes:
        model: the network.
        step: number of finished steps.
        skipped: steps without an update, because the loss or its gradient was not finite.
    """

    def __init__(self, config: TrainingConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        torch.manual_seed(config.seed)
        self.model = _initialised(Movies(config.model))
        if config.initial is not None:
            start_from(self.model, find_model(config.initial).path)
        self.model.to(self.device).train()
        matcher = [p for n, p in self.model.named_parameters() if n.startswith("correlation_cue.")]
        known = {id(p) for p in matcher}
        others = [p for p in self.model.parameters() if id(p) not in known]
        groups = [
            {"params": others, "lr": 0.0, "factor": 1.0},
            {"params": matcher, "lr": 0.0, "factor": config.matcher_rate},
        ]
        self.optimiser = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            betas=(0.9, 0.95),
            weight_decay=config.weight_decay,
        )
        self.step = 0
        self.skipped = 0
        self._bad_in_a_row = 0
        self._pool: OrderedDict[tuple[int, int], tuple[TrainingBatch, Correlation | None]]
        self._pool = OrderedDict()

    def run(
        self,
        folder: Path,
        *,
        until: int | None = None,
        watch: Callable[[Trainer], dict[str, float]] | None = None,
        each: Callable[[Trainer], object] | None = None,
    ) -> None:
        """Train to the end, or to a step, writing checkpoints, weights and a log to a folder.

        Args:
            folder: gets `checkpoint.pt`, `model.safetensors` and `log.jsonl`.
            until: step to stop at, the end by default.
            watch: evaluation whose result is logged with every checkpoint.
            each: called after every step.

        Raises:
            InputError: too many steps in a row have no finite gradient.
        """
        folder.mkdir(parents=True, exist_ok=True)
        end = self.config.steps if until is None else until
        sums: dict[str, float] = {}
        count, start = 0, time.monotonic()
        while self.step < end:
            stage = self._stage.name
            try:
                values = self.train_step()
            except KeyboardInterrupt:
                self.save(folder)
                raise
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
            count += 1
            if each is not None:
                each(self)
            if self.step % self.config.log_every == 0:
                entry: dict[str, Any] = {"step": self.step, "stage": stage}
                entry |= {name: value / count for name, value in sums.items()}
                entry |= {"seconds_per_step": (time.monotonic() - start) / count}
                _append(folder / "log.jsonl", entry | {"skipped": self.skipped})
                sums, count, start = {}, 0, time.monotonic()
            if self.step % self.config.save_every == 0 or self.step == end:
                self.save(folder)
                if watch is not None:
                    _append(folder / "log.jsonl", {"step": self.step, "unseen": watch(self)})
                start = time.monotonic() if count == 0 else start

    def train_step(self) -> dict[str, float]:
        """Do one step and return the values of the losses."""
        config, stage = self.config, self._stage
        generator = self._generator(1, self.step)
        batch, matches = self._batch(stage)
        batch = _with_other_colours(batch, generator)
        query = int(
            torch.randint(stage.batch.queries, (1,), generator=generator, device=self.device)
        )
        values = losses(self.model, batch, query, stage.weights, generator, matches=matches)
        total = torch.stack(list(values.values())).sum()
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip)
        factor = config.rate * config.rate_factor(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = factor * group["factor"]
        if not bool(norm.isfinite() & total.isfinite()):
            self.step += 1
            self.skipped += 1
            self._bad_in_a_row += 1
            if self._bad_in_a_row >= config.bad_steps:
                raise InputError(
                    f"training: no finite gradient in {self._bad_in_a_row} steps in a row, at step "
                    f"{self.step}; lower the learning rate"
                )
            return {}
        self._bad_in_a_row = 0
        self.optimiser.step()
        self.step += 1
        return {name: float(value.detach()) for name, value in values.items()} | {
            "gradient": float(norm)
        }

    @property
    def about(self) -> dict[str, Any]:
        """How the network was trained, and what to say to its users, for the file of weights."""
        batch = self.config.stages[-1].batch
        return {
            "long_side": batch.size,
            "frames": batch.frames,
            "licence": "Apache-2.0",
            "note": _NOTE,
            "step": self.step,
            "training": {k: v for k, v in asdict(self.config).items() if k != "model"},
        }

    def save(self, folder: Path) -> None:
        """Write the weights, and all that resuming needs."""
        save_model(self.model, folder / "model.safetensors", about=self.about)
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "skipped": self.skipped,
            "bad_in_a_row": self._bad_in_a_row,
        }
        with atomic_path(folder / "checkpoint.pt") as temporary:
            torch.save(state, temporary)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint of `save`, of a run with the same config.

        Raises:
            InputError: the file is not such a checkpoint.
        """
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.skipped = state["step"], state["skipped"]
            self._bad_in_a_row = state["bad_in_a_row"]
        except Exception as error:  # of any kind: the reader trusts what the file says of itself
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path}: not a checkpoint of this run ({reason}); remove it to begin again"
            ) from error

    @property
    def _stage(self) -> Stage:
        return self.config.stages[self.config.stage(self.step)]

    def _generator(self, *numbers: int) -> torch.Generator:
        """Return a generator of random numbers that belongs to the seed and the given numbers."""
        seed = self.config.seed
        for number in numbers:
            seed = (seed * 1_000_003 + number + 1) % 2**63
        return torch.Generator(self.device).manual_seed(seed)

    def _batch(self, stage: Stage) -> tuple[TrainingBatch, Correlation | None]:
        """Return the batch of this step: a new one, or one of the recent ones of its stage.

        With it come its matches, if the stage does not train them.
        """
        index, repeats = divmod(self.step, stage.reuse)
        if repeats:
            generator = self._generator(2, self.step)
            back = torch.randint(_POOL, (1,), generator=generator, device=self.device)
            index = max(index - int(back), 0)
            while self.config.stages[self.config.stage(index * stage.reuse)] != stage:
                index += 1
        key = (self.config.stages.index(stage), index)
        if key not in self._pool:
            generator = self._generator(3, *key)
            batch, matches = random_batch(stage.scenes, stage.batch, generator), None
            if self.config.model.correlation and not stage.weights.match:
                with torch.no_grad():
                    matches = self.model.correlation_cue.match(batch.clip.images)
            self._pool[key] = batch, matches
            while len(self._pool) > 2 * _POOL:
                self._pool.popitem(last=False)
        return self._pool[key]


def _initialised(model: Movies) -> Movies:
    """Reduce the initial output of the motion head, whose ideal is near zero for most pixels."""
    if model.config.motion:
        with torch.no_grad():
            for parameter, factor in zip(
                model.motion_head.scratch.output_conv2[-1].parameters(), (0.1, 0.0), strict=True
            ):  # weight, bias
                parameter.mul_(factor)
    return model


def _with_other_colours(batch: TrainingBatch, generator: torch.Generator) -> TrainingBatch:
    """Permute the colour channels of all images."""
    order = torch.randperm(3, generator=generator, device=generator.device)
    clip = replace(batch.clip, images=batch.clip.images[:, :, order])
    targets = batch.target_images
    return replace(
        batch, clip=clip, target_images=None if targets is None else targets[:, :, order]
    )


def _append(path: Path, entry: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
