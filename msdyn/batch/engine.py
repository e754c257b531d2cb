"""What the scheduler needs of an engine: workers that are started, given jobs, and answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from msdyn.batch.clips import Job, Row
from msdyn.batch.supervisor import Kind

__all__ = ["PARTS", "SHARES", "Engine", "Event", "Worker"]

PARTS = 4
"""Workers that share a GPU for networks."""
SHARES: dict[Kind, float] = {"cpu": 0.0, "part": 1 / PARTS, "gpu": 1.0}
"""Of a GPU, that a worker takes."""


@dataclass(frozen=True)
class Worker:
    """A worker.

    Attributes:
        number: of the worker, never used again.
        kind: what it has of a machine.
        card: number of its GPU, for `part` and `gpu`.
    """

    number: int
    kind: Kind
    card: int | None = None


@dataclass(frozen=True)
class Event:
    """What an engine has to say of a worker.

    Attributes:
        worker: the worker.
        rows: the answer to its job.
        ready: it has started, and takes jobs.
        problem: what is wrong with the worker, which is gone; its job, if it had one, has to run
            again elsewhere.
        host: where it runs, of `ready`.
    """

    worker: Worker
    rows: Sequence[Row] = field(default=())
    ready: bool = False
    problem: str = ""
    host: str = ""


@runtime_checkable
class Engine(Protocol):
    """Starts workers on machines."""

    @property
    def cpu_workers(self) -> int:
        """How many workers without a GPU there may be at a time."""
        ...

    @property
    def cards(self) -> int:
        """How many GPUs there are."""
        ...

    def start(self, worker: Worker) -> None:
        """Start a worker; an event tells when it is ready. Returns at once."""
        ...

    def stop(self, worker: Worker) -> None:
        """End a worker that has no job."""
        ...

    def submit(self, worker: Worker, job: Job) -> None:
        """Give a job to a worker that has none; an event tells its answer. Returns at once."""
        ...

    def wait(self, seconds: float) -> list[Event]:
        """Return events, as soon as there are any, at the latest after some seconds."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...
