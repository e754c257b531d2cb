"""Where batches come from: random scenes, made as training goes, or clips; some are used again.

The batch of a step depends on the seed, the number of the step and that of the part only.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import torch

from msdyn.feedforward.batches import TrainingBatch
from msdyn.feedforward.correlation import Correlation
from msdyn.feedforward.data.library import ClipLibrary
from msdyn.feedforward.model import Movies
from msdyn.feedforward.scenes.render import random_batch
from msdyn.feedforward.training.config import Stage, TrainingConfig

__all__ = ["BatchSource", "numbered_generator", "with_other_colours"]

_POOL = 24
"""Batches that are kept to be used again."""


def numbered_generator(
    seed: int, *numbers: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator of random numbers that belongs to a seed and further numbers."""
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**63
    return torch.Generator(device).manual_seed(seed)


class BatchSource:
    """Gives the batches of a run, and their matches where these do not change."""

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self._library = ClipLibrary(config.data) if config.data else None
        self._pool: OrderedDict[tuple[int, int, int], tuple[TrainingBatch, Correlation | None]]
        self._pool = OrderedDict()

    def batch(
        self, step: int, part: int, model: Movies
    ) -> tuple[TrainingBatch, Correlation | None]:
        """Return a batch of a step: a new one, or one of the recent ones of its stage.

        With it come the matches between its frames, if the stage does not train them.
        """
        number = self.config.stage(step)
        stage = self.config.stages[number]
        index, repeats = divmod(step, stage.reuse)
        if repeats:
            generator = numbered_generator(self.config.seed, 2, step, part)
            back = int(torch.randint(_POOL, (1,), generator=generator))
            first = self.config.ends[number - 1] // stage.reuse if number else 0
            index = max(index - back, first)
        key = (number, index, part)
        if key not in self._pool:
            batch, matches = self._new(stage, key), None
            if model.config.correlation and not stage.weights.match:
                with torch.no_grad():
                    matches = model.correlation_cue.match(batch.clip.images)
            self._pool[key] = batch, matches
            while len(self._pool) > 2 * _POOL * self.config.parts:
                self._pool.popitem(last=False)
        return self._pool[key]

    def _new(self, stage: Stage, key: tuple[int, int, int]) -> TrainingBatch:
        stage_index, number, part = key
        if stage.clips is not None and self._library is not None:
            return self._library.batch(
                stage.clips,
                seed=self.config.seed + stage_index,
                number=number,
                device=self.device,
                rank=part,
                processes=self.config.parts,
            )
        generator = numbered_generator(self.config.seed, 3, *key, device=self.device)
        return random_batch(stage.scenes, stage.batch, generator)


def with_other_colours(batch: TrainingBatch, generator: torch.Generator) -> TrainingBatch:
    """Permute the colour channels of all images."""
    order = torch.randperm(3, generator=generator, device=generator.device)
    clip = replace(batch.clip, images=batch.clip.images[:, :, order])
    targets = batch.target_images
    return replace(
        batch, clip=clip, target_images=None if targets is None else targets[:, :, order]
    )
