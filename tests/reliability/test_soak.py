"""A batch of clips over two hours in one process: nothing grows, and all results stay the same.

The seconds are those of MSDYN_SOAK, 7200 by default.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import soak
from soak import Round, faults

SECONDS = float(os.environ.get("MSDYN_SOAK", "7200"))


def rounds(count, **changes):
    """Return rounds of which those from the fourth on differ by `changes`, functions of numbers."""
    first = Round(1, 1.0, 800.0, 10, 5, 0, 2, {"a": "1"}, {"signals": "x"}, [])
    each = [replace(first, number=number) for number in range(1, count + 1)]
    for name, change in changes.items():
        each[3:] = [replace(r, **{name: change(r.number)}) for r in each[3:]]
    return each


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"threads": lambda number: number}, "threads: 5 after round 3, later up to 20"),
        ({"descriptors": lambda number: 11}, "descriptors: 10 after round 3, later up to 11"),
        ({"memory": lambda number: 800 + number}, "memory: grows by 1.00 MB per round"),
        ({"digests": lambda number: {"a": "2"}}, "a: other bytes in rounds [4, "),
        ({"digests": lambda number: {}}, "a: other bytes in rounds [4, "),
        ({"state": lambda number: {"signals": "y"}}, "signals: changed in rounds [4, "),
        ({"wrong": lambda number: ["exit code"] * (number == 7)}, "round 7: exit code"),
    ],
)
def test_what_grows_or_changes_is_found(changes, line):
    (found,) = faults(rounds(20, **changes))
    assert found.startswith(line)


def test_what_stays_or_shrinks_is_no_fault():
    assert faults(rounds(20)) == []
    noise = {"memory": lambda number: 800 + number % 3 * 40, "threads": lambda number: 4}
    assert faults(rounds(30, **noise)) == []


@pytest.mark.reliability
def test_soak(tmp_path):
    with (tmp_path / "rounds.log").open("w+") as log:
        done = subprocess.run(
            [sys.executable, soak.__file__, tmp_path / "soak", "--seconds", str(SECONDS)],
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=SECONDS + 1800,
        )
        log.seek(0)
        each = [Round(**json.loads(line)) for line in log]
    print(done.stderr)
    assert len(each) >= 3 and faults(each) == []
    assert done.returncode == 0
