"""Running a batch, running parts of it again, and how far it is: the work of `msdyn-batch`."""

from __future__ import annotations

import contextlib
import json
import posixpath
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt64

from msdyn.batch.clips import Job, Row
from msdyn.batch.config import RetryConfig, RunConfig, WorkersConfig
from msdyn.batch.engine import Engine
from msdyn.batch.engines import choose_engine
from msdyn.batch.manifest import Shard, key_of
from msdyn.batch.needs import needs_of
from msdyn.batch.page import write_index
from msdyn.batch.plan import BatchPlan, begin, open_run, plan_of
from msdyn.batch.results import ClipEnds, ResultsWriter, part_names, read_rows, write_quarantine
from msdyn.batch.schedule import Pending, Scheduler
from msdyn.batch.store import Store
from msdyn.batch.summary import Summary
from msdyn.batch.supervisor import WorkerOptions
from msdyn.batch.workspace import Workspace
from msdyn.errors import InputError
from msdyn.progress import Progress, stage
from msdyn.reading import load_pyarrow
from msdyn.writing import writing_to

__all__ = ["batch_status", "retry_batch", "run_batch"]

_INDEX_SECONDS = 60.0
_ROWS = 20_000
"""Rows whose keys are in memory at a time."""

Keys = UInt64[np.ndarray, " clips"]


def run_batch(config: RunConfig, engine: Engine | None = None) -> Summary:
    """Run the clips of a manifest that have not ended; write results, quarantine and page.

    Args:
        config: which clips, and where.
        engine: to run on; by default the one that `config` names.

    Returns:
        What came of the batch, with all shards that have written results.

    Raises:
        FileNotFoundError: there is no manifest.
        InputError: the manifest or an option is invalid, or the folder is of another batch.
        MissingExtraError: pyarrow, or a package for this engine or URL, is not installed.
        ResourceError: the disk, the store or all workers refuse; the same call goes on later.
    """
    manifest, store, plan = plan_of(config)
    shard = Shard.parse(config.shard) if config.shard else Shard()
    with stage("reading the manifest"):
        keys = manifest.keys()
    plan = replace(plan, clips=len(keys))
    keys = shard.of(keys)
    begin(store, plan)

    def clips(found: _Found) -> Iterator[Pending]:
        for clip in manifest.clips():
            if shard.has(key_of(clip.id)) and not found.summary.ends.state(clip.id):
                yield Pending(clip, known=found.known(clip.id, 0))

    run = _Run(store, plan, config, shard)
    found = run.find(keys)
    run.begin(len(keys), found.summary.ends.count)
    return run.run(clips(found), found.summary, engine)


def retry_batch(config: RetryConfig, engine: Engine | None = None) -> Summary:
    """Run clips in quarantine again, from their first stage.

    Args:
        config: which clips, and where.
        engine: as of `run_batch`.

    Raises:
        FileNotFoundError: there is no such batch.
        InputError: no clip is in quarantine for these reasons; others as of `run_batch`.
        MissingExtraError, ResourceError: as of `run_batch`.
    """
    store, plan = open_run(config.run)
    plan = replace(
        plan,
        preprocess=plan.preprocess if config.preprocess is None else config.preprocess,
        fit=plan.fit if config.fit is None else config.fit,
    )
    manifest, chosen = plan.source, set(config.only)
    with stage("reading the manifest"):
        keys = manifest.keys()
    run = _Run(store, plan, config, Shard())
    found = run.find(keys)
    # Rows of quarantine change while the clips run.
    rounds = {
        row.clip: row.round + 1
        for row in found.summary.quarantine.values()
        if not chosen or row.ended in chosen
    }
    if not rounds:
        counts = ", ".join(f"{n} {name}" for name, n in found.summary.counts.items() if n)
        reasons = f" for {', '.join(config.only)}" if chosen else ""
        raise InputError(
            f"{config.run}: no clip in quarantine{reasons}; its clips: {counts or 'none has ended'}"
        )

    def clips() -> Iterator[Pending]:
        for clip in manifest.clips():
            number = rounds.get(clip.id)
            if number is not None:
                yield Pending(clip, number, found.known(clip.id, number))

    run.begin(len(rounds), 0)
    return run.run(clips(), found.summary, engine)


def batch_status(out: str) -> tuple[BatchPlan, Summary]:
    """Return what a batch is and what came of it, from its results; write its page again.

    Raises:
        FileNotFoundError: there is no such batch.
        InputError: its files are damaged.
    """
    store, plan = open_run(out)
    return plan, _rebuild(store, plan)


@dataclass(frozen=True)
class _Found:
    """What the results have of the clips.

    Attributes:
        summary: of all rows.
        rows: number of rows of the clips that have not ended, by clip and round.
    """

    summary: Summary
    rows: dict[tuple[str, int], int]

    def known(self, clip_id: str, number: int) -> int:
        """Return how many rows of a round of a clip the results have."""
        return self.rows.get((clip_id, number), 0)


class _Run:
    """One call of `run_batch` or `retry_batch`."""

    def __init__(self, store: Store, plan: BatchPlan, config: WorkersConfig, shard: Shard) -> None:
        self._store, self._plan, self._config, self._shard = store, plan, config, shard
        self._scratch = (
            str(config.scratch or Path(tempfile.gettempdir())) if store.folder is None else ""
        )
        self._total = self._start = 0
        load_pyarrow()  # that it is missing is told before anything runs

    def find(self, keys: Keys) -> _Found:
        """Read the results that are there."""
        rows: dict[tuple[str, int], int] = {}
        summary = Summary(ClipEnds(keys))
        with stage("reading the results"):
            for row in read_rows(self._store):
                if not summary.ends.has(row.clip):
                    continue
                summary.add(row)
                key = row.clip, row.round
                rows[key] = rows.get(key, 0) + 1
                if row.ended:
                    del rows[key]
        return _Found(summary, rows)

    def begin(self, total: int, start: int) -> None:
        """Note how many clips there are, and how many have ended."""
        self._total, self._start = total, start

    def run(self, clips: Iterator[Pending], summary: Summary, engine: Engine | None) -> Summary:
        """Run clips, and write what comes of them."""
        with contextlib.ExitStack() as stack:
            if self._store.folder is not None:
                place = self._store.folder / ".drivers" / self._shard.name
                stack.enter_context(writing_to(place, cure="run another --shard"))
            link = ""
            if engine is None:
                engine, link = choose_engine(self._config, self._worker_options())
            stack.callback(engine.close)
            progress = stack.enter_context(
                Progress("clips", self._total, "clip", start=self._start)
            )
            writer = ResultsWriter(self._store, self._shard)

            def emit(row: Row) -> None:
                writer.add(row)
                summary.add(row)
                progress.update(bool(row.ended))

            needs = needs_of(self._plan.preprocess, self._plan.fit)
            scheduler = Scheduler(engine, self._plan.stages, needs, emit, self._lost)
            try:
                scheduler.run(clips, self._ticks(scheduler, summary, writer, progress, link))
            finally:
                writer.flush()
        return _rebuild(self._store, self._plan, link)

    def _ticks(
        self,
        scheduler: Scheduler,
        summary: Summary,
        writer: ResultsWriter,
        progress: Progress,
        link: str,
    ) -> Callable[[], None]:
        """Return what is done from time to time: parts of the results, figures, the page."""
        written = time.monotonic()

        def tick() -> None:
            nonlocal written
            writer.flush_if_due()
            progress.show(
                done=str(summary.done),
                quarantine=str(summary.quarantined),
                busy=str(scheduler.busy),
            )
            # Of a shard the page of all is written at the end.
            if self._shard.count == 1 and time.monotonic() - written > _INDEX_SECONDS:
                written = time.monotonic()
                write_index(self._store, summary, self._plan.clips, _title(self._store), link)

        return tick

    def _worker_options(self) -> WorkerOptions:
        return WorkerOptions(
            self._store.url,
            self._scratch,
            self._plan.stages,
            self._plan.preprocess,
            self._plan.fit,
            time_limit=self._config.time_limit,
        )

    def _lost(self, job: Job, problem: str) -> Sequence[Row]:
        """Note in the record of a clip that its worker was lost."""
        scratch = Path(self._scratch) if self._scratch else None
        workspace = Workspace(self._store, job.clip, scratch)
        row = Row(
            job.clip.id,
            job.stage,
            "lost",
            job.attempt,
            job.round,
            smaller=job.attempt > 1,
            error_class="lost",
            error=problem,
            uri=workspace.uri,
            started=time.time(),
            metadata=json.dumps(dict(job.clip.metadata)),
        )
        return workspace.note_death(row).of_round(job.round)


def _rebuild(store: Store, plan: BatchPlan, link: str = "") -> Summary:
    """Write quarantine and page from all parts of the results; return the summary.

    Others may write parts at the same time: whoever is the last to write these files has read all.
    """
    while True:
        parts = part_names(store)
        with stage("reading the results"):
            summary = Summary(ClipEnds(_keys(read_rows(store)))).add_all(read_rows(store))
        ended = sorted(summary.quarantine.values(), key=lambda row: (row.ended, row.clip))
        write_quarantine(store, ended)
        write_index(store, summary, plan.clips, _title(store), link)
        if part_names(store) == parts:
            return summary


def _keys(rows: Iterator[Row]) -> Keys:
    """Return the keys of the clips of rows, each once."""
    keys: Keys = np.empty(0, np.uint64)
    while some := [key_of(row.clip) for row in islice(rows, _ROWS)]:
        keys = np.union1d(keys, np.array(some, np.uint64))
    return keys


def _title(store: Store) -> str:
    return posixpath.basename(store.url.rstrip("/")) or store.url
