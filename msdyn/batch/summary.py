"""What came of a batch so far: counts, times and examples, from its rows."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from msdyn.batch.clips import STAGES, Row
from msdyn.batch.results import ClipEnds

__all__ = ["StageFigures", "Summary"]

_EXAMPLES = 12
_LATEST = 24


@dataclass
class StageFigures:
    """Figures of a stage.

    Attributes:
        done, failed: tries that ended so.
        seconds, cpu_seconds, gpu_seconds: of all of them.
        longest: seconds.
        peak_memory: bytes.
    """

    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    longest: float = 0.0
    peak_memory: int = 0

    def add(self, row: Row) -> None:
        """Count a row."""
        self.done += row.state == "done"
        self.failed += row.state != "done"
        self.seconds += row.seconds
        self.cpu_seconds += row.cpu_seconds
        self.gpu_seconds += row.gpu_seconds
        self.longest = max(self.longest, row.seconds)
        self.peak_memory = max(self.peak_memory, row.peak_memory)


@dataclass
class Summary:
    """Figures of a batch. Memory grows with the clips in quarantine only.

    Attributes:
        ends: how each clip ended.
        stages: figures of each stage.
        counts: clips by how they ended: `done`, or the reason of their quarantine.
        verdicts: clips by the verdict on their scene.
        quarantine: the last row of each clip that is in it.
        latest: the last clips that were done.
        first, last: seconds since the epoch: the begin of the first stage, the end of the last.
    """

    ends: ClipEnds
    stages: dict[str, StageFigures] = field(
        default_factory=lambda: {stage: StageFigures() for stage in STAGES}
    )
    counts: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    quarantine: dict[str, Row] = field(default_factory=dict)
    latest: deque[Row] = field(default_factory=lambda: deque(maxlen=_LATEST))
    first: float = 0.0
    last: float = 0.0
    _slowest: list[tuple[float, str, Row]] = field(default_factory=list)
    _worst: list[tuple[float, str, Row]] = field(default_factory=list)
    _seconds: dict[str, float] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Count a row."""
        self.stages.setdefault(row.stage, StageFigures()).add(row)
        self.first = min(self.first or row.started, row.started)
        self.last = max(self.last, row.started + row.seconds)
        self._seconds[row.clip] = self._seconds.get(row.clip, 0.0) + row.seconds
        if not row.ended:
            return
        before = self.ends.end(row)
        if before:
            self.counts[before] -= 1
            self.quarantine.pop(row.clip, None)
        self.counts[row.ended] += 1
        seconds = self._seconds.pop(row.clip)
        if row.ended != "done":
            self.quarantine[row.clip] = row
            return
        self.latest.append(row)
        if row.verdict:
            self.verdicts[row.verdict] += 1
        _keep(self._slowest, (seconds, row.clip, row))
        if row.psnr is not None:
            _keep(self._worst, (-row.psnr, row.clip, row))

    def add_all(self, rows: Iterable[Row]) -> Summary:
        """Count rows; return this summary."""
        for row in rows:
            self.add(row)
        return self

    @property
    def done(self) -> int:
        """Clips that are done."""
        return self.counts["done"]

    @property
    def quarantined(self) -> int:
        """Clips in quarantine."""
        return sum(self.counts.values()) - self.done

    @property
    def slowest(self) -> list[tuple[float, Row]]:
        """The slowest clips, with their seconds, of those that are done."""
        return [(seconds, row) for seconds, _, row in sorted(self._slowest, reverse=True)]

    @property
    def worst(self) -> list[tuple[float, Row]]:
        """The clips with the lowest PSNR of frames kept out of the fit, with it."""
        return [(-value, row) for value, _, row in sorted(self._worst, reverse=True)]

    @property
    def seconds(self) -> float:
        """From the begin of the first stage to the end of the last, s."""
        return max(0.0, self.last - self.first)

    @property
    def clips_per_hour(self) -> float:
        """Clips that have ended, of each hour since the begin of the first stage."""
        return 3600 * sum(self.counts.values()) / self.seconds if self.seconds else 0.0

    def per_clip(self, name: str) -> float:
        """Return seconds of all stages over the clips that are done: what a clip costs.

        Args:
            name: seconds, cpu_seconds or gpu_seconds.
        """
        total = sum(getattr(figures, name) for figures in self.stages.values())
        return total / self.done if self.done else 0.0


def _keep(heap: list[tuple[float, str, Row]], entry: tuple[float, str, Row]) -> None:
    """Keep the largest entries."""
    if len(heap) < _EXAMPLES:
        heapq.heappush(heap, entry)
    else:
        heapq.heappushpop(heap, entry)
