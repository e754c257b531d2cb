"""The choice of an engine, and the share of a machine that its workers have."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from typing import Any

from msdyn.batch.config import WorkersConfig
from msdyn.batch.engine import Engine
from msdyn.batch.local_engine import LocalEngine
from msdyn.batch.ray_engine import RayEngine, connect
from msdyn.batch.supervisor import WorkerOptions
from msdyn.machine_limits import available_memory
from msdyn.memory import bytes_of
from msdyn.progress import stage
from msdyn.thread_share import thread_budget, thread_environment

__all__ = ["choose_engine", "default_workers", "gpu_names"]

_WORKER_BYTES = 1_500_000_000
"""Memory of a worker, by which the default number of workers is limited."""
_SHARE = 0.9
"""Of the memory, for all workers."""


def choose_engine(config: WorkersConfig, options: WorkerOptions) -> tuple[Engine, str]:
    """Return the engine that the options name, and the address of Ray's dashboard, if there is one.

    Args:
        config: which engine, and how many workers of which size.
        options: of the workers; threads and memory are added.

    Raises:
        InputError: no such cluster.
        MissingExtraError: Ray is not installed.
    """
    options = options.with_variables(thread_environment(config.threads))
    most = None if config.max_memory is None else bytes_of(config.max_memory)
    name = config.engine
    if name == "auto":
        name = "ray" if config.address or os.environ.get("RAY_ADDRESS") else "local"
    if name == "local":
        workers = config.workers or default_workers(config.threads)
        available = available_memory()
        if most is None and available is not None:
            most = int(_SHARE * available / workers)
        return LocalEngine(replace(options, max_memory=most), workers, gpu_names()), ""
    of_this_machine = not (config.address or os.environ.get("RAY_ADDRESS"))
    cores = None
    if of_this_machine:
        workers = config.workers or default_workers(config.threads)
        cores = config.threads * workers + len(gpu_names())
    with stage("connecting to Ray"):
        ray, dashboard = connect(config.address, cores)
    if most is None:
        most = _memory_of_core(ray, config.threads)
    engine = RayEngine(ray, replace(options, max_memory=most), config.workers, config.threads)
    return engine, dashboard


def gpu_names() -> tuple[str, ...]:
    """Return the GPUs that this machine leaves to this process, as CUDA_VISIBLE_DEVICES has them.

    Torch is not loaded for it.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return tuple(name for name in names if name not in ("", "-1"))
    try:
        run = subprocess.run(
            ["nvidia-smi", "-L"], check=False, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    count = sum(line.startswith("GPU ") for line in run.stdout.splitlines())
    return tuple(map(str, range(count)))


def default_workers(threads: int) -> int:
    """Return how many workers a machine has cores and memory for."""
    workers = max(1, thread_budget() // threads)
    available = available_memory()
    return workers if available is None else max(1, min(workers, available // _WORKER_BYTES))


def _memory_of_core(ray: Any, cores: int) -> int | None:
    """Return the bytes of memory that a cluster has for so many cores, on its poorest machine."""
    shares = [
        node["Resources"].get("memory", 0) / node["Resources"]["CPU"]
        for node in ray.nodes()
        if node.get("Alive") and node["Resources"].get("CPU")
    ]
    shares = [share for share in shares if share > 0]
    return int(cores * min(shares)) if shares else None
