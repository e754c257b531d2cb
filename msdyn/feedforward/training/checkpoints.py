"""The state of a training run on disk, from which it is resumed.

A network that every process has is one file of tensors; one that is divided among processes is a
folder of `torch.distributed.checkpoint`, which any number of processes can read.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from msdyn.errors import InputError
from msdyn.feedforward.training.parallel import Processes
from msdyn.reading import read_torch, reading
from msdyn.writing import atomic_path

__all__ = ["find_checkpoint", "full_weights", "restore_state", "save_state"]

_FILE, _FOLDER = "checkpoint.pt", "checkpoint"
_COUNTERS = "counters"


def find_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint of a run's folder, or None."""
    for path in (folder / _FILE, folder / _FOLDER / ".metadata"):
        if path.is_file():
            return path if path.name == _FILE else path.parent
    return None


def save_state(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    counters: dict[str, int],
    processes: Processes,
) -> None:
    """Write weights, moments and counters; all processes call it."""
    if processes.sharded:
        from torch.distributed.checkpoint.state_dict import get_state_dict
        from torch.distributed.checkpoint.state_dict_saver import save

        weights, moments = get_state_dict(model, optimiser)
        state = {"model": weights, "optimiser": moments, _COUNTERS: counters}
        new = folder / f"{_FOLDER}.new"
        save(state, checkpoint_id=new)
        processes.wait()
        if processes.first:
            shutil.rmtree(folder / _FOLDER, ignore_errors=True)
            new.rename(folder / _FOLDER)
        processes.wait()
    elif processes.first:
        state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
        with atomic_path(folder / _FILE) as temporary:
            torch.save(state | {_COUNTERS: counters}, temporary)


def restore_state(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    counters: dict[str, int],
    processes: Processes,
) -> dict[str, int]:
    """Read a checkpoint of `save_state` into network and optimiser and return the counters.

    Args:
        path: the file or folder.
        model, optimiser: of a run with the same config.
        counters: those expected, with any values.
        processes: as when it was written, but for their number if the network is divided.

    Raises:
        InputError: not such a checkpoint.
    """
    with reading(path, "checkpoint of this run", cure="; remove it to begin again"):
        if path.is_dir() != processes.sharded:
            what = "a divided network" if path.is_dir() else "a whole network"
            raise InputError(f"it is of {what}; go on with the --parallel of that run")
        if path.is_dir():
            state = _read_divided(path, model, optimiser, counters)
        else:
            state = read_torch(path, "checkpoint of this run")
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
        return {name: int(state[_COUNTERS][name]) for name in counters}


def _read_divided(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, counters: dict[str, int]
) -> dict[str, Any]:
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    weights, moments = get_state_dict(model, optimiser)
    state = {"model": weights, "optimiser": moments, _COUNTERS: dict(counters)}
    # Parameters that no step has trained have no moments.
    planner = DefaultLoadPlanner(allow_partial_load=True)
    load(state, checkpoint_id=path, planner=planner)
    set_state_dict(
        model,
        optimiser,
        model_state_dict=state["model"],
        optim_state_dict=state["optimiser"],
    )
    stored = FileSystemReader(path).read_metadata().state_dict_metadata
    for name, parameter in model.named_parameters():
        if f"model.{name}" not in stored:
            raise ValueError(f"{name} is missing")
        if f"optimiser.state.{name}.exp_avg" not in stored:
            optimiser.state.pop(parameter, None)
    return state


def full_weights(model: nn.Module, processes: Processes) -> dict[str, torch.Tensor]:
    """Return all weights on the first process, nothing on the others if the network is divided."""
    if not processes.sharded:
        return dict(model.state_dict(keep_vars=True))
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    gathered = get_model_state_dict(model, options=options)
    return {name: value for name, value in gathered.items() if isinstance(value, torch.Tensor)}
