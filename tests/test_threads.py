"""Threads for kernels: what is run, in which threads, and what happens to errors."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msdyn.threads import on_ranges, on_threads, thread_count


@given(st.integers(1, 9), st.integers(0, 40))
def test_ranges_are_contiguous_and_cover_everything_once(threads, count):
    ranges = []
    on_ranges(threads, count, lambda first, end: ranges.append((first, end)))
    assert len(ranges) == threads
    assert [i for first, end in sorted(ranges) for i in range(first, end)] == list(range(count))


def test_calls_run_at_the_same_time_and_the_first_in_the_calling_thread():
    together, names = threading.Barrier(2, timeout=30), {}

    def call(i: int, prefix: str) -> None:
        names[i] = prefix + threading.current_thread().name
        together.wait()

    on_threads(2, call, "in ")
    assert names[0] == "in " + threading.current_thread().name
    assert names[1].startswith("in msdyn-kernel")


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_is_raised_after_all_calls_have_ended(failing):
    failed, ended = threading.Event(), []

    def call(i: int) -> None:
        if i == failing:
            failed.set()
            raise ZeroDivisionError(i)
        assert failed.wait(30)
        ended.append(i)

    with pytest.raises(ZeroDivisionError):
        on_threads(2, call)
    assert ended == [1 - failing]


def test_little_work_is_not_divided():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert [thread_count(work, 10) for work in (0, 9, 19, 20, 39, 1000)] == [1, 1, 1, 2, 3, 4]
    finally:
        torch.set_num_threads(before)
