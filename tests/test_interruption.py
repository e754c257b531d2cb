"""Ends of processes by signals, in real processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from msdyn.interruption import postponed

START = """
import os, signal, sys, time
from pathlib import Path
from msdyn import interruption
from msdyn.writing import atomic_path
interruption.install()
def ready():
    print("ready", flush=True)
"""


def start(body, *arguments, **options):
    """Start a process with our handlers, which runs `body`; return it when it says "ready"."""
    process = subprocess.Popen(
        [sys.executable, "-c", START + body, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        **options,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    "number, word, code",
    [
        (signal.SIGINT, "interrupted", 130),
        (signal.SIGTERM, "terminated", 143),
        (signal.SIGHUP, "hung up", 129),
    ],
)
def test_a_signal_removes_what_is_half_written(tmp_path, number, word, code):
    process = start(
        "with atomic_path(sys.argv[1]) as path:\n"
        "    path.write_text('half'); interruption.tell('step 3 is saved'); ready()\n"
        "    while True: pass",
        tmp_path / "a.txt",
    )
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(number)
    out, error = process.communicate(timeout=10)
    assert (process.returncode, out, error) == (code, "", f"{word}; step 3 is saved\n")
    assert not list(tmp_path.iterdir())


def test_compiled_code_is_not_waited_for():
    process = start("import hashlib; ready(); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)")
    time.sleep(0.1)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=10)[1]
    assert process.returncode == 130 and len(error.splitlines()) == 1
    assert time.monotonic() - begin < 3


SAVING = """
with interruption.postponed() as asked:
    ready()
    while not asked(): time.sleep(0.01)
    ready()
    time.sleep(float(sys.argv[2]))
    Path(sys.argv[1]).write_text("saved"); interruption.tell("it is saved")
print("never reached")
"""


def test_a_postponed_end_saves_first(tmp_path):
    process = start(SAVING, tmp_path / "a", 0)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=10)
    assert (process.returncode, out, error) == (143, "ready\n", "terminated; it is saved\n")
    assert (tmp_path / "a").read_text() == "saved"


def test_a_second_signal_is_not_postponed(tmp_path):
    process = start(SAVING, tmp_path / "a", 60)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=10)[1]
    assert process.returncode == 130 and len(error.splitlines()) == 1
    assert not (tmp_path / "a").exists()


def test_threads_and_children_end_too(tmp_path):
    process = start(
        "import multiprocessing as mp, threading\n"
        "def work():\n"
        "    with atomic_path(sys.argv[1]) as path:\n"
        "        path.write_text('half')\n"
        "        while True: time.sleep(1)\n"
        "threading.Thread(target=work).start()\n"
        "child = mp.get_context('fork').Process(target=time.sleep, args=(60,)); child.start()\n"
        "while not list(Path(sys.argv[1]).parent.iterdir()): time.sleep(0.01)\n"
        "print('ready', flush=True); print(child.pid, flush=True); child.join()",
        tmp_path / "a.txt",
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=10)[1]
    assert process.returncode == 143 and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(child, 0)
            time.sleep(0.02)


def test_a_signal_to_a_forked_child_leaves_the_parents_files(tmp_path):
    process = start(
        "import warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"  # of fork, since Python 3.12
        "with atomic_path(sys.argv[1]) as path:\n"
        "    path.write_text('whole'); ready()\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        time.sleep(60)\n"
        "    time.sleep(0.2); os.kill(child, signal.SIGTERM)\n"
        "    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "    time.sleep(1.0); print(code)",
        tmp_path / "a.txt",
    )
    out, error = process.communicate(timeout=10)
    assert (process.returncode, out, error) == (0, "143\n", "")
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_ignored_signals_stay_ignored():
    code = START.replace("\ninter", "\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\ninter")
    process = subprocess.run(
        [sys.executable, "-c", code + "os.kill(os.getpid(), signal.SIGHUP); print('here')"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout == "here\n"


def test_outside_of_commands_the_signal_comes_after_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with postponed() as asked:
            signal.raise_signal(signal.SIGINT)
            done.append(asked())
        done.append("too far")
    assert done == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_at_the_end_of_the_interpreter_is_ignored():
    """A finished command exits with its own code."""
    late = "import atexit\natexit.register(lambda: (ready(), time.sleep(0.5)))\n"
    # The last to be registered is the first to be called.
    code = (
        START.replace("interruption.install()", "") + late + "interruption.install(); sys.exit(3)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert (process.communicate()[1], process.returncode) == ("", 3)


SCRIPT = """
import sys
import msdyn.cli
print("started", flush=True)
from msdyn.cli.fit import main
sys.exit(main())
"""


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("wait", [0.0, 0.5])
def test_commands_end_in_order_while_they_are_imported(tmp_path, number, code, wait):
    (tmp_path / "msdyn-fit").write_text(SCRIPT)
    (tmp_path / "scene.json").write_text("{}")  # read after the imports
    process = subprocess.Popen(
        [sys.executable, tmp_path / "msdyn-fit", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    time.sleep(wait)
    process.send_signal(number)
    error = process.communicate(timeout=20)[1]
    if process.returncode == 2 and wait:
        pytest.skip("it had ended before")
    assert process.returncode == code
    assert len(error.splitlines()) == 1 and "; " in error


def test_importing_the_commands_leaves_the_handlers_of_other_programs():
    code = "import signal, msdyn.cli.run; print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout == "True\n"
