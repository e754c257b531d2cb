"""What comes next for a clip, from the rows of what was run: pure functions, the rules of retries.

A crash and too much memory are tried twice, the second time from the first stage on with images of
half the size. What the machine refuses, as a full disk, is tried twice as it is. A worker that is
lost is not the clip's fault: the stage runs again, up to `MOST_LOST` times in a row. Bad input,
poor geometry and a stage that takes too long are not tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msdyn.batch.clips import Row, StageName, State

__all__ = ["CURES", "MOST_LOST", "Ended", "Step", "next_step"]

MOST_LOST = 5
"""Times in a row that the worker of a clip may be lost before the clip is given up."""
_TRIES = 2

CURES: dict[str, str] = {
    "bad-input": "mend the video or the options, then msdyn-batch retry --only bad-input",
    "poor": "see the clip's report; msdyn-batch retry --only poor with other options, such as "
    "--preprocess '--accept-poor'",
    "crashed": "see the clip's log.txt",
    "out-of-memory": "msdyn-batch retry --only out-of-memory with a larger --max-memory, or with "
    "--preprocess '--long-side 320'",
    "timed-out": "msdyn-batch retry --only timed-out with a larger --time-limit",
    "refused": "see the error; make room on the disk, then msdyn-batch retry --only refused",
    "lost": "its workers were lost each time: see to the machines, then msdyn-batch retry",
}
"""What to do about clips in quarantine, by their reason."""


@dataclass(frozen=True)
class Step:
    """The stage to run next."""

    stage: StageName
    attempt: int


@dataclass(frozen=True)
class Ended:
    """The clip has ended: `done`, or the reason why it is in quarantine."""

    state: State


def next_step(rows: Sequence[Row], stages: Sequence[StageName]) -> Step | Ended:
    """Return what comes next for a clip.

    Args:
        rows: of one round of the clip, in the order in which they were made.
        stages: of the batch, in their order.
    """
    done: set[str] = set()
    attempt, refusals, losses = 1, 0, 0
    for row in rows:
        if row.attempt < attempt:
            continue  # of a worker that was thought lost
        match row.state:
            case "done":
                done.add(row.stage)
                refusals = losses = 0
            case "crashed" | "out-of-memory":
                attempt, refusals, losses = row.attempt + 1, 0, 0
                done.clear()
                if attempt > _TRIES:
                    return Ended(row.state)
            case "refused":
                refusals += 1
                if refusals >= _TRIES:
                    return Ended("refused")
            case "lost":
                losses += 1
                if losses >= MOST_LOST:
                    return Ended("lost")
            case _:
                return Ended(row.state)
    for stage in stages:
        if stage not in done:
            return Step(stage, attempt)
    return Ended("done")
