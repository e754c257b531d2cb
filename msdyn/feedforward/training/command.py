"""Options of `msdyn-train`, and the run that they describe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast, get_args

from msdyn.devices import DeviceName
from msdyn.logs.names import LogNames
from msdyn.options import POSITIONAL, OptionError, Options, Range, Seed

if TYPE_CHECKING:
    from msdyn.feedforward.config import ModelConfig
    from msdyn.feedforward.training.config import TrainingConfig
    from msdyn.feedforward.training.published import PublishedStage

__all__ = ["Parallel", "TrainCommandConfig"]

Parallel = Literal["ddp", "fsdp"]
"""How a network is divided among processes: copied to all (DDP), or sharded (FSDP)."""
Recipe = Literal["small", "continued", "medium", "static", "dynamic", "views", "resolution"]

_RECIPES = get_args(Recipe)
_RANDOM = ("small", "continued", "medium")
_Count = Annotated[int, Range(1)]
_Frames = Annotated[int, Range(1, 10_000)]


@dataclass(frozen=True)
class TrainCommandConfig(Options):
    """Train the feed-forward network on random scenes or on clips."""

    headings: ClassVar[dict[str, str]] = {
        "recipe": "What is trained",
        "data": "Clips",
        "network": "What is trained",
        "scenes": "Steps",
        "lpips": "Weights of LPIPS",
        "save_every": "Running and output",
    }

    out: Annotated[Path, POSITIONAL]
    """Folder for weights, checkpoint, log and pictures; a run in it is resumed."""
    recipe: Recipe = "small"
    """On random scenes: the small network, the one of msdyn continued on scenes of more kinds, or a
    larger one for a GPU. On clips, a stage of the paper's training: static scenes, dynamic ones
    with 5 views, with 13 views, with 518 px."""
    steps: _Count = 8000
    """Steps of the recipe; of the small network, about a second each on one core."""
    seed: Seed = 0
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
    scenes: _Count | None = None
    """Scenes of a part; by default the recipe's."""
    parts: _Count | None = None
    """Batches of a step, by default the recipe's. Processes started by torchrun divide them; the
    result is the same for any number of processes, but for rounding errors."""
    queries: _Count | None = None
    """Query times per scene of a clip; by default the recipe's."""
    frames: tuple[_Frames, _Frames] | None = None
    """Smallest and largest number of input frames of a clip; by default the recipe's."""
    long_side: Annotated[int | None, Range(1, 16_384, unit="px")] = None
    """Longer side of the images of clips, px; by default the recipe's."""
    warmup: Annotated[int | None, Range(1, unit="steps")] = None
    """Steps in which the learning rate rises; by default the recipe's."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Of the network's arithmetic; by default the recipe's."""
    lpips: tuple[Path, ...] = ()
    """Files with the weights of LPIPS, for its loss: convolutions of VGG-16, or AlexNet, and
    heads."""
    save_every: Annotated[int, Range(1, unit="steps")] = 200
    """Steps between checkpoints, each with figures on unseen scenes and a contact sheet."""
    log: LogNames = ()
    """Write curves and pictures for tensorboard, wandb (offline, in the folder) or trackio (in its
    database); may be given several times. By default for tensorboard, where it is installed."""
    device: DeviceName = "auto"
    """Device to train on; auto takes a GPU if there is one."""
    threads: Annotated[int, Range(1, 1024)] = 1
    """Threads of a process on a CPU; the small network loses by more where other programs want the
    cores."""
    parallel: Parallel = "ddp"
    """Under torchrun: copy the network to every process, or divide it among them."""

    def check_relations(self) -> None:
        if self.frames is not None and self.frames[0] > self.frames[1]:
            raise OptionError("frames", f"expected smallest, then largest, got {self.frames}")
        if self.recipe in _RANDOM:
            given = [
                name
                for name in ("data", "validation", "queries", "frames", "long_side", "lpips")
                if getattr(self, name)
            ]
            if given:
                others = [name for name in _RECIPES if name not in _RANDOM]
                raise OptionError(
                    given,
                    f"expected with one of the recipes {', '.join(others)}, got {self.recipe}, of "
                    "random scenes",
                )
        if self.network == "initial" and self.initial is None:
            raise OptionError(
                "network", "expected --initial with the network that it names, got none"
            )

    @property
    def _network(self) -> ModelConfig | None:
        from msdyn.feedforward.config import ModelConfig
        from msdyn.feedforward.pretrained import find_model

        if self.network == "published":
            return None
        if self.network == "small":
            return ModelConfig.small()
        assert self.initial is not None, "checked above"
        return find_model(self.initial).load().config

    @property
    def training(self) -> TrainingConfig:
        """The run.

        Raises:
            InputError: options that do not fit together.
        """
        from msdyn.feedforward.training import curriculum
        from msdyn.feedforward.training.published import published_stage

        recipes = {
            "small": curriculum.small_on_cpu,
            "continued": curriculum.small_continued,
            "medium": curriculum.medium_on_gpu,
        }
        if self.recipe in recipes:
            run = recipes[self.recipe](self.steps, seed=self.seed)
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
