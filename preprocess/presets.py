"""`--preset`: which backend each stage gets where the user names none, and why.

auto     a network with a licence that allows any use, where it is on this disk or can be fetched;
         otherwise the method without weights
offline  as auto, of what is on this disk: no socket is opened
best     the largest networks there are, whatever their licence; otherwise as auto

What was chosen once for a directory is kept there, so that a run that is resumed, perhaps without
a network, does not begin again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from msdyn.errors import InputError, printable
from msdyn.preprocess.checkpoints.huggingface import CHECKPOINTS, Availability, find_checkpoint
from msdyn.preprocess.checkpoints.pinned import find_pinned
from msdyn.preprocess.config import PreprocessConfig
from msdyn.preprocess.contracts import BACKEND_STAGES, BackendStage, Stage
from msdyn.preprocess.phrases import TEXT_MASKS
from msdyn.preprocess.registry import find_backend
from msdyn.preprocess.tracks.cotracker import COTRACKER, find_cotracker
from msdyn.scene import StageRecord

__all__ = ["WITHOUT_WEIGHTS", "Choice", "choose_backends"]

_log = logging.getLogger(__name__)

WITHOUT_WEIGHTS: dict[str, Any] = {
    "tracks": "flow",
    "masks": "motion",
    "cameras": "sfm",
    "depth": "fused",
}
"""The methods that need no weights, as arguments of `PreprocessConfig`."""
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


@dataclass(frozen=True)
class _Candidate:
    """A network to try.

    Attributes:
        backend: its name.
        model: its checkpoint.
        find: returns whether it is available, given whether nothing may be fetched.
    """

    backend: str
    model: str
    find: Callable[[bool], Availability]


def choose_backends(
    config: PreprocessConfig, record: Callable[[Stage], StageRecord | None]
) -> tuple[PreprocessConfig, dict[BackendStage, Choice]]:
    """Return the config with a backend for every stage, and how each was chosen.

    Args:
        config: what the user asked for.
        record: returns the record of a stage in the scene directory, None where it is not done.
    """
    choices: dict[BackendStage, Choice] = {}
    for stage in BACKEND_STAGES:
        named = getattr(config, stage)
        if named is not None:
            choices[stage] = Choice(named, config.options_of(stage).model)
        else:
            kept = None if stage in config.redo else _kept(stage, record(stage), config)
            choices[stage] = kept or _choose(config, stage)
    chosen: dict[str, Any] = {stage: choice.backend for stage, choice in choices.items()}
    for stage in ("tracks", "masks", "depth"):
        chosen[f"{stage}_model"] = choices[stage].model
    return replace(config, **chosen), choices


def _kept(
    stage: BackendStage, record: StageRecord | None, config: PreprocessConfig
) -> Choice | None:
    """Return the choice that the same preset made for this directory before.

    The directory may be somebody else's: only what the preset can choose is kept, so that its
    record names nothing to load but the checkpoints of our own list.
    """
    options = record["options"] if record else {}
    if record is None or options.get("preset") != config.preset:
        return None
    known: list[tuple[str, str | None]] = []
    known += [(one.backend, one.model) for one in _candidates(stage, config)]
    if not _takes_phrases(stage, config):
        known.append((WITHOUT_WEIGHTS[stage], None))
    if (record["backend"], record["model"]) not in known:
        _log.warning(
            "%s: the record names %s, which --preset %s does not choose: chosen anew",
            stage,
            " of ".join(printable(record[key]) for key in ("model", "backend") if record[key]),
            config.preset,
        )
        return None
    why = printable(options.get("why", ""))
    return Choice(record["backend"], record["model"], why, config.preset)


def _choose(config: PreprocessConfig, stage: BackendStage) -> Choice:
    """Return the first candidate that is available, or the method without weights.

    Raises:
        InputError: phrases are given, and the network that takes them is not available.
    """
    reasons = []
    for candidate in _candidates(stage, config):
        backend, model = candidate.backend, candidate.model
        found = candidate.find(config.preset == "offline")
        if found:
            checkpoint = CHECKPOINTS.get(model)
            why = f"{model}: {found.why}"
            if found.how == "online":
                _log.warning("%s: %s (--preset offline fetches nothing)", stage, why)
            if checkpoint is not None and not checkpoint.commercial:
                why += f"; its licence, {checkpoint.licence}, forbids commercial use"
            if _takes_phrases(stage, config):
                why = f"takes the phrases of --prompts; {why}"
            return Choice(backend, model, why, config.preset)
        reasons.append(f"{model} is {found.why}" if "installed" not in found.why else found.why)
    why = reasons[-1] if reasons else ""
    if _takes_phrases(stage, config):
        raise InputError(f"--prompts with phrases needs {TEXT_MASKS}: {why}")
    return Choice(WITHOUT_WEIGHTS[stage], None, why, config.preset)


def _takes_phrases(stage: BackendStage, config: PreprocessConfig) -> bool:
    """Return whether the backend of a stage must be the one that takes phrases."""
    return stage == "masks" and bool(config.phrases)


def _candidates(stage: BackendStage, config: PreprocessConfig) -> list[_Candidate]:
    """Return the networks to try for a stage, the best first."""
    if _takes_phrases(stage, config):
        model = config.masks_model or find_backend("masks", TEXT_MASKS).model
        return [_on_hub(TEXT_MASKS, model)]
    best = config.preset == "best"
    if stage == "depth":
        large = [_on_hub("depth-anything", _LARGE_DEPTH)] if best else []
        anything = _on_hub("depth-anything", find_backend("depth", "depth-anything").model)
        return [*large, anything, _SMALL_DEPTH]
    if stage == "masks":
        large = [_on_hub("sam2", _LARGE_SAM)] if best else []
        return [*large, _on_hub("sam2", find_backend("masks", "sam2").model)]
    if stage == "tracks" and best:
        return [_Candidate("cotracker", COTRACKER, lambda offline: find_cotracker(offline=offline))]
    return []


_SMALL_DEPTH = _Candidate(
    "small",
    "tcmonodepth-small",
    lambda offline: find_pinned("tcmonodepth-small", offline=offline),
)


def _on_hub(backend: str, model: str | None) -> _Candidate:
    assert model is not None, f"{backend} has a default checkpoint"
    return _Candidate(backend, model, lambda offline: find_checkpoint(model, offline=offline))
