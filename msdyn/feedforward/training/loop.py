"""The training loop: a curriculum of stages, on one device or in several processes.

The batches of a step and all other random numbers of the step depend on the seed, the number of the
step and that of the part only. A resumed run is the same, bit for bit, as one without interruption
(on one device), and a run in several processes the same as one in a single process, but for
rounding errors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from msdyn.errors import InputError
from msdyn.feedforward.checkpoint import save_model, start_from
from msdyn.feedforward.model import Movies
from msdyn.feedforward.pretrained import find_model
from msdyn.feedforward.training.checkpoints import full_weights, restore_state, save_state
from msdyn.feedforward.training.config import Stage, TrainingConfig
from msdyn.feedforward.training.objective import PerceptualLoss
from msdyn.feedforward.training.parallel import ParallelObjective, Processes
from msdyn.feedforward.training.records import Records
from msdyn.feedforward.training.sources import (
    BatchSource,
    numbered_generator,
    with_other_colours,
)
from msdyn.interruption import postponed, tell

__all__ = ["Trainer"]

_NOTE = (
    "This small network is a demonstration, trained on random synthetic scenes; "
    "for real clips, give the released MoVieS weights with --model FILE."
)


class Trainer:
    """Trains a network; `run` may be interrupted and resumed from the folder.

    Attributes:
        model: the network.
        step: number of finished steps.
        skipped: steps without an update, because the loss or its gradient was not finite.
    """

    def __init__(
        self,
        config: TrainingConfig,
        processes: Processes | None = None,
        *,
        perceptual: PerceptualLoss | None = None,
    ) -> None:
        """Make the network, with random weights or those of `config.initial`.

        Args:
            config: of the run.
            processes: this one and the others; by default it is alone, on the CPU.
            perceptual: LPIPS, for stages with its loss.

        Raises:
            InputError: weights that do not fit, or parts that the processes cannot divide.
        """
        self.config = config
        self.processes = processes or Processes()
        self.perceptual = perceptual
        self._own_parts = self.processes.own_parts(config.parts)
        torch.manual_seed(config.seed)
        self.model = _initialised(Movies(config.model))
        if config.initial is not None:
            start_from(self.model, find_model(config.initial).path)
        self.model.recompute = config.recompute
        for name, parameter in self.model.named_parameters():
            if all(name.startswith(stage.frozen) for stage in config.stages):
                parameter.requires_grad_(False)
        self.model.to(self.processes.device).train()
        self._objective = ParallelObjective(self.model, self.processes)
        self.optimiser = torch.optim.AdamW(
            _groups(self.model, config), betas=(0.9, 0.95), weight_decay=config.weight_decay
        )
        self._source = BatchSource(config, self.processes.device)
        self.step = 0
        self.skipped = 0
        self._bad_in_a_row = 0

    def run(
        self,
        folder: Path,
        *,
        until: int | None = None,
        logs: Sequence[str] = (),
        watch: Callable[[Trainer, Records | None], dict[str, float]] | None = None,
        each: Callable[[Trainer], object] | None = None,
    ) -> None:
        """Train to the end, or to a step, writing checkpoints, weights and a log to a folder.

        Args:
            folder: gets `model.safetensors`, a checkpoint, `log.jsonl` and TensorBoard's files.
            until: step to stop at, the end by default.
            logs: for other programs, by name; TensorBoard's by default, where it is installed.
            watch: evaluation whose result is logged with every checkpoint; all processes call it,
                the first one with the log.
            each: called after every step.

        Raises:
            InputError: too many steps in a row have no finite gradient.
        """
        end = self.config.steps if until is None else until
        options = asdict(self.config)
        first = self.processes.first
        records = Records(folder, self.step, logs, options) if first else None
        sums: dict[str, float] = {}
        count, start = 0, time.monotonic()
        # Several processes would have to agree on a step.
        alone = self.processes.count == 1
        with postponed() if alone else nullcontext(lambda: False) as asked:
            while self.step < end and not asked():
                stage = self._stage.name
                try:
                    values = self.train_step()
                except KeyboardInterrupt:
                    if self.processes.count == 1 and not asked():
                        self._save_interrupted(folder)
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
                    if records is not None:
                        records.add(entry | {"skipped": self.skipped})
                    sums, count, start = {}, 0, time.monotonic()
                if self.step % self.config.save_every == 0 or self.step == end:
                    self.save(folder)
                    figures = watch(self, records) if watch is not None else {}
                    if records is not None and figures:
                        records.add({"step": self.step, "unseen": figures})
                    self.processes.wait()
                    start = time.monotonic() if count == 0 else start
            if asked():
                self._save_interrupted(folder)
        if records is not None:
            records.close()

    def _save_interrupted(self, folder: Path) -> None:
        self.save(folder)
        tell(f"step {self.step} of {self.config.steps} is saved, the same command resumes there")

    def train_step(self) -> dict[str, float]:
        """Do one step and return the values of the losses, over all processes."""
        config, stage = self.config, self._stage
        self.optimiser.zero_grad(set_to_none=True)
        sums: dict[str, torch.Tensor] = {}
        for part in self._own_parts:
            for name, value in self._add_gradient(stage, part).items():
                sums[name] = sums.get(name, 0.0) + value / len(self._own_parts)
        for name, parameter in self.model.named_parameters():
            if name.startswith(stage.frozen):
                parameter.grad = None
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = _whole(torch.nn.utils.clip_grad_norm_(parameters, config.clip))
        # All together: the only time that a step waits for a GPU.
        norm, *figures = torch.stack([norm, *sums.values()]).tolist()
        values = self.processes.mean(dict(zip(sums, figures, strict=True)))
        factor = config.rate * config.rate_factor(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = factor * group["factor"]
        self.step += 1
        if not all(map(math.isfinite, [norm, *values.values()])):
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
        return values | {"gradient": norm}

    def _add_gradient(self, stage: Stage, part: int) -> dict[str, torch.Tensor]:
        """Add the gradient of a part of this process and return its losses."""
        device = self.processes.device
        generator = numbered_generator(self.config.seed, 1, self.step, part, device=device)
        batch, matches = self._source.batch(self.step, part, self.model)
        if stage.clips is None:
            batch = with_other_colours(batch, generator)
        queries: Sequence[int] = range(batch.query_times.shape[1])
        if not stage.all_queries:
            host = numbered_generator(self.config.seed, 4, self.step, part)
            queries = torch.randint(len(queries), (1,), generator=host).tolist()
        values = self._objective(
            batch,
            queries,
            stage.weights,
            generator,
            matches=matches,
            perceptual=self.perceptual,
            half=self.config.precision == "bfloat16",
            last=part == self._own_parts[-1],
        )
        total = torch.stack(list(values.values())).sum()
        (total / len(self._own_parts)).backward()
        return {name: value.detach() for name, value in values.items()}

    @property
    def about(self) -> dict[str, Any]:
        """How the network was trained, and what to say to its users, for the file of weights."""
        last = self.config.stages[-1]
        clips = last.clips
        note = _NOTE if clips is None else f"Trained by msdyn-train on clips; step {self.step}."
        return {
            "long_side": last.batch.size if clips is None else clips.long_side,
            "frames": last.batch.frames if clips is None else clips.frames[1],
            "licence": "Apache-2.0" if clips is None else "that of the clips and initial weights",
            "note": note,
            "step": self.step,
            "training": {k: v for k, v in asdict(self.config).items() if k != "model"},
        }

    def save(self, folder: Path) -> None:
        """Write the weights, and all that resuming needs; all processes call it."""
        weights = full_weights(self.model, self.processes)
        if self.processes.first:
            save_model(self.model, folder / "model.safetensors", about=self.about, weights=weights)
        save_state(folder, self.model, self.optimiser, self._counters, self.processes)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint of `save`, of a run with the same config.

        Raises:
            InputError: the file is not such a checkpoint.
        """
        counters = restore_state(path, self.model, self.optimiser, self._counters, self.processes)
        self.step, self.skipped = counters["step"], counters["skipped"]
        self._bad_in_a_row = counters["bad_in_a_row"]

    @property
    def _counters(self) -> dict[str, int]:
        return {
            "step": self.step, "skipped": self.skipped, "bad_in_a_row": self._bad_in_a_row
        }  # fmt: skip

    @property
    def _stage(self) -> Stage:
        return self.config.stages[self.config.stage(self.step)]


def _groups(model: Movies, config: TrainingConfig) -> list[dict[str, Any]]:
    """Return the parameters by the factor of their learning rate."""
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault(config.part_factor(name), []).append(parameter)
    return [
        {"params": parameters, "lr": 0.0, "factor": factor}
        for factor, parameters in sorted(groups.items())
    ]


def _whole(value: torch.Tensor) -> torch.Tensor:
    """Return a number that may be divided among processes."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value  # type: ignore[operator]


def _initialised(model: Movies) -> Movies:
    """Reduce the initial output of the motion head, whose ideal is near zero for most pixels."""
    if model.config.motion:
        with torch.no_grad():
            for parameter, factor in zip(
                model.motion_head.scratch.output_conv2[-1].parameters(), (0.1, 0.0), strict=True
            ):  # weight, bias
                parameter.mul_(factor)
    return model
