"""Checkpoints from which a fit resumes exactly, without pickle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from msdyn.errors import InputError
from msdyn.files import atomic_path
from msdyn.fit.config import FitConfig
from msdyn.fit.density import GaussianSet
from msdyn.fit.neighbours import Neighbours
from msdyn.motion import Motion

__all__ = ["fingerprint", "load_checkpoint", "save_checkpoint"]

_FORMAT = "msdyn-checkpoint"
# 2: per-Gaussian parameters of the motion are stored by their own names.
_VERSION = 2
# Options that do not change the result; a fit with other values of them can resume.
_IRRELEVANT = ("scene", "out", "restart", "device")


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

    tensors: dict[str, torch.Tensor] = {"generator": torch.get_rng_state()}
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
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("header", "{}"))
            if header.get("version") != _VERSION or header.get("fingerprint") != fingerprint:
                return None
            # Cloned into aligned memory: rounding in vectorised kernels depends on the alignment.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: damaged checkpoint ({error}); pass --restart") from error

    device = motion.key_frames.device
    for name, group in sets.items():
        for key in group.params:
            parameter = torch.nn.Parameter(tensors[f"{name}.param.{key}"].to(device))
            optimiser = group.optimisers[key]
            optimiser.state.clear()
            optimiser.param_groups[0]["params"] = [parameter]
            group.params[key] = parameter
            _restore_adam(tensors, f"{name}.adam.{key}", optimiser, device)
        prefix = f"{name}.state."
        for key, value in tensors.items():
            if key.startswith(prefix):
                group.state[key.removeprefix(prefix)] = value.to(device)
    with torch.no_grad():
        for key, value in motion.shared_parameters().items():
            value.copy_(tensors[f"motion.{key}"])
    _restore_adam(tensors, "motion_adam", motion_optimiser, device)
    torch.set_rng_state(tensors["generator"])
    if "near.index" in tensors:
        neighbours.index = tensors["near.index"].to(device)
        neighbours.weight = tensors["near.weight"].to(device)
    return header["step"], header["seconds"]


def _parameters(optimiser: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimiser.param_groups for p in group["params"]]


def _store_adam(
    tensors: dict[str, torch.Tensor], prefix: str, optimiser: torch.optim.Optimizer
) -> None:
    for number, parameter in enumerate(_parameters(optimiser)):
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{prefix}.{number}.{key}"] = torch.as_tensor(value)


def _restore_adam(
    tensors: dict[str, torch.Tensor],
    prefix: str,
    optimiser: torch.optim.Optimizer,
    device: torch.device,
) -> None:
    for number, parameter in enumerate(_parameters(optimiser)):
        state = {
            key: tensors[f"{prefix}.{number}.{key}"].to(device)
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"{prefix}.{number}.{key}" in tensors
        }
        if state:
            optimiser.state[parameter] = state
