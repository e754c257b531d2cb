"""How many threads this process takes, and how its libraries are told.

A process takes the cores that its affinity and its control groups leave to it, or its share, which
the environment variable `MSDYN_THREADS` gives. Who starts N processes on a machine gives each of
them `thread_environment(cores // N)`:

    subprocess.run(command, env=os.environ | thread_environment(1))

A process that is there already, such as a worker of an engine, calls `share_threads(1)` first, best
before it imports torch, numpy or OpenCV: waiting threads of OpenMP sleep only if the environment
says so when its library is loaded.

Imports nothing heavy.
"""

from __future__ import annotations

import os
import sys

from msdyn.errors import InputError
from msdyn.machine_limits import core_count

__all__ = ["command_environment", "share_threads", "thread_budget", "thread_environment"]

_SHARE = "MSDYN_THREADS"
_BLAS = ("OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Of numpy and scipy; the library of torch follows OMP_NUM_THREADS."""
_OTHERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_OPENCV = "OPENCV_FOR_THREADS_NUM"
_SLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Waiting threads of OpenMP sleep. Otherwise they spin for milliseconds: where other processes use
the cores as well, a product of 262,144 numbers took 7.9 ms instead of 0.04."""


def thread_budget() -> int:
    """Return how many threads this process may run at a time.

    `MSDYN_THREADS` if it is set, else `OMP_NUM_THREADS`, else the cores that are left to it.

    Raises:
        InputError: `MSDYN_THREADS` is no number from 1 on.
    """
    given = os.environ.get(_SHARE, "").strip()
    if given:
        if not given.isdecimal() or int(given) < 1:
            raise InputError(f"{_SHARE}: expected a number of threads >= 1, got {given!r}")
        return int(given)
    openmp = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # one for each level
    if openmp.isdecimal() and int(openmp) >= 1:
        return int(openmp)
    return core_count()


def thread_environment(threads: int) -> dict[str, str]:
    """Return the variables for the environment of a process that is to take so many threads.

    They hold for all libraries that it loads (torch, OpenCV, Numba, the BLAS of numpy and scipy,
    OpenMP of scikit-learn), for our kernels, and for the processes that it starts itself. Waiting
    threads of OpenMP sleep instead of spinning.

    Args:
        threads: at least 1.

    Raises:
        ValueError: there are fewer.
    """
    if threads < 1:
        raise ValueError(f"threads: must be >= 1, got {threads}")
    return dict.fromkeys((_SHARE, *_OTHERS, *_BLAS, _OPENCV), str(threads)) | _SLEEP


def command_environment() -> dict[str, str]:
    """Return the variables that a command of ours sets before its imports; what is set stays.

    `MSDYN_THREADS` alone overrides the numbers of other libraries. BLAS gets one thread, because
    our matrices are small: a fit of 16 frames of 192x144 beside another one took 25 CPU seconds
    with two, 15 with one. OpenMP's number is left to the libraries (that of torch is the number of
    physical cores) unless a control group leaves fewer cores than they see.

    Raises:
        InputError: see `thread_budget`.
    """
    threads = thread_budget()
    counts = dict.fromkeys((*_OTHERS, _OPENCV), str(threads))
    defaults = dict.fromkeys(_BLAS, "1") | {_OPENCV: str(threads)} | _SLEEP
    if threads < _visible_cores():
        defaults |= counts
    new = {name: value for name, value in defaults.items() if name not in os.environ}
    return new | (counts if os.environ.get(_SHARE, "").strip() else {})


def share_threads(threads: int) -> None:
    """Have this process take so many threads from now on, whatever has been imported.

    Sets `thread_environment(threads)` for what is loaded later and for processes that it starts,
    and tells the libraries that are loaded. What was loaded without it keeps two habits: waiting
    threads of OpenMP spin, if there is more than one, and threads that a library has started
    sleep but stay.

    Args:
        threads: at least 1.

    Raises:
        ValueError: there are fewer.
    """
    os.environ.update(thread_environment(threads))
    if "numpy" in sys.modules or "scipy" in sys.modules or "sklearn" in sys.modules:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
    cv2 = sys.modules.get("cv2")
    if cv2 is not None:
        cv2.setNumThreads(threads)


def _visible_cores() -> int:
    """Return the cores that libraries find: they look at the affinity, not at control groups."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
