"""The option of a limit of memory, what is said of estimates, and the end beyond the limit."""

import logging

import numpy as np
import pytest

from msdyn import memory
from msdyn.errors import InputError, ResourceError
from msdyn.estimates import Estimate, announce, shown_seconds
from msdyn.fit import FitConfig
from msdyn.interruption import tell, told
from msdyn.memory import bytes_of, limited_memory, memory_excess, require_memory, shown_bytes
from msdyn.progress import stage, track

GB = 10**9


@pytest.fixture
def held(monkeypatch):
    """Let the process hold as many bytes as the list says, the last of them from then on."""
    values = [0]
    monkeypatch.setattr(memory, "_PERIOD", 0.0)
    monkeypatch.setattr(
        memory, "held_memory", lambda: values.pop(0) if len(values) > 1 else values[0]
    )
    return values


@pytest.mark.parametrize(
    "text, count",
    [
        ("8G", 8 * GB),
        ("500M", 500 * 10**6),
        ("1.5", 1_500_000_000),
        ("0.25gb", 250_000_000),
        ("2T", 2000 * GB),
        ("12MB", 12 * 10**6),
    ],
)
def test_sizes(text, count):
    assert bytes_of(text) == count
    assert FitConfig(max_memory=text).max_memory == text


@pytest.mark.parametrize(
    "text", ["", " ", "0", "0.0G", "-1", "8 G", "8K", "1e9", "G", "nan", "inf", "1.G", "9999999G"]
)
def test_wrong_sizes(text):
    with pytest.raises(InputError, match="a size above 0 such as 8G or 500M"):
        bytes_of(text)
    with pytest.raises(InputError, match="max_memory: expected a size above 0"):
        FitConfig(max_memory=text)


def test_figures_for_messages():
    counts = (0, 1, 60_400_000, 999_400_000, 999_600_000, 1.234e9, 98.76e9, 2.5e12)
    shown = [shown_bytes(count) for count in counts]
    assert shown == ["1 MB", "1 MB", "60 MB", "999 MB", "1 GB", "1.23 GB", "98.8 GB", "2.5 TB"]
    times = (0.2, 7.4, 44, 54, 56, 359, 5399, 9000, 400_000)
    shown = [shown_seconds(seconds) for seconds in times]
    assert shown == ["1 s", "7 s", "40 s", "50 s", "1 min", "6 min", "90 min", "2.5 h", "111 h"]


def test_the_limit_holds_in_its_block(held):
    assert memory_excess() is None
    with limited_memory("2G"):
        assert memory_excess() is None
        held[:] = [3 * GB]
        assert memory_excess() == "3 GB of memory are in use, more than --max-memory 2G"
        with limited_memory("4G"):
            assert memory_excess() is None
        with pytest.raises(ResourceError, match="more than --max-memory 2G"):
            require_memory()
    require_memory()


def test_what_is_kept_is_said(held):
    before = told()
    held[:] = [3 * GB]
    tell("step 3 is saved, the same command resumes there")
    try:
        with limited_memory("2G"), pytest.raises(ResourceError) as refused:
            require_memory()
    finally:
        tell(before)
    assert str(refused.value) == (
        "3 GB of memory are in use, more than --max-memory 2G; step 3 is saved, the same command "
        "resumes there, with a greater --max-memory"
    )


def test_loops_and_stages_end_beyond_the_limit(held):
    done = []
    held[:] = [0, 0, 0, 3 * GB]
    with limited_memory("2G"):
        with pytest.raises(ResourceError):
            for item in track(range(10), "loop"):
                done.append(item)
        with pytest.raises(ResourceError), stage("later"):
            done.append("never")
    assert done == [0, 1, 2]


def test_the_memory_of_this_process():
    with limited_memory("0.001M"), pytest.raises(ResourceError, match="[MG]B of memory are in use"):
        require_memory()
    with limited_memory("900000T"):
        require_memory()


def test_looking_at_the_memory_is_rare(held, monkeypatch):
    monkeypatch.setattr(memory, "_PERIOD", 60.0)
    held[:] = [0, 3 * GB]
    with limited_memory("2G"):
        assert memory_excess() is None and memory_excess() is None and held == [3 * GB]


SMALLER = [("--long-side 640", Estimate(3 * GB, 0)), ("--long-side 320", Estimate(1 * GB, 0))]


def test_an_estimate_is_said_before_the_work(capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    announce("fit", Estimate(1.2 * GB, 60e6, 370), "2G", SMALLER)
    assert capsys.readouterr().err == (
        "fit: about 1.2 GB of memory, 60 MB of disk, roughly 6 min (two cores)\n"
    )
    announce("fit", Estimate(1.2 * GB, 60e6), None, SMALLER)
    assert capsys.readouterr().err == "fit: about 1.2 GB of memory, 60 MB of disk\n"


def test_an_estimate_beyond_the_limit_is_refused_with_what_would_fit(capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")

    def refusal(limit, smaller):
        with pytest.raises(ResourceError) as refused:
            announce("fit", Estimate(9 * GB, 0), limit, smaller)
        return str(refused.value)

    begin = "fit: about 9 GB of memory would be needed, more than --max-memory "
    assert refusal("2G", SMALLER) == f"{begin}2G; --long-side 320 would need about 1 GB"
    assert refusal("3G", SMALLER) == f"{begin}3G; --long-side 640 would need about 3 GB"
    assert refusal("1M", SMALLER) == f"{begin}1M; even --long-side 320 would need about 1 GB"
    assert refusal("1M", []) == f"{begin}1M; a machine with more memory is needed"
    assert not capsys.readouterr().err


def test_without_a_limit_too_little_memory_is_a_warning(caplog, monkeypatch):
    monkeypatch.setattr("msdyn.estimates.available_memory", lambda: 2 * GB)
    announce("fit", Estimate(1 * GB, 0), None, SMALLER)
    assert not caplog.records
    announce("fit", Estimate(9 * GB, 0), None, SMALLER)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and record.getMessage() == (
        "warning: fit: about 9 GB of memory may be needed, and 2 GB are available; "
        "--long-side 320 would need about 1 GB"
    )
    monkeypatch.setattr("msdyn.estimates.available_memory", lambda: None)
    announce("fit", Estimate(np.inf, 0), None, SMALLER)
    assert len(caplog.records) == 1
