"""`--preset`: which backend does a stage where the user names none, and why.

auto     a model with a licence that allows any use, where it is on this disk or can be fetched;
         otherwise the method without weights
offline  as auto, but with what is on this disk: no socket is opened
best     the largest models there are, whatever their licence; otherwise as auto

What was chosen once for a directory stays chosen there, so that a run that goes on, perhaps without
a network, does not begin again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from msdyn.preprocess.checkpoints.huggingface import CHECKPOINTS, Availability, find_checkpoint
from msdyn.preprocess.config import PreprocessConfig, Stage
from msdyn.preprocess.depth.networks import DEPTH_MODELS
from msdyn.preprocess.masks.sam_video import SAM_MODELS
from msdyn.preprocess.registry import BACKENDS
from msdyn.preprocess.tracks.cotracker import COTRACKER, find_cotracker
from msdyn.preprocess.tracks.raft import RAFT_MODELS
from msdyn.preprocess.tracks.tapir import BOOTSTAPIR

__all__ = ["CHOSEN_STAGES", "WITHOUT_WEIGHTS", "Choice", "choose_backends"]

_log = logging.getLogger(__name__)

ChosenStage = Literal["tracks", "masks", "cameras", "depth"]
CHOSEN_STAGES: tuple[ChosenStage, ...] = get_args(ChosenStage)

WITHOUT_WEIGHTS: dict[str, Any] = {
    "tracks": "flow",
    "masks": "motion",
    "cameras": "sfm",
    "depth": "fused",
}
"""The methods that need no model, as arguments of `PreprocessConfig`."""
TRACK_MODELS = {"cotracker": COTRACKER, "tapir": BOOTSTAPIR, "raft": next(iter(RAFT_MODELS))}
_LARGE_DEPTH = "depth-anything/Depth-Anything-V2-Large-hf"
_LARGE_SAM = "facebook/sam2.1-hiera-large"


@dataclass(frozen=True)
class Choice:
    """The backend of a stage.

    Attributes:
        backend: its name.
        model: the checkpoint, None for methods without weights.
        why: half a sentence, empty where the user chose.
        preset: which preset chose, None where the user did.
    """

    backend: str
    model: str | None = None
    why: str = ""
    preset: str | None = None


def choose_backends(
    config: PreprocessConfig, record: Callable[[Stage], dict[str, Any] | None]
) -> tuple[PreprocessConfig, dict[Stage, Choice]]:
    """Return the config with a backend for every stage, and how each was chosen.

    Args:
        config: what the user asked for.
        record: returns what the scene directory says of a stage, None where it is not done.
    """
    choices: dict[Stage, Choice] = {}
    for stage in CHOSEN_STAGES:
        named = getattr(config, stage)
        if named is not None:
            choices[stage] = Choice(named, _model_of(config, stage, named))
        else:
            kept = None if stage in config.redo else _kept(stage, record(stage), config)
            choices[stage] = kept or _choose(config, stage)
    chosen: dict[str, Any] = {stage: choice.backend for stage, choice in choices.items()}
    for stage in ("tracks", "masks", "depth"):
        chosen[f"{stage}_model"] = choices[stage].model
    return replace(config, **chosen), choices


def _model_of(config: PreprocessConfig, stage: ChosenStage, backend: str) -> str | None:
    """Return the checkpoint of a backend: the user's, or its own default."""
    own = getattr(config, f"{stage}_model", None)
    defaults: dict[str, str] = {**DEPTH_MODELS, **SAM_MODELS, **TRACK_MODELS}
    return own or defaults.get(backend)


def _kept(
    stage: ChosenStage, record: dict[str, Any] | None, config: PreprocessConfig
) -> Choice | None:
    """Return the choice that the same preset made for this directory before."""
    options = record["options"] if record else {}
    if record is None or options.get("preset") != config.preset:
        return None
    if record["backend"] not in BACKENDS[stage]:
        return None
    return Choice(record["backend"], record["model"], options.get("why", ""), config.preset)


def _choose(config: PreprocessConfig, stage: ChosenStage) -> Choice:
    offline = config.preset == "offline"
    reasons = []
    for backend, model, available in _candidates(config, stage):
        found = available(offline)
        if found:
            checkpoint = CHECKPOINTS.get(model)
            size = f"{model}: {found.why}"
            if found.how == "online":
                _log.warning("%s: %s (--preset offline fetches nothing)", stage, size)
            if checkpoint is not None and not checkpoint.commercial:
                size += f"; its licence, {checkpoint.licence}, forbids commercial use"
            return Choice(backend, model, size, config.preset)
        reasons.append(f"{model} is {found.why}" if "installed" not in found.why else found.why)
    why = reasons[-1] if reasons else ""
    return Choice(WITHOUT_WEIGHTS[stage], None, why, config.preset)


def _candidates(
    config: PreprocessConfig, stage: ChosenStage
) -> list[tuple[str, str, Callable[[bool], Availability]]]:
    """Return backend, checkpoint and test of the models to try, the best first."""

    def hub(backend: str, model: str) -> tuple[str, str, Callable[[bool], Availability]]:
        return backend, model, lambda offline: find_checkpoint(model, offline=offline)

    best = config.preset == "best"
    if stage == "depth":
        large = [hub("depth-anything", _LARGE_DEPTH)] if best else []
        return [*large, hub("depth-anything", DEPTH_MODELS["depth-anything"])]
    if stage == "masks":
        large = [hub("sam2", _LARGE_SAM)] if best else []
        return [*large, hub("sam2", SAM_MODELS["sam2"])]
    if stage == "tracks" and best:
        return [("cotracker", COTRACKER, lambda offline: find_cotracker(offline=offline))]
    return []
