"""How many threads a process takes, and what its children are told."""

import json
import os
import subprocess
import sys

import pytest

from msdyn import thread_share
from msdyn.errors import InputError
from msdyn.thread_share import command_environment, thread_budget, thread_environment

_COUNTS = """
import json, cv2, numpy, scipy.linalg, sklearn.cluster, threadpoolctl, torch
pools = {p["filepath"]: p["num_threads"] for p in threadpoolctl.threadpool_info()}
print(json.dumps([
    torch.get_num_threads(), cv2.getNumThreads(), *pools.values()
]))
"""


def test_libraries_of_a_child_take_one_thread():
    run = subprocess.run(
        [sys.executable, "-c", _COUNTS],
        env=os.environ | thread_environment(1),
        capture_output=True,
        text=True,
        check=True,
    )
    counts = json.loads(run.stdout)
    assert len(counts) >= 5 and set(counts) == {1}


@pytest.mark.parametrize("threads", [0, -1])
def test_environment_of_too_few_threads(threads):
    with pytest.raises(ValueError, match="threads"):
        thread_environment(threads)


def run_python(code: str, **variables: str) -> str:
    """Run code in a process that has no variables of threads but these; return what it prints,
    to stderr if nothing to stdout."""
    own = {k: v for k, v in os.environ.items() if k not in thread_environment(1)}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=own | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout or run.stderr


@pytest.fixture
def no_variables(monkeypatch):
    for name in thread_environment(1):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_libraries_that_are_there_already_take_their_share():
    code = _COUNTS.replace("pools =", "import msdyn.thread_share as s; s.share_threads(1)\npools =")
    counts = json.loads(run_python(code))
    assert len(counts) >= 5 and set(counts) == {1}


def test_share_holds_for_libraries_and_processes_to_come():
    code = f"""
import subprocess, sys
from msdyn.thread_share import share_threads
share_threads(1)
assert not {{"torch", "numpy", "cv2"}} & set(sys.modules)
print(subprocess.check_output([sys.executable, "-c", {_COUNTS!r}], text=True))
"""
    assert set(json.loads(run_python(code))) == {1}


@pytest.mark.skipif(sys.platform != "linux", reason="asks the OpenMP of GCC")
@pytest.mark.parametrize("first", ["", "import msdyn;", "import msdyn.cli;"])
def test_waiting_threads_of_openmp_sleep(first):
    """It says how often it looks before it sleeps; with torch alone this is not 0."""
    said = run_python(f"{first}import torch", OMP_DISPLAY_ENV="verbose")
    assert ("GOMP_SPINCOUNT = '0'" in said) == bool(first)


def test_budget_is_the_share_or_that_of_openmp_or_the_cores(no_variables):
    no_variables.setattr(thread_share, "core_count", lambda: 6)
    assert thread_budget() == 6
    for given, expected in (("4", 4), ("3,2", 3), ("", 6), ("many", 6), ("0", 6)):
        no_variables.setenv("OMP_NUM_THREADS", given)
        assert thread_budget() == expected
    no_variables.setenv("OMP_NUM_THREADS", "4")
    no_variables.setenv("MSDYN_THREADS", " 2 ")
    assert thread_budget() == 2


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_wrong_share(given, no_variables):
    no_variables.setenv("MSDYN_THREADS", given)
    with pytest.raises(InputError, match=f"MSDYN_THREADS: .*{given}"):
        thread_budget()
    own = os.environ | {"MSDYN_THREADS": given}
    command = [sys.executable, "-m", "msdyn.cli.fit", "nowhere"]
    run = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("error: MSDYN_THREADS") and len(run.stderr.splitlines()) == 1


def test_commands_leave_openmp_its_number_unless_there_are_fewer_cores_than_it_sees(no_variables):
    no_variables.setattr(thread_share, "_visible_cores", lambda: 8)
    no_variables.setattr(thread_share, "core_count", lambda: 8)
    usual = command_environment()
    assert "OMP_NUM_THREADS" not in usual
    assert usual["OPENBLAS_NUM_THREADS"] == "1" and usual["OPENCV_FOR_THREADS_NUM"] == "8"
    no_variables.setattr(thread_share, "core_count", lambda: 3)  # of a control group
    assert command_environment()["OMP_NUM_THREADS"] == "3"


def test_commands_keep_what_is_set_except_beyond_the_share(no_variables):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        no_variables.setenv(name, "2")
    no_variables.setenv("OMP_WAIT_POLICY", "ACTIVE")
    chosen = command_environment()
    assert not {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY"} & set(chosen)
    no_variables.setenv("MSDYN_THREADS", "1")
    assert command_environment()["OMP_NUM_THREADS"] == "1"
