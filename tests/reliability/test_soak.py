"""A batch of clips over two hours in one process: nothing grows, and all results stay the same.

The seconds are those of MSDYN_SOAK, 7200 by default.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace

import pytest
import soak
from commands import exit_code
from soak import Round, faults

from msdyn.cli import export, fit, preprocess, render

SECONDS = float(os.environ.get("MSDYN_SOAK", "7200"))


def rounds(count, **changes):
    """Return rounds of which those from the fourth on differ by `changes`, functions of numbers."""
    first = Round(1, 1.0, 800.0, 200.0, 10, 5, 0, 2, {"a": "1"}, {"signals": "x"}, [])
    each = [replace(first, number=number) for number in range(1, count + 1)]
    for name, change in changes.items():
        each[3:] = [replace(r, **{name: change(r.number)}) for r in each[3:]]
    return each


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"threads": lambda number: number}, "threads: 5 after round 3, later up to 20"),
        ({"descriptors": lambda number: 11}, "descriptors: 10 after round 3, later up to 11"),
        ({"in_use": lambda number: 200 + 2 * number}, "in_use: grows by 2.00 MB per round"),
        ({"resident": lambda number: 800 + 9 * number}, "resident: grows by 9.00 MB per round"),
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
    noise = {
        "resident": lambda number: 800 + number % 3 * 40 + number,
        "in_use": lambda number: 200 + number % 2 + number / 10,
        "threads": lambda number: 4,
    }
    assert faults(rounds(30, **noise)) == []


def test_quick_commands_leave_nothing_behind(fitted_plane_scene, tmp_path, monkeypatch):
    """A few rounds of what takes no time, in the process of the tests."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    scene = tmp_path / "scene"
    shutil.copytree(fitted_plane_scene, scene)
    (tmp_path / "damaged.mp4").write_bytes(b"\0" * 100)
    found = []
    for number in range(1, 5):
        codes = [
            exit_code(render.main, [scene, "--time", "0.5", "--out", scene / "middle.png"]),
            exit_code(export.main, [scene, "--format", "ply"]),
            exit_code(render.main, [scene, "--time", "2"]),
            exit_code(preprocess.main, [tmp_path / "damaged.mp4", "--out", tmp_path / "other"]),
            exit_code(fit.main, [tmp_path, "--device", "cpu"]),
        ]
        wrong = [] if codes == [0, 0, 2, 2, 2] else [f"codes {codes}"]
        wrong += [path.name for path in scene.rglob(".*") if path.is_file()]
        digest = hashlib.sha256((scene / "middle.png").read_bytes()).hexdigest()
        found.append(soak.measured(number, 0.0, {"middle.png": digest}, wrong))
    assert faults(found) == []


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
