"""Workers as actors of Ray, on this machine or on a cluster.

Each worker is an actor with a supervisor, whose process runs the stages. A GPU is a placement group
of its own, in which there is one actor with the whole of it or four with a quarter each. An actor
whose process dies is started again by Ray, and its job runs once more; an actor whose node is lost
is given up, and another one is asked for. Nothing is reported to anyone.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msdyn.batch.clips import Job, row_of
from msdyn.batch.engine import SHARES, Event, Worker
from msdyn.batch.supervisor import Supervisor, WorkerOptions
from msdyn.errors import InputError, MissingExtraError, MsdynError

__all__ = ["RayEngine", "connect"]

_RESTARTS, _RETRIES = 3, 1
"""How often Ray starts an actor again, and runs its job again."""
_CORES_OF_CARD = 1
_PATIENCE = 10.0
"""Seconds to wait for a cluster's first answer."""


def connect(
    address: str | None, cpus: int | None = None, gpus: int | None = None
) -> tuple[Any, str]:
    """Connect to a cluster, or start Ray on this machine.

    Args:
        address: of a cluster, "auto" for the one of this machine; None starts Ray, unless
            RAY_ADDRESS names a cluster. What is started stays on the loopback.
        cpus, gpus: of this machine, where Ray is started; by default those it finds.

    Returns:
        The module, and the address of the cluster's dashboard, "" where there is none.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: no such cluster.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    address = address or os.environ.get("RAY_ADDRESS")
    if address and _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is imported
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            '--engine ray needs Ray; install it with: pip install "msdyn[cluster]"'
        ) from error
    if ray.is_initialized():
        return ray, ""
    if address:
        _check_that_it_answers(address)
        try:
            url = ray.init(address=address, log_to_driver=False).dashboard_url
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"--address {address}: {_refusal(error)}") from error
        return ray, f"http://{url}" if url and "://" not in url else url or ""
    ray.init(
        num_cpus=cpus,
        num_gpus=gpus,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    return ray, ""


def _has_token() -> bool:
    """Whether this user has a token of a cluster: in the variables of Ray, or in its file."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


def _check_that_it_answers(address: str) -> None:
    """Whether somebody listens at HOST:PORT; Ray itself tries for ever.

    Raises:
        InputError: nobody does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdigit()):
        return  # "auto", or something that Ray refuses at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--address {address}: no cluster of Ray answers ({error})") from error


def _refusal(error: BaseException) -> str:
    """Why Ray did not connect, in one line."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    if any("uthentication" in type(cause).__name__ for cause in causes) or any(
        "uthentication token" in str(cause) for cause in causes
    ):
        return (
            "the cluster asks for a token; copy its ~/.ray/auth_token to this machine, or set "
            "RAY_AUTH_TOKEN (and RAY_AUTH_MODE=token)"
        )
    return f"no cluster of Ray answers ({' '.join(str(error).split())})"


class _Actor:
    """A worker: a supervisor in an actor."""

    def __init__(self, options: Mapping[str, Any], gpu_share: float) -> None:
        self._supervisor = Supervisor(WorkerOptions.from_json(options), gpu_share)

    def host(self) -> str:
        """Return the name of the machine."""
        return socket.gethostname()

    def pids(self) -> tuple[int, int | None]:
        """Return the numbers of the actor's process and of that which runs stages."""
        return os.getpid(), self._supervisor.pid

    def run(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Run a job; return its rows, or what is wrong with the worker, as JSON values."""
        try:
            rows = self._supervisor.run(Job.from_json(job))
        except MsdynError as error:
            return {"problem": str(error)}
        return {"rows": [row.to_json() for row in rows]}


class RayEngine:
    """Runs workers as actors of Ray, which must be connected (`connect`)."""

    def __init__(
        self, ray: Any, options: WorkerOptions, cpu_workers: int | None, threads: int = 1
    ) -> None:
        """Take what workers are given; GPUs are those of the cluster.

        Args:
            ray: the module.
            options: of each worker.
            cpu_workers: without a GPU; None for as many as the cluster has cores for.
            threads: cores of a worker.
        """
        self._ray, self._options, self._threads = ray, options, threads
        found = ray.cluster_resources()
        self._cards = int(found.get("GPU", 0))
        cores = int(found.get("CPU", 1)) - self._cards * _CORES_OF_CARD
        self._cpu_workers = cpu_workers or max(1, cores // threads)
        self._actors: dict[Worker, Any] = {}
        self._awaited: dict[Any, tuple[Worker, bool]] = {}
        self._groups: dict[int, Any] = {}

    @property
    def cpu_workers(self) -> int:
        """How many workers without a GPU there may be at a time."""
        return self._cpu_workers

    @property
    def cards(self) -> int:
        """How many GPUs there are."""
        return self._cards

    @property
    def actors(self) -> list[Any]:
        """The actors."""
        return list(self._actors.values())

    def start(self, worker: Worker) -> None:
        """Start an actor; it is ready when Ray has found a place for it."""
        resources: dict[str, Any] = {"num_cpus": self._threads}
        share, options = SHARES[worker.kind], self._options
        if worker.card is None and self._cards:
            options = options.with_variables({"CUDA_VISIBLE_DEVICES": ""})
        if worker.card is not None:
            from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

            resources = {
                "num_cpus": _CORES_OF_CARD * share,
                "num_gpus": share,
                "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group(worker.card)),
            }
        actor_class = self._ray.remote(
            max_restarts=_RESTARTS, max_task_retries=_RETRIES, **resources
        )(_Actor)
        actor = actor_class.remote(options.to_json(), share)
        self._actors[worker] = actor
        self._awaited[actor.host.remote()] = worker, False

    def stop(self, worker: Worker) -> None:
        """End the actor of a worker."""
        actor = self._actors.pop(worker, None)
        for reference in [r for r, (of, _) in self._awaited.items() if of == worker]:
            del self._awaited[reference]
        if actor is not None:
            with contextlib.suppress(Exception):
                self._ray.kill(actor, no_restart=True)

    def submit(self, worker: Worker, job: Job) -> None:
        """Give a job to a worker."""
        self._awaited[self._actors[worker].run.remote(job.to_json())] = worker, True

    def wait(self, seconds: float) -> list[Event]:
        """Return events, as soon as there are any, at the latest after some seconds."""
        awaited = list(self._awaited)
        done, _ = self._ray.wait(awaited, num_returns=1, timeout=seconds)
        if done:
            done, _ = self._ray.wait(awaited, num_returns=len(awaited), timeout=0)
        return [self._event(reference) for reference in done]

    def close(self) -> None:
        """End all workers and give the GPUs back."""
        for worker in list(self._actors):
            self.stop(worker)
        for group in self._groups.values():
            with contextlib.suppress(Exception):
                self._ray.util.remove_placement_group(group)
        self._groups.clear()

    def _group(self, card: int) -> Any:
        if card not in self._groups:
            bundle = {"GPU": 1, "CPU": _CORES_OF_CARD}
            self._groups[card] = self._ray.util.placement_group([bundle])
        return self._groups[card]

    def _event(self, reference: Any) -> Event:
        worker, is_job = self._awaited.pop(reference)
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self.stop(worker)
            return Event(worker, problem=f"{type(error).__name__}: {' '.join(str(error).split())}")
        if not is_job:
            return Event(worker, ready=True, host=answer)
        if "problem" in answer:
            self.stop(worker)
            return Event(worker, problem=answer["problem"])
        return Event(worker, rows=[row_of(row) for row in answer["rows"]])
