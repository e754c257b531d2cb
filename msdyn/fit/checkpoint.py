"""Checkpoints from which a fit resumes exactly, without pickle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from msgspec import Meta
from torch import Tensor

from msdyn.errors import InputError
from msdyn.files import atomic_path
from msdyn.fit.config import FitConfig
from msdyn.fit.density import GaussianSet
from msdyn.fit.neighbours import Neighbours
from msdyn.motion import Motion
from msdyn.reading import (
    StoredTensors,
    as_schema,
    read_safetensors,
    reading,
    safetensors_header,
)

__all__ = ["fingerprint", "load_checkpoint", "save_checkpoint"]

_FORMAT = "msdyn-checkpoint"
# 2: per-Gaussian parameters of the motion are stored by their own names.
_VERSION = 2
_MOST_OBJECTS = 255
# Options that do not change the result; a fit with other values of them can resume.
_IRRELEVANT = ("scene", "out", "restart", "device")


class _Progress(TypedDict):
    step: Annotated[int, Meta(ge=0)]
    seconds: Annotated[float, Meta(ge=0)]


def fingerprint(config: FitConfig, stages: dict[str, Any], directory: Path) -> str:
    """Return a string that is equal for fits with equal options to equal scenes.

    Args:
        config: the options.
        stages: records of the scene's stages.
        directory: of the scene, with the prediction, if the fit starts from that.
    """
    options = {k: v for k, v in asdict(config).items() if k not in _IRRELEVANT}
    hashes = {name: record.get("input_hash") for name, record in stages.items()}
    if config.init != "tracks":
        content = (directory / "predict" / "sequence.safetensors").read_bytes()
        hashes["predict"] = hashlib.blake2b(content, digest_size=16).hexdigest()
    return json.dumps([options, hashes], sort_keys=True, default=str)


def save_checkpoint(
    path: Path,
    *,
    step: int,
    seconds: float,
    fingerprint: str,
    sets: dict[str, GaussianSet],
    motion: Motion,
    motion_optimiser: torch.optim.Optimizer,
    neighbours: Neighbours,
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: the file.
        step: number of steps taken.
        seconds: time spent.
        fingerprint: of options and scene, see `fingerprint`.
        sets: Gaussians with optimisers and density control, by name.
        motion: its shared parameters are stored.
        motion_optimiser: of the shared parameters.
        neighbours: of the local rigidity loss.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {"generator": torch.get_rng_state()}
    if neighbours.index is not None and neighbours.weight is not None:
        tensors |= {"near.index": neighbours.index, "near.weight": neighbours.weight}
    for name, group in sets.items():
        for key, value in group.params.items():
            tensors[f"{name}.param.{key}"] = value
            _store_adam(tensors, f"{name}.adam.{key}", group.optimisers[key])
        for key, value in group.state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}.state.{key}"] = value
    for key, value in motion.shared_parameters().items():
        tensors[f"motion.{key}"] = value
    _store_adam(tensors, "motion_adam", motion_optimiser)
    header = {"version": _VERSION, "step": step, "seconds": seconds, "fingerprint": fingerprint}
    content = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(content, temporary, metadata={"format": _FORMAT, "header": json.dumps(header)})


def load_checkpoint(
    path: Path,
    *,
    fingerprint: str,
    sets: dict[str, GaussianSet],
    motion: Motion,
    motion_optimiser: torch.optim.Optimizer,
    neighbours: Neighbours,
) -> tuple[int, float] | None:
    """Restore a checkpoint into the arguments, in place; see `save_checkpoint`.

    Returns:
        The number of steps taken and the seconds spent, or None if there is no checkpoint with this
        fingerprint.

    Raises:
        InputError: the file is damaged; delete it or pass `--restart`.
    """
    if not path.is_file():
        return None
    with reading(path, "checkpoint", cure="; pass --restart"):
        header = safetensors_header(path, _FORMAT, "checkpoint")
        if header.get("version") != _VERSION or header.get("fingerprint") != fingerprint:
            return None
        progress = as_schema(header, _Progress, "header")
        stored = StoredTensors(read_safetensors(path, "checkpoint"))
        # All is checked before anything is restored.
        restored = {name: _RestoredSet.read(stored, name, group) for name, group in sets.items()}
        shared = {
            key: stored.floats(f"motion.{key}", *value.shape)
            for key, value in motion.shared_parameters().items()
        }
        _check_motion(motion, restored["moving"])
        optimiser_state = _adam_state(stored, "motion_adam", motion_optimiser)
        near = None
        if stored.dimensions("near.index"):
            count = len(restored["moving"].params["means"])
            index = stored.indices("near.index", count, None, below=count)
            near = index, stored.floats("near.weight", *index.shape)
        torch.set_rng_state(stored.bytes("generator", *torch.get_rng_state().shape))

    device = motion.key_frames.device
    for name, group in sets.items():
        restored[name].into(group, device)
    with torch.no_grad():
        for key, value in motion.shared_parameters().items():
            value.copy_(shared[key])
    _restore_adam(optimiser_state, motion_optimiser, device)
    if near is not None:
        neighbours.index, neighbours.weight = near[0].to(device), near[1].to(device)
    return progress["step"], progress["seconds"]


@dataclass(frozen=True)
class _RestoredSet:
    """The parameters of a set of Gaussians, their optimisers and the state of density control."""

    params: dict[str, Tensor]
    adam: dict[str, dict[int, dict[str, Tensor]]]
    state: dict[str, Tensor]

    @classmethod
    def read(cls, stored: StoredTensors, name: str, group: GaussianSet) -> _RestoredSet:
        """Take a set from a checkpoint, checked against the set that it is to replace."""
        params, adam, state, count = {}, {}, {}, None
        for key, value in group.params.items():
            infinite = key in ("opacities", "life_spans")
            params[key] = stored.floats(
                f"{name}.param.{key}", count, *value.shape[1:], infinite=infinite
            )
            count = len(params[key])
            adam[key] = _adam_state(
                stored, f"{name}.adam.{key}", group.optimisers[key], params[key]
            )
        for key in stored.names(f"{name}.state."):
            own = stored.take(f"{name}.state.{key}")
            if len(own) != count:
                raise InputError(f"{name}.state.{key}: expected {count} rows, got {len(own)}")
            state[key] = own
        if "labels" in group.state:
            state["labels"] = stored.indices(f"{name}.state.labels", count, below=_MOST_OBJECTS)
        return cls(params, adam, state)

    def into(self, group: GaussianSet, device: torch.device) -> None:
        """Replace the content of a set."""
        for key, value in self.params.items():
            parameter = torch.nn.Parameter(value.to(device))
            optimiser = group.optimisers[key]
            optimiser.state.clear()
            optimiser.param_groups[0]["params"] = [parameter]
            group.params[key] = parameter
            _restore_adam(self.adam[key], optimiser, device)
        group.state |= {key: value.to(device) for key, value in self.state.items()}


def _check_motion(motion: Motion, moving: _RestoredSet) -> None:
    """Check the motion of restored Gaussians as that of a sequence file is checked."""
    parts = [
        {k.removeprefix("motion."): v for k, v in values.items() if k.startswith("motion.")}
        for values in (moving.params, moving.state)
    ]
    expected = [set(motion.gaussian_parameters()), set(motion.gaussian_constants())]
    if [set(part) for part in parts] != expected:
        raise InputError("moving: expected the tensors of this motion model")
    own = motion.with_gaussians(*parts)
    type(own).from_tensors(own.tensors(), own.header())


def _parameters(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimiser.param_groups for p in group["params"]]


def _store_adam(tensors: dict[str, Tensor], prefix: str, optimiser: torch.optim.Optimizer) -> None:
    for number, parameter in enumerate(_parameters(optimiser)):
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{prefix}.{number}.{key}"] = torch.as_tensor(value)


def _adam_state(
    stored: StoredTensors,
    prefix: str,
    optimiser: torch.optim.Optimizer,
    parameter: Tensor | None = None,
) -> dict[int, dict[str, Tensor]]:
    """Return the state of an optimiser in a checkpoint by the number of the parameter.

    Args:
        stored: the checkpoint.
        prefix: of the names.
        optimiser: whose state it is.
        parameter: that the optimiser will have, in place of its own.
    """
    states = {}
    parameters = _parameters(optimiser) if parameter is None else [parameter]
    for number, value in enumerate(parameters):
        shapes = {"step": (), "exp_avg": value.shape, "exp_avg_sq": value.shape}
        if stored.names(f"{prefix}.{number}."):
            states[number] = {
                key: stored.floats(f"{prefix}.{number}.{key}", *shape)
                for key, shape in shapes.items()
            }
    return states


def _restore_adam(
    states: dict[int, dict[str, Tensor]], optimiser: torch.optim.Optimizer, device: torch.device
) -> None:
    for number, parameter in enumerate(_parameters(optimiser)):
        if number in states:
            optimiser.state[parameter] = {k: v.to(device) for k, v in states[number].items()}
