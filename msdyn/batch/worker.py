"""The process of a worker: reads jobs, runs their stages, keeps the results, answers.

A line of standard input is a job, a line of standard output its answer: the rows of the clip. What
the stages print goes to the clip's log. When standard input ends, the supervisor is gone, and the
process ends at once; the clip's files are renamed when they are complete, so nothing is lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import queue
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdyn.batch.clips import Clip, Job, Row, StageName, State
from msdyn.batch.steps import Ended, Step, next_step
from msdyn.batch.store import Store
from msdyn.batch.workspace import Workspace, read_record
from msdyn.errors import InputError, MsdynError, printable
from msdyn.machine_limits import held_memory
from msdyn.reading import decode_json

__all__ = ["StageResult", "StageWork", "serve"]

_SAMPLE_SECONDS = 0.05
_LOCK_SECONDS = 60.0
"""In which a worker that was thought lost has to leave a clip's folder."""
_OLD_SECONDS = 2 * 86400.0
"""Age of scratch folders that nobody will ask for again."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class StageWork:
    """A stage to run.

    Attributes:
        clip, stage: of the job.
        workspace: the files of the clip.
        smaller: take images of half the size.
        preprocess, fit: options of the commands: of the batch, then of the clip.
        max_memory: bytes that this process may hold; None for no limit.
    """

    clip: Clip
    stage: StageName
    workspace: Workspace
    smaller: bool
    preprocess: str
    fit: str
    max_memory: int | None


@dataclass(frozen=True)
class StageResult:
    """How a stage ended; see `Row`."""

    state: State = "done"
    verdict: str = ""
    psnr: float | None = None
    error_class: str = ""
    error: str = ""


def serve(run_stage: Callable[[StageWork], StageResult], arguments: list[str]) -> int:
    """Answer jobs until standard input ends; return the exit code.

    Args:
        run_stage: runs a stage. What it prints goes to the clip's log; an exception is a crash.
        arguments: of the process: `WorkerOptions` as JSON, without environment and command.
    """
    options = decode_json(arguments[0], "options of a worker")
    answers = os.dup(1)
    os.dup2(2, 1)  # what is printed between jobs
    faulthandler.enable()
    _end_with_parent()
    jobs: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()
    if options["scratch"]:
        _sweep(Path(options["scratch"]))
    _answer(answers, {"ready": True})
    while True:
        job = Job.from_json(decode_json(jobs.get(), "a job"))
        try:
            rows = _perform(job, options, run_stage)
        except MsdynError as error:
            _answer(answers, {"error": " ".join(str(error).split())})
        else:
            _answer(answers, {"rows": [row.to_json() for row in rows]})


def _perform(
    job: Job, options: dict[str, Any], run_stage: Callable[[StageWork], StageResult]
) -> list[Row]:
    """Run the stage of a job, unless the clip's record is ahead of it; return the rows.

    Raises:
        MsdynError: the record cannot be read or written.
    """
    started, clock, times = time.time(), time.monotonic(), os.times()
    scratch, store, clip = options["scratch"], Store(options["store"]), job.clip
    workspace = Workspace(store, clip, Path(scratch) if scratch else None)
    with _locked(workspace):
        record = read_record(store, clip)
        rows = record.of_round(job.round)
        if next_step(rows, options["stages"]) != Step(job.stage, job.attempt):
            return list(rows)
        workspace.fetch(record)
        workspace.describe()
        work = StageWork(
            clip,
            job.stage,
            workspace,
            job.attempt > 1,
            f"{options['preprocess']} {clip.preprocess}".strip(),
            f"{options['fit']} {clip.fit}".strip(),
            options["max_memory"],
        )
        with _logging(workspace.log, job), _Peak() as peak:
            try:
                result = run_stage(work)
            except Exception as error:
                traceback.print_exc()
                text = printable(" ".join(str(error).split()) or type(error).__name__, 300)
                result = StageResult(
                    "out-of-memory" if isinstance(error, MemoryError) else "crashed",
                    error_class=type(error).__name__,
                    error=f"{text}; see log.txt",
                )
        seconds, now = time.monotonic() - clock, os.times()
        row = Row(
            clip.id,
            job.stage,
            result.state,
            job.attempt,
            job.round,
            smaller=work.smaller,
            seconds=seconds,
            cpu_seconds=sum(now[:4]) - sum(times[:4]),
            gpu_seconds=seconds * options["gpu_share"],
            peak_memory=peak.bytes,
            verdict=result.verdict,
            psnr=result.psnr,
            error_class=result.error_class,
            error=result.error,
            uri=workspace.uri,
            host=socket.gethostname(),
            started=started,
            metadata=json.dumps(dict(clip.metadata)),
        )
        rows = workspace.keep(record, row).of_round(job.round)
        if isinstance(next_step(rows, options["stages"]), Ended):
            workspace.clear()
        return list(rows)


@contextlib.contextmanager
def _locked(workspace: Workspace) -> Iterator[None]:
    """Lock the clip's folder, as soon as a worker that was thought lost has left it.

    Raises:
        InputError: another process is still working on the clip.
    """
    end, entered = time.monotonic() + _LOCK_SECONDS, False
    while not entered:
        try:
            with workspace.locked():
                entered = True
                yield
        except InputError:
            if entered or time.monotonic() > end:
                raise
            time.sleep(0.5)


@contextlib.contextmanager
def _logging(path: Path, job: Job) -> Iterator[None]:
    """Have all that is printed in the block go to the end of a log."""
    kept = os.dup(1), os.dup(2)
    with path.open("ab") as log:
        log.write(f"\n== {job.stage}, attempt {job.attempt}, {time.strftime('%F %T')}\n".encode())
        log.flush()
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, handle in zip((1, 2), kept, strict=True):
                os.dup2(handle, number)
                os.close(handle)


class _Peak:
    """The most memory that this process holds in the block, looked at every twentieth second."""

    def __init__(self) -> None:
        self.bytes = held_memory() or 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self.bytes = max(self.bytes, held_memory() or 0)


def _answer(handle: int, value: dict[str, Any]) -> None:
    os.write(handle, json.dumps(value, allow_nan=False).encode() + b"\n")


def _read_jobs(jobs: queue.Queue[str]) -> None:
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)


def _end_with_parent() -> None:
    """Have this process killed when its parent ends, where the system can do that."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _sweep(scratch: Path) -> None:
    """Remove the folders of clips that went elsewhere, or whose batch was given up."""
    for folder in scratch.glob("msdyn-batch-*/*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _OLD_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
