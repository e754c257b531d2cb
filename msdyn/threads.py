"""Divide the work of CPU kernels among threads.

Kernels release the GIL, so threads of Python suffice. While they wait they leave the core to
others, unlike those of OpenMP, and several callers may use them at a time, unlike Numba's.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

__all__ = ["on_ranges", "on_threads", "thread_count"]


def thread_count(work: int, grain: int) -> int:
    """Return how many threads to use: as many as torch does, but at most `work // grain`.

    Args:
        work: in any unit.
        grain: minimum work per thread. It should take half a millisecond or more, since waking a
            thread on a busy machine can take a time slice of the operating system (8 ms measured).
    """
    return max(1, min(torch.get_num_threads(), work // grain))


def on_threads(threads: int, function: Callable[..., object], *arguments: Any) -> None:
    """Run `function(i, *arguments)` for each i of `range(threads)` in a thread of its own.

    Returns when all have ended; the first runs in the calling thread. `function` must not call
    `on_threads` itself.

    Raises:
        Exception: the first one that was raised.
    """
    others = [_pool().submit(function, i, *arguments) for i in range(1, threads)]
    try:
        function(0, *arguments)
    finally:
        # They write to arrays of the caller, so none may outlive this call.
        errors = [other.exception() for other in others]
    for error in filter(None, errors):
        raise error


def on_ranges(threads: int, count: int, function: Callable[..., object], *arguments: Any) -> None:
    """Run `function(first, end, *arguments)` on ranges that make up `range(count)`, one a thread.

    See `on_threads`.
    """

    def run(i: int) -> None:
        function(i * count // threads, (i + 1) * count // threads, *arguments)

    on_threads(threads, run)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Return the threads of this process, each of which starts when it is first needed."""
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="msdyn-kernel")
