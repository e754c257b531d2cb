"""How many threads this process takes, and what tells the libraries of another one.

Imports neither torch nor numpy: their libraries read most of these variables when they are loaded.
"""

from __future__ import annotations

__all__ = ["thread_environment"]

_COUNTS = (
    "MSDYN_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)
"""Variables that hold a number of threads: ours, and those of OpenMP (torch, scikit-learn), the
BLAS libraries of numpy and scipy, Numba and OpenCV."""


def thread_environment(threads: int) -> dict[str, str]:
    """Return the variables for the environment of a process that is to take so many threads.

    Add them to what the process inherits: `os.environ | thread_environment(1)`. They hold for all
    libraries that it loads, and for the processes that it starts itself. Waiting threads of OpenMP
    sleep instead of spinning.

    Args:
        threads: at least 1.

    Raises:
        ValueError: there are fewer.
    """
    if threads < 1:
        raise ValueError(f"threads: must be >= 1, got {threads}")
    return dict.fromkeys(_COUNTS, str(threads)) | {"OMP_WAIT_POLICY": "PASSIVE"}
