"""What determines a training run: the network, the stages and the optimiser."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Literal

from msdyn.errors import InputError
from msdyn.feedforward.config import ModelConfig
from msdyn.feedforward.data.batch import ClipBatchOptions
from msdyn.feedforward.scenes.random_scenes import SceneOptions
from msdyn.feedforward.scenes.render import BatchOptions
from msdyn.feedforward.training.objective import LossWeights

__all__ = ["Stage", "TrainingConfig"]


@dataclass(frozen=True)
class Stage:
    """A part of the training."""

    name: str
    share: float
    """Of the steps."""
    weights: LossWeights
    scenes: SceneOptions = field(default_factory=SceneOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    clips: ClipBatchOptions | None = None
    """Batches of the clips of `TrainingConfig.data`, instead of random scenes."""
    reuse: int = 2
    """Steps per new batch; the others repeat recent batches with other query times and, of random
    scenes, other colours."""
    all_queries: bool = False
    """Average the losses over all query times of a batch, not at a random one of them."""
    frozen: tuple[str, ...] = ()
    """Beginnings of the names of parameters that this stage does not train."""


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that determines a training run, but for rounding errors of the device and the
    number of processes."""

    model: ModelConfig
    stages: tuple[Stage, ...]
    steps: int
    data: tuple[str, ...] = ()
    """Folders of clips, for stages that use them."""
    parts: int = 1
    """Batches of a step, whose mean is minimised; they are divided among the processes, and those
    of a process are computed one after the other."""
    rate: float = 1e-3
    """Peak learning rate of AdamW; after the warm-up it falls to zero as a cosine."""
    rate_factors: tuple[tuple[str, float], ...] = ()
    """Factors of the learning rate by the beginning of the parameter's name, the first counts."""
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    """Largest norm of the gradient."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of tokens and heads; geometry and rendering are float32."""
    recompute: bool = False
    """Compute the activations of the aggregator's blocks again for the gradient, to save memory."""
    initial: str | None = None
    """Weights to start from (`start_from`): the name of a network, or a file."""
    seed: int = 0
    bad_steps: int = 50
    """Steps in a row without finite loss and gradients after which training stops with an error."""
    log_every: int = 50
    save_every: int = 200

    def __post_init__(self) -> None:
        for name in ("steps", "parts"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not self.stages or any(stage.share <= 0 for stage in self.stages):
            raise InputError("stages: expected at least one, with positive shares")
        if not self.data and any(stage.clips is not None for stage in self.stages):
            raise InputError("data: expected folders of clips for this recipe; see msdyn-clips")

    @property
    def ends(self) -> list[int]:
        """The step after the last one of each stage."""
        total = sum(stage.share for stage in self.stages)
        shares = itertools.accumulate(stage.share for stage in self.stages)
        return [round(share / total * self.steps) for share in shares]

    def stage(self, step: int) -> int:
        """Return the index of the stage of a step."""
        return next((i for i, end in enumerate(self.ends) if step < end), len(self.stages) - 1)

    def rate_factor(self, step: int) -> float:
        """Return the factor of the learning rate at a step: warm-up, then a cosine to zero."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        return warm * 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1)))

    def part_factor(self, name: str) -> float:
        """Return the factor of the learning rate of a parameter."""
        return next((f for start, f in self.rate_factors if name.startswith(start)), 1.0)
