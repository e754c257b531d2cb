"""Simulate a batch: the scheduler of `msdyn-batch`, with machines on which stages only sleep.

    python tools/simulate_batch.py --clips 10000 --machines 8 --gpus 8 --scale 1000 --plot FILE.png

Durations of stages scatter around the given means, 1 % of the clips fail in some way, workers take
some seconds to start, some are lost, and one machine is lost for ten minutes in the middle. A
second of the machines takes a thousandth of a second, so that the scheduler has a thousand times
less time for each decision than it has in reality. With --scale 0 the clock jumps from event to
event.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from machine import describe_machine

from msdyn.batch import STAGES, Clip, Event, Job, Pending, Row, Scheduler, Worker
from msdyn.batch.engine import SHARES
from msdyn.batch.supervisor import Kind

__all__ = ["Machines", "Simulation", "simulate"]

SECONDS: dict[str, float] = {
    "tracks": 40,
    "masks": 40,
    "cameras": 60,
    "refine": 30,
    "depth": 40,
    "fit": 240,
    "evaluate": 10,
}
"""Mean seconds of the stages, assumed; on a CPU they are of this order for short clips (docs/
scale.md)."""
NEEDS: dict[str, Kind] = {
    "tracks": "cpu",
    "masks": "part",
    "cameras": "cpu",
    "refine": "part",
    "depth": "part",
    "fit": "gpu",
    "evaluate": "part",
}
START_SECONDS = 20.0
"""In which a worker starts, and loads its networks."""
LOST_SECONDS = 600.0
"""For which a machine that is lost stays away."""
SCATTER = 0.35
"""Standard deviation of the logarithm of durations."""


@dataclass(frozen=True)
class Machines:
    """What there is, and how it fails.

    Attributes:
        count: of machines.
        gpus, cpu_workers: of each.
        failures: share of the clips with one of: bad input, poor geometry, a crash, too much
            memory, a stage that hangs; and share of the jobs whose worker is lost, a tenth of it.
        seconds: mean of each stage.
        lost_at: seconds after which the first machine is lost for `LOST_SECONDS`; 0 for never.
    """

    count: int = 8
    gpus: int = 8
    cpu_workers: int = 12
    failures: float = 0.01
    seconds: tuple[tuple[str, float], ...] = tuple(SECONDS.items())
    lost_at: float = 0.0


class Simulation:
    """An engine whose workers sleep; see `msdyn.batch.Engine`."""

    def __init__(self, machines: Machines, scale: float, seed: int = 0) -> None:
        """Take the machines.

        Args:
            machines: what there is.
            scale: seconds of the machines per second; 0 lets the clock jump.
            seed: of durations and failures.
        """
        self._machines, self._scale = machines, scale
        self._random = random.Random(seed)
        self._seconds = dict(machines.seconds)
        self._began = time.perf_counter()
        self._jumped = 0.0
        self._events: list[tuple[float, int, Event, Job | None]] = []
        self._numbers = itertools.count()
        self._rows: dict[str, list[Row]] = {}
        self._alive: dict[Worker, int] = {}
        """The machine of each worker."""
        self._running: dict[Worker, tuple[float, float, float]] = {}
        """Begin, end and share of a GPU of the job of each worker."""
        self._back_at = 0.0
        self.lost_workers = 0
        self.busy: list[tuple[float, float]] = []
        """Changes of the number of GPUs that work, with their times."""
        self.gpu_seconds = self.starting_seconds = 0.0
        self.most_on_card = 0.0
        self._on_card: Counter[int] = Counter()
        self.jobs = self.late = 0

    @property
    def cpu_workers(self) -> int:
        return self._machines.count * self._machines.cpu_workers

    @property
    def cards(self) -> int:
        return self._machines.count * self._machines.gpus

    @property
    def now(self) -> float:
        """Seconds of the machines since the begin."""
        if not self._scale:
            return self._jumped
        return (time.perf_counter() - self._began) * self._scale

    def start(self, worker: Worker) -> None:
        machine = worker.number % self._machines.count
        if worker.card is not None:
            machine = worker.card // self._machines.gpus
        self._alive[worker] = machine
        if worker.card is not None:
            # In quarters, which are exact.
            self._on_card[worker.card] += round(4 * SHARES[worker.kind])
            self.most_on_card = max(self.most_on_card, self._on_card[worker.card] / 4)
            self.starting_seconds += START_SECONDS * SHARES[worker.kind]
        away = self._back_at - self.now if machine == 0 else 0.0
        ready = Event(worker, ready=True, host=f"machine-{machine}")
        self._later(START_SECONDS + max(0.0, away), ready, None)

    def stop(self, worker: Worker) -> None:
        del self._alive[worker]
        if worker.card is not None:
            self._on_card[worker.card] -= round(4 * SHARES[worker.kind])

    def submit(self, worker: Worker, job: Job) -> None:
        assert worker in self._alive
        self.jobs += 1
        mean = self._seconds[job.stage] * (0.25 if job.attempt > 1 else 1.0)
        seconds = mean * math.exp(self._random.gauss(-(SCATTER**2) / 2, SCATTER))
        share = SHARES[worker.kind]
        if self._random.random() < self._machines.failures / 10:
            self.stop(worker)
            self._later(seconds / 2, Event(worker, problem="the machine is gone"), None)
            return
        self._running[worker] = self.now, self.now + seconds, share
        if share:
            self.gpu_seconds += seconds * share
            self.busy += [(self.now, share), (self.now + seconds, -share)]
        self._later(seconds, Event(worker), job)

    def wait(self, seconds: float) -> list[Event]:
        if not self._scale:
            self._jumped = max(self._jumped, self._events[0][0])
        else:
            until = self._events[0][0] if self._events else self.now + seconds * self._scale
            left = min((until - self.now) / self._scale, seconds)
            if left > 0:
                time.sleep(left)
        found = []
        if self._machines.lost_at and not self._back_at and self.now >= self._machines.lost_at:
            self._back_at = self.now + LOST_SECONDS
            found += [self._lose(w) for w, machine in list(self._alive.items()) if machine == 0]
        while self._events and self._events[0][0] <= self.now:
            _, _, event, job = heapq.heappop(self._events)
            if event.worker not in self._alive and not event.problem:
                continue
            if job is not None:
                event = replace(event, rows=self._end(job))
                self._running.pop(event.worker, None)
            found.append(event)
        return found

    def _lose(self, worker: Worker) -> Event:
        """Lose a worker with its machine: what it did counts for nothing."""
        self.lost_workers += 1
        begin, end, share = self._running.pop(worker, (0.0, 0.0, 0.0))
        if share:
            self.gpu_seconds -= (end - begin) * share
            self.busy += [(self.now, -share), (end, share)]
        self.stop(worker)
        return Event(worker, problem="the machine is gone")

    def close(self) -> None:
        pass

    def lost(self, job: Job, problem: str) -> list[Row]:
        """Note that a worker was lost."""
        rows = self._rows.setdefault(job.clip.id, [])
        rows.append(Row(job.clip.id, job.stage, "lost", job.attempt, job.round, error=problem))
        return list(rows)

    def _end(self, job: Job) -> list[Row]:
        """Return the rows of a clip, with that of a job that has ended."""
        rows = self._rows.setdefault(job.clip.id, [])
        kind, _, stage = job.clip.uri.partition("@")
        state = "done"
        if stage == job.stage and (kind != "crashed-once" or job.attempt == 1):
            state = kind.removesuffix("-once")
        rows.append(Row(job.clip.id, job.stage, state, job.attempt, job.round))  # type: ignore
        return list(rows)

    def _later(self, seconds: float, event: Event, job: Job | None) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), event, job))


def clips_of(count: int, failures: float, seed: int) -> Iterator[Clip]:
    """Yield clips, of which some fail in one of six ways in some stage."""
    rng = random.Random(seed)
    kinds = ("bad-input", "poor", "crashed", "crashed-once", "out-of-memory", "timed-out")
    for number in range(count):
        stage = "ok"
        if rng.random() < failures:
            stage = f"{rng.choice(kinds)}@{rng.choice(STAGES)}"
        yield Clip(f"clip-{number:06d}", stage)


def simulate(machines: Machines, clips: int, scale: float, seed: int = 0) -> dict:
    """Run a simulation; return its figures.

    Returns:
        `utilisation` (share of the GPU time from the begin to the end in which stages ran),
        `utilisation_full` (the same while more than twice as many clips as GPUs were left),
        `hours`, `jobs`, counts of the ends in `ended`, and `curve`, GPUs that work over the time.
    """
    engine = Simulation(machines, scale, seed)
    ended: dict[str, str] = {}
    on_their_way, most = set[str](), 0
    full = 0.0

    def emit(row: Row) -> None:
        nonlocal full
        if row.ended:
            assert row.clip not in ended, "a clip ended twice"
            ended[row.clip] = row.ended
            on_their_way.discard(row.clip)
            if clips - len(ended) == 2 * engine.cards:
                full = engine.now

    def pending() -> Iterator[Pending]:
        nonlocal most
        for clip in clips_of(clips, machines.failures, seed):
            on_their_way.add(clip.id)
            most = max(most, len(on_their_way))
            yield Pending(clip)

    cpu = time.process_time()
    scheduler = Scheduler(engine, STAGES, NEEDS, emit, engine.lost)  # type: ignore[arg-type]
    scheduler.run(pending())
    total = engine.now
    expected = Counter(
        {"ok": "done", "crashed-once": "done"}.get(kind, kind)
        for kind in (c.uri.partition("@")[0] for c in clips_of(clips, machines.failures, seed))
    )
    counts = Counter(ended.values())
    curve, cards = _curve(engine.busy, total), max(1, engine.cards)
    area = sum(busy for at, busy in curve if at < full) * total / len(curve)
    return {
        "clips": clips,
        "gpus": engine.cards,
        "cpu_workers": engine.cpu_workers,
        "scale": scale,
        "hours": total / 3600,
        "clips_per_hour": 3600 * clips / total,
        "jobs": engine.jobs,
        "utilisation": engine.gpu_seconds / (cards * total),
        "utilisation_full": area / (cards * full) if full else None,
        "starting": engine.starting_seconds / (cards * total),
        "most_on_a_gpu": engine.most_on_card,
        "most_clips_on_their_way": most,
        "ended": dict(counts),
        "expected": dict(expected),
        "workers_lost_with_a_machine": engine.lost_workers,
        "nothing_lost": len(ended) == clips and counts == expected,
        "scheduler_cpu_seconds": time.process_time() - cpu,
        "curve": curve,
    }


def _curve(changes: list[tuple[float, float]], total: float) -> list[tuple[float, float]]:
    """Return the mean number of GPUs that work in 400 intervals, with their begins."""
    count, busy, last = 400, 0.0, 0.0
    sums = [0.0] * count

    def add(start: float, end: float, value: float) -> None:
        while start < end - 1e-9:
            at = min(count - 1, int(start / total * count))
            until = end if at == count - 1 else min(end, (at + 1) * total / count)
            until = max(until, start + 1e-6)
            sums[at] += value * (until - start)
            start = until

    for at, change in sorted(changes):
        add(last, min(at, total), busy)
        busy, last = busy + change, min(at, total)
    return [(i * total / count, s * count / total) for i, s in enumerate(sums)]


def plot(result: dict, path: Path) -> None:
    """Draw how many GPUs work over the time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    hours = [at / 3600 for at, _ in result["curve"]]
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    axes.fill_between(hours, [busy for _, busy in result["curve"]], step="post", color="#2f6fde")
    axes.axhline(result["gpus"], color="#5b6470", linewidth=0.8)
    axes.set(xlabel="hours", ylabel="GPUs that work", ylim=(0, 1.08 * result["gpus"]))
    axes.set_xlim(0, hours[-1])
    axes.set_title(
        f"{result['clips']} clips on {result['gpus']} GPUs: {100 * result['utilisation']:.1f} % "
        f"of the GPU time, {result['clips_per_hour']:.0f} clips an hour",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--machines", type=int, default=8)
    parser.add_argument("--gpus", type=int, default=8, help="of each machine")
    parser.add_argument("--cpu-workers", type=int, default=12, help="of each machine")
    parser.add_argument("--failures", type=float, default=0.01)
    parser.add_argument("--lost-at", type=float, default=4.0, help="hours; 0 for never")
    parser.add_argument("--scale", type=float, default=1000.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    machines = Machines(given.machines, given.gpus, given.cpu_workers, given.failures)
    machines = replace(machines, lost_at=3600 * given.lost_at)
    result = simulate(machines, given.clips, given.scale, given.seed)
    if given.plot:
        plot(result, given.plot)
    curve = result.pop("curve")
    if given.json:
        whole = {"machine": describe_machine(), **result, "seconds": SECONDS}
        whole["gpus_that_work"] = [round(busy, 2) for _, busy in curve[:: len(curve) // 100]]
        given.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    for name, value in result.items():
        print(f"{name:<24} {value}")
    return 0 if result["nothing_lost"] else 1


if __name__ == "__main__":
    sys.exit(main())
