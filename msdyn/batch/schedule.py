"""Which clip runs where next.

Clips that are furthest run first, and no more clips are begun than keep the workers busy, so that
neither disks nor queues fill up. A GPU is used as a whole by fits, or in four parts by networks; it
changes from one to the other when all of its workers are idle and only the other kind has work. As
the number of clips on their way is limited, either kind runs out of work when it has too many GPUs,
so that their division follows from the clips. Work without GPUs has workers of its own: no GPU
waits for it while other clips are ready.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from msdyn.batch.clips import Clip, Job, Row, StageName
from msdyn.batch.engine import PARTS, Engine, Event, Worker
from msdyn.batch.steps import Ended, Step, next_step
from msdyn.batch.supervisor import Kind
from msdyn.errors import ResourceError

__all__ = ["Pending", "Scheduler"]

_WAIT_SECONDS = 1.0
_WORKERS: dict[Kind, int] = {"part": PARTS, "gpu": 1}
"""Workers on a GPU."""
_PROBLEMS = 3
"""Problems in a row, per worker, after which something is wrong with all of them."""
_LOOKED_AT = 8
"""First jobs of a queue among which one is sought whose files are on the worker's machine."""


@dataclass
class Pending:
    """A clip that is to be run.

    Attributes:
        clip: the clip.
        round: of the clip.
        known: rows of this round that are in the results already.
        host: machine of its last stage.
    """

    clip: Clip
    round: int = 0
    known: int = 0
    host: str = ""


@dataclass
class _Card:
    """A GPU: what its workers are, and which of them are free."""

    number: int
    kind: Kind | None = None
    workers: int = 0
    free: list[Worker] = field(default_factory=list)

    @property
    def starting(self) -> int:
        """How many of its workers are not ready yet."""
        return (0 if self.kind is None else _WORKERS[self.kind]) - self.workers

    @property
    def idle(self) -> bool:
        """Whether all of its workers are ready and free."""
        return len(self.free) == self.workers and not self.starting


class Scheduler:
    """Runs the stages of clips on the workers of an engine."""

    def __init__(
        self,
        engine: Engine,
        stages: Sequence[StageName],
        needs: Mapping[StageName, Kind],
        emit: Callable[[Row], None],
        lost: Callable[[Job, str], Sequence[Row]],
        *,
        ahead: int | None = None,
    ) -> None:
        """Take what runs, and where.

        Args:
            engine: with the workers.
            stages: of each clip, in their order.
            needs: the kind of worker for each stage; without GPUs all of them are `cpu`.
            emit: is given each new row, with `ended` set where the clip has ended.
            lost: notes in the clip's record that the worker of a job was lost, with the reason;
                returns the rows of the round.
            ahead: clips on their way at a time; by default twice as many as there are workers.
        """
        self._engine, self._stages, self._emit, self._lost = engine, tuple(stages), emit, lost
        self._needs: dict[StageName, Kind] = {
            stage: needs[stage] if engine.cards else "cpu" for stage in stages
        }
        self._queues: dict[Kind, list[deque[tuple[Pending, Job]]]] = {
            kind: [deque() for _ in stages] for kind in ("cpu", "part", "gpu")
        }
        self._waiting: dict[Kind, int] = {"cpu": 0, "part": 0, "gpu": 0}
        self._running: dict[Worker, tuple[Pending, Job]] = {}
        self._hosts: dict[Worker, str] = {}
        self._free: list[Worker] = []
        self._cpu_count = 0
        self._cards = [_Card(number) for number in range(engine.cards)]
        self._slots = engine.cpu_workers + (PARTS + 1) * engine.cards
        self._ahead = 2 * self._slots if ahead is None else ahead
        self._on_their_way = 0
        self._number = 0
        self._problems = 0

    def run(self, clips: Iterator[Pending], tick: Callable[[], None] = lambda: None) -> None:
        """Run all clips to their end.

        Args:
            clips: taken one by one, when there is room for one.
            tick: called after each round of events, at least every second.

        Raises:
            ResourceError: the workers fail one after the other.
        """
        more = True
        while True:
            while more and self._on_their_way < self._ahead:
                pending = next(clips, None)
                if pending is None:
                    more = False
                    break
                self._on_their_way += 1
                # A worker finds in the clip's record what was done before.
                self._enqueue(pending, Step(self._stages[0], 1))
            self._assign()
            if not more and not self._on_their_way:
                return
            for event in self._engine.wait(_WAIT_SECONDS):
                self._take(event)
            tick()

    @property
    def busy(self) -> int:
        """How many workers have a job."""
        return len(self._running)

    def _enqueue(self, pending: Pending, step: Step) -> None:
        job = Job(pending.clip, step.stage, step.attempt, pending.round)
        kind = self._needs[step.stage]
        self._queues[kind][self._stages.index(step.stage)].append((pending, job))
        self._waiting[kind] += 1

    def _next(self, worker: Worker) -> tuple[Pending, Job]:
        """Take the next job for a worker: of the last stage that has any, if possible its own."""
        queue = next(queue for queue in reversed(self._queues[worker.kind]) if queue)
        self._waiting[worker.kind] -= 1
        host = self._hosts.get(worker, "")
        for index in range(min(len(queue), _LOOKED_AT)):
            if host and queue[index][0].host == host:
                found = queue[index]
                del queue[index]
                return found
        return queue.popleft()

    def _assign(self) -> None:
        """Give jobs to free workers, and start or change workers where there is work for them."""
        while self._free and self._waiting["cpu"]:
            self._submit(self._free.pop())
        starting = self._cpu_count - len(self._free) - self._busy_cpu()
        while self._cpu_count < self._engine.cpu_workers and self._waiting["cpu"] > starting:
            self._cpu_count += 1
            starting += 1
            self._start("cpu", None)
        if not self._cards:
            return
        # The fullest first, so that others become idle as a whole.
        for card in sorted(self._cards, key=lambda card: len(card.free)):
            while card.kind and card.free and self._waiting[card.kind]:
                self._submit(card.free.pop())
        kinds: tuple[Kind, Kind] = ("gpu", "part")
        for kind in kinds:
            coming = sum(card.starting for card in self._cards if card.kind == kind)
            for card in self._cards:
                if self._waiting[kind] <= coming:
                    break
                if card.kind != kind and card.idle:
                    self._change(card, kind)
                    coming += card.starting

    def _busy_cpu(self) -> int:
        return sum(worker.kind == "cpu" for worker in self._running)

    def _change(self, card: _Card, kind: Kind) -> None:
        """Replace the workers of a card."""
        for worker in card.free:
            self._hosts.pop(worker, None)
            self._engine.stop(worker)
        card.free.clear()
        card.kind, card.workers = kind, 0
        for _ in range(_WORKERS[kind]):
            self._start(kind, card.number)

    def _start(self, kind: Kind, card: int | None) -> None:
        self._number += 1
        self._engine.start(Worker(self._number, kind, card))

    def _submit(self, worker: Worker) -> None:
        pending, job = self._next(worker)
        self._running[worker] = (pending, job)
        self._engine.submit(worker, job)

    def _take(self, event: Event) -> None:
        worker = event.worker
        if event.ready:
            self._hosts[worker] = event.host
            if worker.card is not None:
                self._cards[worker.card].workers += 1
            self._free_again(worker)
            return
        taken = self._running.pop(worker, None)
        if event.problem:
            self._gone(worker, event.problem, taken)
            return
        assert taken is not None
        self._problems = 0
        pending, _ = taken
        pending.host = self._hosts.get(worker, "")
        self._free_again(worker)
        self._go_on(pending, event.rows)

    def _free_again(self, worker: Worker) -> None:
        (self._free if worker.card is None else self._cards[worker.card].free).append(worker)

    def _gone(self, worker: Worker, problem: str, taken: tuple[Pending, Job] | None) -> None:
        """Replace a worker that is gone, and run its job again.

        Raises:
            ResourceError: too many were lost one after the other.
        """
        was_ready = self._hosts.pop(worker, None) is not None
        free = self._free if worker.card is None else self._cards[worker.card].free
        if worker in free:
            free.remove(worker)
        self._problems += 1
        if self._problems > _PROBLEMS * max(1, self._slots):
            raise ResourceError(
                f"the workers fail one after the other; the last one: {problem}; mend that, and "
                "give the same command again"
            )
        if worker.card is None:
            self._cpu_count -= 1
        elif was_ready:
            self._cards[worker.card].workers -= 1
        if worker.card is not None:
            self._start(worker.kind, worker.card)
        if taken is None:
            return
        pending, job = taken
        self._go_on(pending, self._lost(job, problem))

    def _go_on(self, pending: Pending, rows: Sequence[Row]) -> None:
        """Emit the new rows of a clip, and put it in the queue of its next stage."""
        step = next_step(rows, self._stages)
        new = list(rows[pending.known :])
        pending.known = max(pending.known, len(rows))
        if isinstance(step, Ended):
            if new:
                new[-1] = replace(new[-1], ended=step.state)
            self._on_their_way -= 1
        for row in new:
            self._emit(row)
        if isinstance(step, Step):
            self._enqueue(pending, step)
