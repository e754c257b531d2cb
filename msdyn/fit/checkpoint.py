"""Checkpoints from which a fit resumes exactly, without pickle."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta

from msdyn.fit.camera_updates import CameraUpdates
from msdyn.fit.density import GaussianSet
from msdyn.fit.exposure import FrameExposure
from msdyn.fit.fingerprint import differences
from msdyn.fit.neighbours import Neighbours
from msdyn.motion import Motion
from msdyn.reading import as_schema, read_safetensors, reading, safetensors_header
from msdyn.writing import write_tensors

__all__ = ["FitState", "Reached", "load_checkpoint", "save_checkpoint"]

_FORMAT = "msdyn-checkpoint"
# 2: per-Gaussian parameters of the motion are stored by their own names. 3: the fingerprint is that
# of the content of the scene's files.
_VERSION = 3


@dataclass(frozen=True)
class FitState:
    """Everything that the steps of a fit change.

    Attributes:
        sets: Gaussians with optimisers and density control, by name.
        motion: its shared parameters.
        motion_optimiser: of the shared parameters.
        neighbours: of the local rigidity loss.
        exposure: gains of the frames.
        cameras: those optimised with the Gaussians, if they are.
    """

    sets: dict[str, GaussianSet]
    motion: Motion
    motion_optimiser: torch.optim.Optimizer
    neighbours: Neighbours
    exposure: FrameExposure
    cameras: CameraUpdates | None = None

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """Return those of the Gaussians, of the motion and of the exposure."""
        of_sets = [o for group in self.sets.values() for o in group.optimisers.values()]
        return [*of_sets, self.motion_optimiser, self.exposure.optimiser]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all of it by name, as it is in memory."""
        near = self.neighbours
        tensors: dict[str, torch.Tensor] = {"generator": torch.get_rng_state()}
        if near.index is not None and near.weight is not None:
            tensors |= {"near.index": near.index, "near.weight": near.weight}
        for name, group in self.sets.items():
            for key, value in group.params.items():
                tensors[f"{name}.param.{key}"] = value
                _store_adam(tensors, f"{name}.adam.{key}", group.optimisers[key])
            for key, value in group.state.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{name}.state.{key}"] = value
        for key, value in self.motion.shared_parameters().items():
            tensors[f"motion.{key}"] = value
        _store_adam(tensors, "motion_adam", self.motion_optimiser)
        if self.exposure.used:
            tensors["exposure"] = self.exposure.log_gains
        if self.cameras is not None:
            tensors |= {f"cameras.{key}": v for key, v in self.cameras.tensors().items()}
        return {name: value.detach() for name, value in tensors.items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Set all of it, in place.

        Raises:
            KeyError: a tensor is missing.
            RuntimeError: one has another shape than it should.
        """
        device = self.motion.key_frames.device
        for name, group in self.sets.items():
            count = len(tensors[f"{name}.param.means"])
            for key in group.params:
                full = f"{name}.param.{key}"
                value = _checked(full, tensors[full], group.params[key], count)
                parameter = torch.nn.Parameter(value.to(device))
                optimiser = group.optimisers[key]
                optimiser.state.clear()
                optimiser.param_groups[0]["params"] = [parameter]
                group.params[key] = parameter
                _restore_adam(tensors, f"{name}.adam.{key}", optimiser, device)
            for key, value in group.state.items():
                stored = tensors.get(f"{name}.state.{key}")
                if stored is not None:
                    if isinstance(value, torch.Tensor):
                        _checked(f"{name}.state.{key}", stored, value, count)
                    group.state[key] = stored.to(device)
                elif isinstance(value, torch.Tensor):
                    group.state[key] = None  # as before the first step
        with torch.no_grad():
            for key, value in self.motion.shared_parameters().items():
                full = f"motion.{key}"
                value.copy_(_checked(full, tensors[full], value, len(value)))
            if self.exposure.used:
                gains = self.exposure.log_gains
                gains.copy_(_checked("exposure", tensors["exposure"], gains, len(gains)))
        self.motion_optimiser.state.clear()
        _restore_adam(tensors, "motion_adam", self.motion_optimiser, device)
        if self.cameras is not None:
            names = self.cameras.tensors()
            self.cameras.restore({key: tensors[f"cameras.{key}"] for key in names})
        torch.set_rng_state(tensors["generator"].cpu())
        self.neighbours.invalidate()
        if "near.index" in tensors:
            index, weight = tensors["near.index"], tensors["near.weight"]
            count = len(tensors["moving.param.means"])
            if index.shape != weight.shape or (index.numel() and not _within(index, 0, count - 1)):
                raise RuntimeError("near.index: expected indices of the moving Gaussians")
            self.neighbours.index, self.neighbours.weight = index.to(device), weight.to(device)


@dataclass(frozen=True)
class Reached:
    """How far a fit is.

    Attributes:
        step: number of steps taken.
        batch: frames that are rendered at a time; less than the option after the memory was full.
        rate: factor of the learning rates; less than 1 after a loss was not finite.
    """

    step: Annotated[int, Meta(ge=0)]
    batch: Annotated[int, Meta(ge=1)]
    rate: Annotated[float, Meta(gt=0)]


def save_checkpoint(
    path: Path, state: FitState, progress: Reached, *, fingerprint: dict[str, Any]
) -> None:
    """Write a checkpoint atomically; equal states give equal bytes."""
    header = {"version": _VERSION, "fingerprint": fingerprint, **asdict(progress)}
    write_tensors(path, state.tensors(), format=_FORMAT, header=header)


def load_checkpoint(
    path: Path, state: FitState, *, fingerprint: dict[str, Any]
) -> tuple[Reached | None, str]:
    """Restore a checkpoint into a state, in place.

    Returns:
        How far it is, None if there is no checkpoint of this fit, and then why it is of another
        one; empty if there is none at all.

    Raises:
        InputError: the file is damaged; delete it or pass `--restart`.
    """
    if not path.is_file():
        return None, ""
    with reading(path, "checkpoint", cure="; pass --restart"):
        header = safetensors_header(path, _FORMAT, "checkpoint")
        if header.get("version") != _VERSION:
            return None, "the checkpoint is of another version of msdyn"
        changed = differences(header.get("fingerprint"), fingerprint)
        if changed:
            return None, changed
        progress = as_schema(header, Reached, "header")
        state.restore(read_safetensors(path, "checkpoint"))
    return progress, ""


def _checked(name: str, value: torch.Tensor, like: torch.Tensor, count: int) -> torch.Tensor:
    """Return a stored tensor that is as the initial one, but for the number of Gaussians.

    Indices are among the initial ones, as new Gaussians have those of old ones.

    Raises:
        RuntimeError: it is not.
    """
    if value.dtype != like.dtype or value.ndim != like.ndim or value.shape[1:] != like.shape[1:]:
        raise RuntimeError(f"{name}: expected {like.dtype} {tuple(like.shape)}, got {value.dtype} "
                           f"{tuple(value.shape)}")  # fmt: skip
    if value.ndim and len(value) != count:
        raise RuntimeError(f"{name}: expected {count} rows, got {len(value)}")
    if value.is_floating_point():
        if not name.endswith("life_spans") and not value.isfinite().all():
            raise RuntimeError(f"{name}: has NaN or infinity")
    elif value.numel() and value.dtype != torch.bool:
        if not like.numel() or not _within(value, int(like.min()), int(like.max())):
            raise RuntimeError(f"{name}: has indices that are not of this fit")
    return value


def _within(value: torch.Tensor, low: int, high: int) -> bool:
    return low <= int(value.min()) and int(value.max()) <= high


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
        for key, value in state.items():
            if key != "step" and value.shape != parameter.shape:
                raise RuntimeError(f"{prefix}.{number}.{key}: another shape than the parameter's")
        if state:
            optimiser.state[parameter] = state
