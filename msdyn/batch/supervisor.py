"""A worker: a process that runs stages, and who watches it.

The process is a command of msdyn that reads jobs from its standard input and answers each with one
line (`msdyn.cli.batch_worker`). The supervisor starts it, limits its time and memory, and says what
became of it when it dies. A clip that crashes its process, eats memory or hangs costs that process
only. The process ends by itself when its supervisor is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from msdyn.batch.clips import STAGES, Job, Row, StageName, State, row_of
from msdyn.batch.steps import Ended, next_step
from msdyn.batch.store import Store
from msdyn.batch.workspace import Workspace, tail_of
from msdyn.errors import MsdynError, printable
from msdyn.machine_limits import held_memory
from msdyn.memory import shown_bytes
from msdyn.reading import decode_json

__all__ = ["Kind", "Supervisor", "WorkerOptions"]

Kind = Literal["cpu", "part", "gpu"]
"""What a worker has of a machine: CPU cores only; a part of a GPU; a whole GPU."""

WORKER = (sys.executable, "-m", "msdyn.cli.batch_worker")
"""The command that runs stages."""
_TICK = 0.1
"""Seconds between two looks at the process."""
_START_SECONDS = 300.0
"""In which a process has to say that it is ready; packages may lie on a network disk."""
_TAIL = 1 << 16
_TOLD_TO_END = {128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}


@dataclass(frozen=True)
class WorkerOptions:
    """What the workers of a batch are given.

    Attributes:
        store: URL of the batch.
        scratch: folder for the files of clips, where the store is not of this machine.
        stages: of the batch.
        preprocess, fit: options of the commands for all clips.
        max_memory: bytes that the process may hold; None for no limit.
        time_limit: seconds of a stage; None for no limit.
        environment: variables of the process, besides those of this one.
        command: that runs stages.
    """

    store: str
    scratch: str = ""
    stages: tuple[StageName, ...] = STAGES
    preprocess: str = ""
    fit: str = ""
    max_memory: int | None = None
    time_limit: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = WORKER

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> WorkerOptions:
        """Return the options that `to_json` described."""
        listed = {name: tuple(value[name]) for name in ("stages", "command")}
        return cls(**{**value, **listed})

    def with_variables(self, variables: Mapping[str, str]) -> WorkerOptions:
        """Return these options with more variables for the process."""
        return replace(self, environment={**self.environment, **variables})


class Supervisor:
    """Runs jobs in a process of its own, one at a time.

    A supervisor is used by one thread.
    """

    def __init__(self, options: WorkerOptions, gpu_share: float = 0.0) -> None:
        """Take what the worker is given; the process starts with the first job.

        Args:
            options: of the worker.
            gpu_share: of a GPU, for the account.
        """
        self._options, self._gpu_share = options, gpu_share
        self._store = Store(options.store)
        self._process: subprocess.Popen[bytes] | None = None
        self._answers = b""
        self._errors: Any = None
        self._closed = False

    def run(self, job: Job) -> list[Row]:
        """Run a job; return all rows of the clip's round, the last one that of this job.

        They end with another row where the clip's record is ahead of the job.

        Raises:
            MsdynError: the process does not start, or the store does not answer.
        """
        self._start()
        started, clock = time.time(), time.monotonic()
        process = self._process
        assert process is not None and process.stdin is not None
        try:
            process.stdin.write(json.dumps(job.to_json()).encode() + b"\n")
            process.stdin.flush()
        except OSError:  # it died while it waited
            return self._died(job, started, clock, 0, 0.0)
        limit = self._options.time_limit
        most_memory, peak, cpu = self._options.max_memory, 0, 0.0
        cpu_before = _cpu_seconds(process.pid) or 0.0
        while True:
            line = self._answer(_TICK)
            if line is not None:
                break
            if process.poll() is not None:
                return self._died(job, started, clock, peak, cpu)
            held = held_memory(process.pid) or 0
            peak = max(peak, held)
            cpu = max(cpu, (_cpu_seconds(process.pid) or 0.0) - cpu_before)
            seconds = time.monotonic() - clock
            if most_memory is not None and held > most_memory:
                error = (
                    f"{shown_bytes(held)} of memory were held, more than the "
                    f"{shown_bytes(most_memory)} of a worker"
                )
                return self._killed(job, "out-of-memory", error, started, clock, peak, cpu)
            if limit is not None and seconds > limit:
                error = f"still running after {seconds:.0f} s, more than --time-limit {limit:g}"
                return self._killed(job, "timed-out", error, started, clock, peak, cpu)
        answer = decode_json(line, "a worker")
        if "error" in answer:  # of the worker, not of a clip
            raise MsdynError(answer["error"])
        rows = [row_of(row) for row in answer["rows"]]
        if most_memory is not None and (held_memory(process.pid) or 0) > 0.6 * most_memory:
            self.stop()  # what it has not given back would count against the next clip
        return rows

    def stop(self) -> None:
        """End the process, at once."""
        process, self._process, self._answers = self._process, None, b""
        if process is None:
            return
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def kill(self) -> None:
        """End the work, from another thread: a running job raises MsdynError, and is no loss."""
        self._closed, process = True, self._process
        if process is not None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)

    @property
    def pid(self) -> int | None:
        """Number of the process, where it runs."""
        return None if self._process is None else self._process.pid

    def _start(self) -> None:
        """Start the process unless it runs, and wait until it is ready.

        Raises:
            MsdynError: it does not start.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        options = self._options
        self._errors = tempfile.TemporaryFile()
        given = {k: v for k, v in options.to_json().items() if k not in ("environment", "command")}
        self._process = subprocess.Popen(
            [*options.command, json.dumps(given | {"gpu_share": self._gpu_share})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **options.environment, "MSDYN_PROGRESS": "auto"},
            start_new_session=True,
        )
        end = time.monotonic() + _START_SECONDS
        while (line := self._answer(_TICK)) is None:
            if self._process.poll() is not None or time.monotonic() > end:
                said = self._last_line(None)
                self.stop()
                raise MsdynError(f"a worker did not start: {said or 'it said nothing'}")
        if line != b'{"ready": true}':
            self.stop()
            raise MsdynError(f"a worker did not start: {printable(line.decode(errors='replace'))}")

    def _answer(self, seconds: float) -> bytes | None:
        """Return the next line of the process, None if it does not come within some seconds."""
        process = self._process
        assert process is not None and process.stdout is not None
        if b"\n" not in self._answers:
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                if selector.select(seconds):
                    block = os.read(process.stdout.fileno(), 1 << 16)
                    if not block:
                        time.sleep(seconds)  # it is ending
                    self._answers += block
        line, found, rest = self._answers.partition(b"\n")
        if not found:
            return None
        self._answers = rest
        return line

    def _killed(
        self,
        job: Job,
        state: State,
        error: str,
        started: float,
        clock: float,
        peak: int,
        cpu: float,
    ) -> list[Row]:
        """End the process because of what the clip did; return the rows with one for that."""
        self.stop()
        return self._record(job, state, "", error, started, clock, peak, cpu)

    def _died(self, job: Job, started: float, clock: float, peak: int, cpu: float) -> list[Row]:
        """Return the rows with one for a process that has died by itself, or was killed."""
        process = self._process
        assert process is not None
        code = process.wait()
        if self._closed:
            raise MsdynError("the work has been ended")
        said = self._last_line(self._workspace(job).log)
        self.stop()
        # A command that is told to end does so with 128 plus the number of the signal.
        code = 128 - code if code in _TOLD_TO_END else code
        name = _signal_name(-code) if code < 0 else f"exit code {code}"
        limit = self._options.max_memory
        if code == -signal.SIGKILL and limit is not None and peak > 0.8 * limit:
            error = f"killed while it held {shown_bytes(peak)} of memory, as where none is left"
            return self._record(job, "out-of-memory", name, error, started, clock, peak, cpu)
        if code == -signal.SIGKILL or 128 - code in _TOLD_TO_END:
            error = "the worker was ended by another program"
            return self._record(job, "lost", name, error, started, clock, peak, cpu)
        error = f"the process died ({name}){f': {said}' if said else ''}; see log.txt"
        return self._record(job, "crashed", name, error, started, clock, peak, cpu)

    def _record(
        self,
        job: Job,
        state: State,
        error_class: str,
        error: str,
        started: float,
        clock: float,
        peak: int,
        cpu: float,
    ) -> list[Row]:
        seconds = time.monotonic() - clock
        row = Row(
            job.clip.id,
            job.stage,
            state,
            job.attempt,
            job.round,
            smaller=job.attempt > 1,
            seconds=seconds,
            cpu_seconds=cpu,
            gpu_seconds=seconds * self._gpu_share,
            peak_memory=peak,
            error_class=error_class or state,
            error=error,
            uri=self._workspace(job).uri,
            host=socket.gethostname(),
            started=started,
            metadata=json.dumps(dict(job.clip.metadata)),
        )
        workspace = self._workspace(job)
        rows = workspace.note_death(row).of_round(job.round)
        if isinstance(next_step(rows, self._options.stages), Ended):
            workspace.clear()
        return list(rows)

    def _workspace(self, job: Job) -> Workspace:
        scratch = self._options.scratch
        return Workspace(self._store, job.clip, Path(scratch) if scratch else None)

    def _last_line(self, log: Path | None) -> str:
        """Return the last line that the process has written, to the clip's log or elsewhere."""
        tails = []
        if self._errors is not None:
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - _TAIL))
            tails.append(self._errors.read())
        if log is not None:
            tails.append(tail_of(log, _TAIL))
        lines = b"\n".join(tails).decode(errors="replace").split("\n")
        said = [line for line in lines if line.strip()]
        fatal = [line for line in said if line.startswith("Fatal Python error")]
        return printable((fatal or said)[-1], 200) if said else ""


def _cpu_seconds(pid: int) -> float | None:
    """Return the CPU seconds that a process has used, with its ended children."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        fields = text[text.rindex(")") + 2 :].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
