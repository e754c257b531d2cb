"""Threads for kernels: what is run, in which threads, and what happens to errors."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from msdyn.threads import (
    on_ranges,
    on_threads,
    one_blas_thread,
    thread_count,
    threads_for_steps,
)


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


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_steps_too_small_get_one_thread_of_torch_and_kernels_keep_theirs(four_threads):
    with threads_for_steps(640 * 480):
        assert torch.get_num_threads() == 1
        assert thread_count(1000, 10) == 4
        with threads_for_steps(1 << 30):
            assert torch.get_num_threads() == 1
        assert thread_count(1000, 10) == 4
    assert torch.get_num_threads() == 4 and thread_count(1000, 10) == 4


@pytest.mark.parametrize("millions, expected", [(1.9, 1), (2.2, 2), (3.3, 3), (80, 4)])
def test_larger_steps_get_more_threads_of_torch(millions, expected, four_threads):
    with threads_for_steps(int(millions * 2**20)):
        assert torch.get_num_threads() == expected


def test_threads_of_torch_come_back_after_an_error(four_threads):
    with pytest.raises(ZeroDivisionError), threads_for_steps(1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 4
    torch.set_num_threads(2)
    assert thread_count(1000, 10) == 2


def test_one_blas_thread():
    def counts():
        pools = threadpool_info()
        return [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):
        before = counts()
        with one_blas_thread():
            assert set(counts()) == {1}
        assert counts() == before
