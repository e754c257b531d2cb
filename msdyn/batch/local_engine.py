"""Workers in processes of this machine."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Sequence

from msdyn.batch.clips import Job
from msdyn.batch.engine import SHARES, Event, Worker
from msdyn.batch.supervisor import Supervisor, WorkerOptions
from msdyn.errors import MsdynError

__all__ = ["LocalEngine"]


class LocalEngine:
    """Runs each worker in a process, watched by a thread of this one."""

    def __init__(self, options: WorkerOptions, cpu_workers: int, gpus: Sequence[str] = ()) -> None:
        """Take what workers are given, and how many there may be.

        Args:
            options: of each worker.
            cpu_workers: without a GPU.
            gpus: of this machine, as CUDA_VISIBLE_DEVICES names them.
        """
        self._options, self._cpu_workers, self._gpus = options, cpu_workers, tuple(gpus)
        self._events: queue.Queue[Event] = queue.Queue()
        self._workers: dict[Worker, tuple[Supervisor, queue.Queue[Job | None]]] = {}

    @property
    def cpu_workers(self) -> int:
        """How many workers without a GPU there may be at a time."""
        return self._cpu_workers

    @property
    def cards(self) -> int:
        """How many GPUs there are."""
        return len(self._gpus)

    @property
    def pids(self) -> list[int]:
        """Numbers of the processes."""
        found = [supervisor.pid for supervisor, _ in self._workers.values()]
        return [pid for pid in found if pid is not None]

    def start(self, worker: Worker) -> None:
        """Start a worker; its process starts with its first job."""
        options = self._options
        if self._gpus:
            gpu = "" if worker.card is None else self._gpus[worker.card]
            options = options.with_variables({"CUDA_VISIBLE_DEVICES": gpu})
        supervisor = Supervisor(options, SHARES[worker.kind])
        jobs: queue.Queue[Job | None] = queue.Queue()
        self._workers[worker] = supervisor, jobs
        threading.Thread(
            target=_serve,
            args=(worker, supervisor, jobs, self._events.put),
            name=f"msdyn-batch-{worker.number}",
            daemon=True,
        ).start()
        self._events.put(Event(worker, ready=True, host=socket.gethostname()))

    def stop(self, worker: Worker) -> None:
        """End a worker that has no job."""
        _, jobs = self._workers.pop(worker)
        jobs.put(None)

    def submit(self, worker: Worker, job: Job) -> None:
        """Give a job to a worker that has none."""
        self._workers[worker][1].put(job)

    def wait(self, seconds: float) -> list[Event]:
        """Return events, as soon as there are any, at the latest after some seconds."""
        found = []
        try:
            found.append(self._events.get(timeout=seconds))
            while True:
                found.append(self._events.get_nowait())
        except queue.Empty:
            return found

    def close(self) -> None:
        """End all workers."""
        for worker in list(self._workers):
            supervisor, _ = self._workers[worker]
            self.stop(worker)
            supervisor.kill()


def _serve(
    worker: Worker,
    supervisor: Supervisor,
    jobs: queue.Queue[Job | None],
    tell: Callable[[Event], None],
) -> None:
    """Run the jobs of a worker, in a thread of its own."""
    while (job := jobs.get()) is not None:
        try:
            event = Event(worker, rows=supervisor.run(job))
        except MsdynError as error:
            event = Event(worker, problem=str(error))
        except Exception as error:
            event = Event(worker, problem=f"{type(error).__name__}: {error}")
        tell(event)
        if event.problem:
            break
    supervisor.stop()
