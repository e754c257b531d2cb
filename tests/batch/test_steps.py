"""The rules of what comes next for a clip."""

import pytest

from msdyn.batch import STAGES, Row
from msdyn.batch.steps import MOST_LOST, Ended, Step, next_step


def rows(*entries):
    """Return rows of (stage, state) or (stage, state, attempt)."""
    return [Row("a", stage, state, *attempt) for stage, state, *attempt in entries]


DONE = [(stage, "done") for stage in STAGES]
SECOND = [(stage, "done", 2) for stage in STAGES]


@pytest.mark.parametrize(
    "given, expected",
    [
        ([], Step("tracks", 1)),
        (DONE[:3], Step("refine", 1)),
        (DONE, Ended("done")),
        ([("tracks", "bad-input")], Ended("bad-input")),
        ([*DONE[:2], ("cameras", "poor")], Ended("poor")),
        ([*DONE[:5], ("fit", "timed-out")], Ended("timed-out")),
        # A crash and too much memory: once more, from the first stage on.
        ([*DONE[:5], ("fit", "crashed")], Step("tracks", 2)),
        ([*DONE[:5], ("fit", "crashed"), *SECOND[:2]], Step("cameras", 2)),
        ([*DONE[:5], ("fit", "out-of-memory"), *SECOND], Ended("done")),
        ([*DONE[:5], ("fit", "out-of-memory"), ("tracks", "crashed", 2)], Ended("crashed")),
        ([("tracks", "crashed"), ("tracks", "out-of-memory", 2)], Ended("out-of-memory")),
        # The machine refuses: the same stage, once more.
        ([("tracks", "refused")], Step("tracks", 1)),
        ([("tracks", "refused"), ("tracks", "done"), ("masks", "refused")], Step("masks", 1)),
        ([("tracks", "refused"), ("tracks", "refused")], Ended("refused")),
        # A lost worker: the same stage.
        ([*DONE[:2], ("cameras", "lost")], Step("cameras", 1)),
        ([("tracks", "lost")] * (MOST_LOST - 1), Step("tracks", 1)),
        ([("tracks", "lost")] * MOST_LOST, Ended("lost")),
        ([("tracks", "lost")] * (MOST_LOST - 1) + [*DONE[:1], ("masks", "lost")], Step("masks", 1)),
        # A late answer of a worker that was thought lost.
        ([("tracks", "crashed"), ("tracks", "done", 1)], Step("tracks", 2)),
    ],
)
def test_next_step(given, expected):
    assert next_step(rows(*given), STAGES) == expected


def test_fewer_stages():
    assert next_step(rows(("tracks", "done")), ("tracks",)) == Ended("done")
