"""Events: what a program that runs a command reads on stderr."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from msdyn import events, progress
from msdyn.cli.options import parse
from msdyn.cli.run import run
from msdyn.errors import InputError, ResourceError
from msdyn.options import Options
from msdyn.progress import Progress, end_progress, stage, track, write_line, write_note


@dataclass(frozen=True)
class Toy(Options):
    """A toy."""

    frames: int = 3
    """Frames."""


def read(text):
    """Return the events of a text, each line of which must be one."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def told(monkeypatch, capsys):
    """Return the events since the last call; time runs faster."""
    monkeypatch.setenv("TQDM_DISABLE", "1")  # json is asked for, so this does not count
    monkeypatch.delenv("MSDYN_PROGRESS", raising=False)
    for module, name, seconds in (
        (events, "BRIEF", 0.05),
        (events, "PERIOD", 0.05),
        (progress, "_TICK", 0.01),
    ):
        monkeypatch.setattr(module, name, seconds)
    yield lambda: read(capsys.readouterr().err)
    end_progress()
    events.choose("auto")
    while progress._Log.thread is not None:
        time.sleep(0.01)


def main(function, *arguments):
    config = parse(Toy, list(arguments), "msdyn-toy", "A toy.")
    return run(function, config)


def test_a_command_tells_what_it_does(told):
    def work(config):
        with stage("outer"):
            counted = Progress("fit", 8, start=2)
            with counted:
                counted.update(3)
                counted.show(loss="0.5")
                time.sleep(0.3)
                counted.update(3)
        write_line("path auto: spiral")

    assert main(work, "--progress", "json") == 0
    first, *middle, note, last = told()
    assert first.items() >= {"event": "start", "command": "msdyn-toy", "format": 1}.items()
    assert note.items() >= {"event": "note", "text": "path auto: spiral"}.items()
    assert last.items() >= {"event": "exit", "code": 0}.items()
    fit = [event for event in middle if event["stage"] == "fit"]
    assert fit[0]["event"] == "stage" and fit[0]["within"] == ["outer"]
    assert len(fit) >= 4 and {event["event"] for event in fit[1:-1]} == {"progress"}
    assert fit[1].items() >= {"done": 5, "total": 8, "unit": "step"}.items()
    assert fit[1]["figures"] == {"loss": "0.5"} and fit[1]["left"] > 0
    assert fit[-1]["event"] == "stage_end" and fit[-1]["done"] == 8 and not fit[-1]["failed"]
    outer = [event for event in middle if event["stage"] == "outer"]
    assert "unit" not in outer[1] and middle[0] is outer[0] and middle[-1] is outer[-1]
    assert all(a["time"] <= b["time"] for a, b in zip(middle, middle[1:], strict=False))


def test_brief_stages_are_not_told(told):
    def work(config):
        for _ in range(100):
            assert len(list(track(range(3), "short"))) == 3

    assert main(work, "--progress=json", "--frames=2") == 0
    assert [event["event"] for event in told()] == ["start", "exit"]


@pytest.mark.parametrize("error", [InputError("scene: expected\na folder"), ResourceError("full")])
def test_errors_are_events(told, error):
    def work(config):
        with stage("reading"):
            time.sleep(0.1)
            raise error

    code = main(work, "--progress", "json")
    *_, end, line, last = told()
    assert end.items() >= {"event": "stage_end", "failed": True}.items()
    assert line["event"] == "error" and line["text"] == " ".join(str(error).split())
    assert last["code"] == code == error.exit_code


def test_warnings_are_notes(told):
    def work(config):
        logging.getLogger("msdyn.fit.fitter").warning("warning: %s is poor", "scene")
        write_note("fit: 3 minutes")

    assert main(work, "--progress", "json") == 0
    assert [event.get("text") for event in told()[1:-1]] == [
        "warning: scene is poor",
        "fit: 3 minutes",
    ]


def test_options_that_are_refused(told):
    with pytest.raises(SystemExit) as end:
        main(None, "--progress", "json", "--frames", "x")
    start, error, last = told()
    assert (start["event"], error["event"], last["event"]) == ("start", "error", "exit")
    assert "--frames" in error["text"] and last["code"] == end.value.code == 2


@pytest.mark.parametrize("wrong", [["--progress", "xml"], ["--progress"], ["--progress="]])
def test_other_modes_are_refused(wrong, told, capsys):
    with pytest.raises(SystemExit) as end:
        main(None, *wrong)
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: --progress: expected one of auto, json, none, got ")
    assert line.count("\n") == 1


def test_the_environment_chooses_and_the_option_overrides(told, monkeypatch, capsys):
    def work(config):
        write_line("a line")

    monkeypatch.setenv("MSDYN_PROGRESS", "json")
    assert main(work) == 0
    assert [event["event"] for event in told()] == ["start", "note", "exit"]
    assert main(work, "--progress", "auto") == 0
    assert capsys.readouterr().err == "a line\n"
    monkeypatch.setenv("MSDYN_PROGRESS", "yaml")
    with pytest.raises(SystemExit):
        main(work)
    assert "MSDYN_PROGRESS: expected one of" in capsys.readouterr().err


def test_none_is_silent_but_for_errors(told, monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "0")

    def work(config):
        with stage("x", always=True):
            time.sleep(0.1)
        write_note("3 minutes")
        raise InputError("bad")

    assert main(work, "--progress", "none") == 2
    assert capsys.readouterr().err == "error: bad\n"


def test_messages_that_are_read_as_text(told, monkeypatch, capsys):
    """As `msdyn-batch` reads why the options of a command within its own are refused."""
    monkeypatch.setenv("MSDYN_PROGRESS", "json")
    events.choose()
    with events.as_text(), pytest.raises(SystemExit):
        main(None, "--progress", "json", "--frames", "x")
    assert capsys.readouterr().err.startswith("error: --frames")
    assert events.are_json()


def test_an_argument_after_two_dashes_is_no_option(told, capsys):
    with pytest.raises(SystemExit):
        main(None, "--", "--progress", "json")
    assert capsys.readouterr().err.startswith("error: ")


def test_an_interrupted_command_says_so(tmp_path):
    """SIGINT in a stage: a note, the exit with its code, and every line is an event."""
    code = """
import sys, time
import msdyn.cli
from msdyn.cli.options import parse
from msdyn.cli.run import run
from msdyn.options import Options
from dataclasses import dataclass
from msdyn.progress import stage
@dataclass(frozen=True)
class Toy(Options):
    frames: int = 3
def work(config):
    with stage("working"):
        print("ready", flush=True)
        time.sleep(60)
sys.exit(run(work, parse(Toy, ["--progress", "json"], "msdyn-toy", "A toy.")))
"""
    script = tmp_path / "msdyn-toy"
    script.write_text(code)
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.6)
        os.kill(process.pid, signal.SIGINT)
        told = read(process.stderr.read())
    assert process.returncode == 130
    assert [event["event"] for event in told[:2]] == ["start", "stage"]
    assert told[-2]["text"].startswith("interrupted; ")
    assert told[-1].items() >= {"event": "exit", "code": 130}.items()


def test_a_closed_stream_does_no_harm(told, monkeypatch):
    events.choose("json")
    with open(os.devnull, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
    with contextlib.closing(Progress("fit", 3)):
        time.sleep(0.1)
        events.emit("note", text="x")
