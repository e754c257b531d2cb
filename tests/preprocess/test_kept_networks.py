"""Networks that stay loaded from clip to clip, and files that are fetched by one process."""

import multiprocessing
import time

import pytest

from msdyn.preprocess.checkpoints.kept import keep_networks, stays_loaded
from msdyn.writing import of_one_process


@pytest.fixture
def load():
    calls = []

    @stays_loaded
    def load(name, *, offline):
        calls.append(name)
        if name == "broken":
            raise ValueError(name)
        return object()

    load.calls = calls
    yield load
    keep_networks(0)


def test_nothing_is_kept_by_default(load):
    assert load("a", offline=True) is not load("a", offline=True)
    assert load.calls == ["a", "a"]


def test_the_last_ones_are_kept(load):
    keep_networks(2)
    a, b = load("a", offline=True), load("b", offline=True)
    assert load("a", offline=True) is a and load("a", offline=False) is not a
    assert load.calls == ["a", "b", "a"]
    # "b" was used the longest ago.
    assert load("a", offline=True) is a and load("b", offline=True) is not b
    with pytest.raises(ValueError, match="broken"):
        load("broken", offline=True)
    keep_networks(0)
    assert load("a", offline=True) is not a


def _enter(name, queue):
    with of_one_process(name):
        queue.put("in")
        time.sleep(0.3)
        queue.put("out")


def test_one_process_at_a_time():
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_enter, args=("a test", queue)) for _ in range(3)]
    for process in processes:
        process.start()
    order = [queue.get(timeout=30) for _ in range(6)]
    for process in processes:
        process.join()
    assert order == ["in", "out"] * 3
