"""Progress: lines in logs, bars on terminals, silence nowhere."""

import contextlib
import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios
import time

import pytest

from msdyn import progress
from msdyn.progress import Progress, end_progress, stage, track, write_line


@pytest.fixture
def shown(monkeypatch, capsys):
    """Return what has been shown, on a stream that is no terminal; time runs faster."""
    monkeypatch.setenv("TQDM_DISABLE", "0")
    for name, seconds in (("SILENCE", 0.05), ("PERIOD", 0.2), ("_SHORT", 0.1), ("_TICK", 0.01)):
        monkeypatch.setattr(progress, name, seconds)
    monkeypatch.setattr(progress._Log, "last", time.monotonic())
    yield lambda: capsys.readouterr().err
    end_progress()
    while progress._Log.thread is not None:
        time.sleep(0.01)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_long_stage_is_named_followed_and_ended(shown):
    with Progress("fit", 240, start=40) as counted:
        time.sleep(0.1)
        counted.update(50)
        counted.show(loss="0.5")
        time.sleep(0.35)
    first, *middle, last = shown().splitlines()
    assert first == "fit ..."
    assert middle and re.match(
        r"fit: 90 of 240 steps, \d s, about \d+ s left, loss 0.5$", middle[0]
    )
    assert re.match(r"fit: 50 steps in \d\.\d s, loss 0.5$", last)


def test_a_call_that_blocks_is_not_silent(shown):
    with stage("solving"):
        time.sleep(0.6)
    text = shown()
    lines = text.splitlines()
    assert lines[0] == "solving ..." and len(lines) >= 3
    assert all(re.match(r"solving: \d s$", line) for line in lines[1:-1])
    assert "\r" not in text and "\x1b" not in text


@pytest.fixture
def patient(shown, monkeypatch):
    """Return what has been shown; no stage is long, however slow the machine."""
    for name in ("SILENCE", "PERIOD", "_SHORT"):
        monkeypatch.setattr(progress, name, 60)
    return shown


def test_short_stages_are_not_listed_one_by_one(patient):
    for _ in range(5):
        assert list(track(range(3), "short")) == [0, 1, 2]
    assert patient() == ""
    with stage("named", always=True):
        pass
    assert re.match(r"named: \d\.\d s\n$", patient())


def test_a_stage_within_one_of_its_name_is_told_once(shown, monkeypatch):
    monkeypatch.setattr(progress, "PERIOD", 60)
    with stage("masks", always=True):
        for _ in track(range(4), "masks"):
            time.sleep(0.04)
    assert re.match(r"masks \.\.\.\nmasks: \d\.\d s\n$", shown())


def test_a_failed_stage_is_not_said_to_be_done(patient):
    with pytest.raises(ValueError), stage("tracks", always=True):
        raise ValueError
    for _ in track(range(3), "left early"):
        break
    assert patient() == "" and not progress._active


def test_a_terminal_has_a_bar_that_vanishes(shown, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with stage("outer"):
        for number in track(range(3), "render", unit="image"):
            time.sleep(0.05)
            if number == 1:
                write_line("path auto: spiral")
    text = terminal.getvalue()
    assert "render" in text and "0/3" in text and "path auto: spiral\n" in text
    assert text.split("\r")[-1].strip() in ("", "\x1b[A") or text.endswith("s\n")


@pytest.mark.parametrize("value", ["1", "true"])
def test_it_can_be_switched_off(value, shown, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", value)
    with stage("x", always=True):
        time.sleep(0.1)
    assert shown() == ""


def test_counting_begins_again(shown):
    with Progress("cameras", 5) as counted:
        counted.update(4)
        counted.restart(8)
        assert (counted.done, counted.total) == (0, 8)
        time.sleep(0.3)
    assert "cameras: 0 s\n" not in shown()


def test_an_open_stage_does_not_keep_a_process_alive():
    code = "from msdyn.progress import stage; stage('x'); raise SystemExit(3)"
    run = subprocess.run([sys.executable, "-c", code], check=False, timeout=20)
    assert run.returncode == 3


@pytest.mark.parametrize(("rows", "bar"), [(0, False), (30, True)])
def test_a_terminal_without_a_size_has_lines(rows, bar, monkeypatch):
    """As terminals made by programs have none, where a bar would not be drawn."""
    code = "import time; from msdyn.progress import stage\nwith stage('x'): time.sleep(1.5)"
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80 if rows else 0, 0, 0))
    monkeypatch.setenv("TQDM_DISABLE", "0")
    monkeypatch.setenv("TERM", "xterm")
    subprocess.run([sys.executable, "-c", code], check=True, stderr=follower)
    os.close(follower)
    text = b""
    with contextlib.suppress(OSError):  # the end
        while part := os.read(leader, 4096):
            text += part
    os.close(leader)
    assert (b"x ..." in text) is not bar and (b": 00:0" in text) is bar, text
