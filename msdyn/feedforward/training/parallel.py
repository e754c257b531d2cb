"""Training in several processes: each computes its parts of a step, gradients are averaged.

Under `torchrun` every process finds its number and the others by environment variables. Small
networks are copied to every process (DDP); of large ones every process holds a share of weights,
gradients and moments (FSDP, `fully_shard`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from msdyn.devices import choose_device
from msdyn.errors import InputError
from msdyn.feedforward.model import Movies
from msdyn.feedforward.training.command import Parallel
from msdyn.feedforward.training.objective import Objective

__all__ = ["Processes", "ParallelObjective"]

# Methods of the network through which its own parameters are used.
_FORWARD_METHODS = ("encode", "static", "move", "gaussians")


@dataclass(frozen=True)
class Processes:
    """The place of this process among those of a run.

    Attributes:
        device: on which this process computes.
        rank: number of this process, from 0.
        count: number of processes.
        how: to divide the network among them.
    """

    device: torch.device = torch.device("cpu")
    rank: int = 0
    count: int = 1
    how: Parallel = "ddp"

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether the network is divided among the processes."""
        return self.count > 1 and self.how == "fsdp"

    @classmethod
    @contextmanager
    def joined(cls, device: str = "auto", how: Parallel = "ddp") -> Iterator[Processes]:
        """Join the other processes of `torchrun`, if it started this one; leave them at the end.

        Args:
            device: option of a command; with `auto` or `cuda`, process i of a machine takes GPU i.
            how: to divide the network.

        Raises:
            InputError: a device that does not exist.
        """
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            yield cls(choose_device(device))
            return
        local = int(os.environ.get("LOCAL_RANK", "0"))
        chosen = choose_device(device)
        if chosen.type == "cuda":
            chosen = choose_device(f"cuda:{local}" if chosen.index is None else str(chosen))
            torch.cuda.set_device(chosen)
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        try:
            yield cls(chosen, dist.get_rank(), count, how)
        finally:
            dist.destroy_process_group()

    def own_parts(self, parts: int) -> range:
        """Return the parts of a step that this process computes.

        Raises:
            InputError: they cannot be divided evenly.
        """
        if parts % self.count:
            raise InputError(
                f"parts: expected a multiple of the {self.count} processes, got {parts}"
            )
        return range(self.rank, parts, self.count)

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Return the means of named numbers over all processes, which must have the same names."""
        if self.count == 1 or not values:
            return values
        total = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return dict(zip(values, (total / self.count).tolist(), strict=True))

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            dist.barrier()


class ParallelObjective:
    """The losses of a network, whose gradients are averaged over the processes.

    Attributes:
        module: called with the arguments of `Objective.forward`.
        processes: of the run.
    """

    def __init__(self, model: Movies, processes: Processes) -> None:
        self.processes = processes
        self._model = model
        self.module: nn.Module = Objective(model)
        if processes.sharded:
            _shard(model, processes)
        elif processes.count > 1:
            # Stages use different parts of the network.
            self.module = nn.parallel.DistributedDataParallel(
                self.module, find_unused_parameters=True
            )

    def __call__(self, *args: Any, last: bool, **options: Any) -> dict[str, Float[Tensor, ""]]:
        """Return losses; only the gradients of the last part of a step are exchanged."""
        if isinstance(self.module, nn.parallel.DistributedDataParallel):
            self.module.require_backward_grad_sync = last
        elif self.processes.sharded:
            self._model.set_requires_gradient_sync(last)  # type: ignore[operator]
        return self.module(*args, **options)


def _shard(model: Movies, processes: Processes) -> None:
    """Divide a network among the processes: block by block, then heads, then what is left."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    if model.config.correlation:
        raise InputError(
            "parallel: expected a network without correlation for fsdp, got one with; use ddp"
        )
    # Said of every output that is a view; nothing here changes outputs in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    blocks = [
        *model.encoder.blocks, *model.aggregator.frame_blocks, *model.aggregator.global_blocks
    ]  # fmt: skip
    heads = [part for name, part in model.named_children() if name.endswith("_head")]
    for part in (*blocks, *heads):
        fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name in _FORWARD_METHODS:
        register_fsdp_forward_method(model, name)
