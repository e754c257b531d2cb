"""Divide the work of CPU kernels among threads.

Kernels release the GIL, so threads of Python suffice. While they wait they leave the core to
others, unlike those of OpenMP, and several callers may use them at a time, unlike Numba's.

Operations of torch divide their own work, however little it is; see `threads_for_steps`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from threadpoolctl import threadpool_limits

__all__ = ["on_ranges", "on_threads", "one_blas_thread", "thread_count", "threads_for_steps"]

_STEP_GRAIN = 1 << 20
"""Pixels or Gaussians per thread of torch. On cores that other processes used as well, two threads
gained nothing over one in products and exponentials of up to 4 million numbers; in steps of fits of
307,200 pixels neither. Steps larger than that have not been compared."""


@dataclass
class _Kernels:
    """How many threads kernels have while torch has fewer; None: as many as torch."""

    threads: int | None = None


_kernels = _Kernels()


@contextmanager
def threads_for_steps(size: int) -> Iterator[None]:
    """Give torch, in the context, the threads that small operations are worth; kernels keep theirs.

    A step of a fit has hundreds of operations of torch, of some 10 microseconds each. Divided, each
    wakes another thread and waits for it, which takes as long, and on a busy machine a time slice
    of the operating system. With one thread, the bytes of the result do not depend on the number
    of cores either: sums of several threads may differ from run to run.

    Holds for the whole process, and does nothing within itself.

    Args:
        size: of the arrays of a step: pixels, or Gaussians if these are more.
    """
    threads = torch.get_num_threads()
    fewer = max(1, min(threads, size // _STEP_GRAIN))
    if fewer == threads or _kernels.threads is not None:
        yield
        return
    _kernels.threads = threads
    torch.set_num_threads(fewer)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _kernels.threads = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Have numpy and scipy multiply matrices in one thread, in the whole process.

    Waiting threads of OpenBLAS spin, longer than products of our small matrices take.
    """
    with threadpool_limits(1, user_api="blas"):
        yield


def thread_count(work: int, grain: int) -> int:
    """Return how many threads to use: as many as torch does, but at most `work // grain`.

    Args:
        work: in any unit.
        grain: minimum work per thread. It should take half a millisecond or more, since waking a
            thread on a busy machine can take a time slice of the operating system (8 ms measured).
    """
    return max(1, min(_kernels.threads or torch.get_num_threads(), work // grain))


def on_threads(threads: int, function: Callable[..., object], *arguments: Any) -> None:
    """Run `function(i, *arguments)` for each i of `range(threads)` in a thread of its own.

    Returns when all have ended; the first runs in the calling thread. `function` must not call
    `on_threads` itself.

    Raises:
        Exception: the first one that was raised.
    """
    if threads == 1:
        function(0, *arguments)
        return
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
    if threads == 1:
        function(0, count, *arguments)
        return

    def run(i: int) -> None:
        function(i * count // threads, (i + 1) * count // threads, *arguments)

    on_threads(threads, run)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Return the threads of this process, each of which starts when it is first needed."""
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="msdyn-kernel")
