"""Workers and what becomes of clips that crash, hang or eat memory."""

import json
import os
import signal
import threading
import time
from dataclasses import replace

import pytest
from batch_stages import options

from msdyn.batch import STAGES, Clip, Job, Supervisor
from msdyn.batch.steps import Step, next_step
from msdyn.batch.store import Store
from msdyn.batch.workspace import read_record
from msdyn.errors import MsdynError
from msdyn.writing import LOCK


@pytest.fixture
def supervisor(tmp_path):
    made = []

    def make(**given):
        made.append(Supervisor(options(tmp_path, **given), gpu_share=0.25))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def has_ended(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def through(supervisor, clip, number=0):
    """Run a clip to its end; return its rows."""
    rows, step = [], Step("tracks", 1)
    while isinstance(step, Step):
        rows = supervisor.run(Job(clip, step.stage, step.attempt, number))
        step = next_step(rows, STAGES)
    return rows, step.state


def test_a_clip_that_is_fine(tmp_path, supervisor):
    one = supervisor()
    rows, state = through(one, Clip("a", "ok", metadata={"robot": "arm"}))
    assert state == "done" and [row.stage for row in rows] == list(STAGES)
    assert (
        rows[-1].psnr == 21 and rows[0].verdict == "good" and rows[0].metadata == '{"robot": "arm"}'
    )
    assert all(row.gpu_seconds == row.seconds / 4 and row.peak_memory > 1e6 for row in rows)
    assert sorted(p.name for p in (tmp_path / "clips/a/scene").iterdir()) == sorted(STAGES)
    pid = one.pid
    rows, _ = through(one, Clip("b", "ok"))
    assert one.pid == pid, "the process stays, with what it has loaded"
    # The same job again is not run again.
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "clips/b").rglob("*") if p.is_file()}
    assert one.run(Job(Clip("b", "ok"), "tracks")) == rows
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "clips/b").rglob("*") if p.is_file()}
    assert after == before


@pytest.mark.parametrize(
    "uri, state, attempts, error",
    [
        ("bad@masks", "bad-input", 1, "bad: it is bad"),
        ("poor@cameras", "poor", 1, "poor"),
        ("crash@depth", "crashed", 2, "the process died (SIGABRT): Fatal Python error"),
        ("raise@fit", "crashed", 2, "an unexpected error; see log.txt"),
        ("die@fit", "lost", 1, "ended by another program"),
    ],
)
def test_clips_that_fail(tmp_path, supervisor, uri, state, attempts, error):
    one = supervisor()
    rows, end = through(one, Clip("a", uri))
    assert end == state and rows[-1].state == state and rows[-1].attempt == attempts
    assert error in rows[-1].error and "\n" not in rows[-1].error and rows[-1].error_class
    assert rows[-1].stage == uri.partition("@")[2] and rows[-1].smaller == (attempts == 2)
    assert list(read_record(Store(str(tmp_path)), Clip("a", uri)).rows) == rows
    assert f"== {rows[-1].stage}, attempt {attempts}" in (tmp_path / "clips/a/log.txt").read_text()
    assert through(one, Clip("b", "ok"))[1] == "done", "the next clip is not touched"


def test_smaller_images_help(supervisor):
    rows, state = through(supervisor(), Clip("a", "crash@first"))
    assert state == "done"
    assert [row.attempt for row in rows] == [1] * 6 + [2] * 7
    assert rows[-1].smaller and not rows[0].smaller


def test_memory_is_limited(supervisor):
    one = supervisor(max_memory=400_000_000)
    rows, state = through(one, Clip("a", "eat@masks"))
    assert state == "out-of-memory"
    assert [row.stage for row in rows if row.state == "out-of-memory"] == ["masks", "masks"]
    assert 400e6 < rows[-1].peak_memory < 2e9 and "more than the 400 MB" in rows[-1].error
    assert rows[-1].smaller
    assert through(one, Clip("b", "ok"))[1] == "done"


def test_time_is_limited(supervisor):
    one = supervisor(time_limit=1.0)
    rows, state = through(one, Clip("a", "hang@tracks"))
    assert state == "timed-out" and len(rows) == 1
    assert 1 < rows[0].seconds < 60 and "--time-limit 1" in rows[0].error
    assert through(one, Clip("b", "ok"))[1] == "done"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_costs_its_stage_only(tmp_path, supervisor, number):
    one, results = supervisor(), []
    log = tmp_path / "clips/a/log.txt"
    thread = threading.Thread(target=lambda: results.append(through(one, Clip("a", "slow@0.5"))))
    thread.start()
    while not (log.is_file() and "cameras of a" in log.read_text()):
        assert thread.is_alive()
        time.sleep(0.02)
    os.kill(one.pid, number)
    thread.join(60)
    rows, state = results[0]
    assert state == "done"
    states = [(row.stage, row.state) for row in rows]
    done = [(stage, "done") for stage in STAGES]
    assert states == [*done[:2], ("cameras", "lost"), *done[2:]]
    assert {row.attempt for row in rows} == {1}


def test_the_process_ends_with_its_supervisor(supervisor):
    one = supervisor()
    one.run(Job(Clip("a", "ok"), "tracks"))
    pid = one.pid
    assert one._process is not None and one._process.stdin is not None
    one._process.stdin.close()
    one._process.wait(20)
    assert has_ended(pid)


def test_a_worker_that_does_not_start(tmp_path):
    one = Supervisor(replace(options(tmp_path), command=("sh", "-c", "echo no >&2; exit 3")))
    with pytest.raises(MsdynError, match="a worker did not start: no"):
        one.run(Job(Clip("a", "ok"), "tracks"))
    one = Supervisor(replace(options(tmp_path), command=("sh", "-c", "echo what; sleep 9")))
    with pytest.raises(MsdynError, match="a worker did not start: what"):
        one.run(Job(Clip("a", "ok"), "tracks"))


def test_a_machine_that_was_lost_leaves_locks(tmp_path, supervisor):
    """In a folder that machines share, what another one has locked is taken over."""
    other = {"pid": 1, "began": 2, "boot": "other", "space": "x", "host": "elsewhere"}
    for folder in (tmp_path / "clips/a", tmp_path / "clips/a/scene"):
        folder.mkdir(parents=True)
        (folder / LOCK).write_text(json.dumps(other | {"command": "x", "since": "x"}))
    rows, state = through(supervisor(), Clip("a", "ok", metadata={"robot": "arm"}))
    assert state == "done" and len(rows) == 7
    assert not (tmp_path / "clips/a" / LOCK).exists()
    assert json.loads((tmp_path / "clips/a/clip.json").read_text())["metadata"] == {"robot": "arm"}


def test_files_elsewhere(tmp_path, supervisor, s3):
    """In a store that is not of this machine files are fetched, and stored when they change."""
    scratch, clip = tmp_path / "scratch", Clip("a", "crash@first")
    one = Supervisor(options(f"{s3}/run", scratch))
    rows, state = through(one, clip)
    one.stop()
    assert state == "done" and len(rows) == 13
    here = supervisor()
    assert [row.state for row in through(here, clip)[0]] == [row.state for row in rows]
    stores = Store(f"{s3}/run"), Store(str(tmp_path))
    names = [[n for n in store.names("clips", deep=True)] for store in stores]
    assert names[0] == names[1] and len(names[0]) == 3 + 5 + 7
    for name in names[0]:
        if "/scene/" in name:
            assert stores[0].read(name) == stores[1].read(name)
    assert not list(scratch.glob("*/a")), "scratch files are removed at the end"
    assert rows[0].uri == f"{s3}/run/clips/a"
