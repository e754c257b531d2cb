"""Options of `msdyn-train`, and the run that they describe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import tyro

from msdyn.devices import DeviceName
from msdyn.errors import InputError
from msdyn.feedforward.config import ModelConfig
from msdyn.feedforward.pretrained import find_model
from msdyn.feedforward.training.config import TrainingConfig
from msdyn.feedforward.training.curriculum import medium_on_gpu, small_continued, small_on_cpu
from msdyn.feedforward.training.parallel import Parallel
from msdyn.feedforward.training.published import PUBLISHED_STAGES, PublishedStage, published_stage

__all__ = ["TrainCommandConfig"]


_RANDOM = {"small": small_on_cpu, "continued": small_continued, "medium": medium_on_gpu}


@dataclass(frozen=True)
class TrainCommandConfig:
    """Train the feed-forward network on random scenes or on clips."""

    out: tyro.conf.Positional[Path]
    """Folder for weights, checkpoint, log and pictures; a run in it is resumed."""
    recipe: Literal["small", "continued", "medium", "static", "dynamic", "views", "resolution"] = (
        "small"
    )
    """On random scenes: the small network, the one of msdyn continued on scenes of more kinds, or a
    larger one for a GPU. On clips, a stage of the paper's training: static scenes, dynamic ones
    with 5 views, with 13 views, with 518 px."""
    steps: int = 8000
    """Steps of the recipe; of the small network, about a second each on one core."""
    seed: int = 0
    """Of weights and scenes."""
    initial: str | None = None
    """Weights to start from: the name of a network, or a file, also the released one or VGGT-1B's;
    random by default."""
    data: tuple[Path, ...] = ()
    """Folders of clips, which msdyn-clips writes; for the paper's stages."""
    validation: tuple[Path, ...] = ()
    """Folders of clips that are not trained with, for the figures; random scenes need none."""
    network: Literal["published", "small", "initial"] = "published"
    """Network of the paper's stages: the published one, a small one of the same parts, or that of
    the file of `initial`, with all its parts."""
    scenes: int | None = None
    """Scenes of a part; by default the recipe's."""
    parts: int | None = None
    """Batches of a step, by default the recipe's. Processes started by torchrun divide them; the
    result is the same for any number of processes, but for rounding errors."""
    queries: int | None = None
    """Query times per scene of a clip; by default the recipe's."""
    frames: tuple[int, int] | None = None
    """Smallest and largest number of input frames of a clip; by default the recipe's."""
    long_side: int | None = None
    """Longer side of the images of clips, px; by default the recipe's."""
    warmup: int | None = None
    """Steps in which the learning rate rises; by default the recipe's."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Of the network's arithmetic; by default the recipe's."""
    lpips: tuple[Path, ...] = ()
    """Files with the weights of LPIPS, for its loss: convolutions of VGG-16, or AlexNet, and
    heads."""
    save_every: int = 200
    """Steps between checkpoints, each with figures on unseen scenes and a contact sheet."""
    device: DeviceName = "auto"
    """Device to train on; auto takes a GPU if there is one."""
    threads: int = 1
    """Threads of a process on a CPU; the small network loses by more where other programs want the
    cores."""
    parallel: Parallel = "ddp"
    """Under torchrun: copy the network to every process, or divide it among them."""

    def __post_init__(self) -> None:
        counts = ("steps", "save_every", "scenes", "parts", "queries", "long_side", "warmup")
        for name in (*counts, "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}: expected at least 1, got {value}")
        if self.recipe in _RANDOM:
            given = [
                name
                for name in ("data", "validation", "queries", "frames", "long_side", "lpips")
                if getattr(self, name)
            ]
            if given:
                raise InputError(
                    f"{', '.join(given)}: expected with one of the recipes "
                    f"{', '.join(PUBLISHED_STAGES)}, got {self.recipe}, of random scenes"
                )

    @property
    def _network(self) -> ModelConfig | None:
        if self.network == "published":
            return None
        if self.network == "small":
            return ModelConfig.small()
        if self.initial is None:
            raise InputError("network: expected --initial with the network that it names, got none")
        return find_model(self.initial).load().config

    @property
    def training(self) -> TrainingConfig:
        """The run.

        Raises:
            InputError: options that do not fit together.
        """
        if self.recipe in _RANDOM:
            run = _RANDOM[self.recipe](self.steps, seed=self.seed)
        else:
            run = published_stage(
                cast("PublishedStage", self.recipe),
                self.steps,
                tuple(map(str, self.data)),
                network=self._network,
                seed=self.seed,
            )
        of_stage = _given(self, ("scenes", "queries", "frames", "long_side"))
        stages = []
        for stage in run.stages:
            if stage.clips is not None:
                weights = stage.weights
                if not self.lpips:
                    weights = replace(weights, perceptual=0.0)
                clips = replace(stage.clips, **of_stage)
                stages.append(replace(stage, clips=clips, weights=weights))
            else:
                stages.append(replace(stage, batch=replace(stage.batch, **of_stage)))
        of_run = _given(self, ("parts", "warmup", "precision"))
        if self.initial is not None:
            of_run["initial"] = self.initial
        return replace(run, stages=tuple(stages), save_every=self.save_every, **of_run)


def _given(config: TrainCommandConfig, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names if getattr(config, name) is not None}
