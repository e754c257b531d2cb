"""Numba's compiler with one set of options, and where compiled kernels are kept.

Machine code is kept in `__pycache__` beside this file. Where an installation is read-only it goes
to `$XDG_CACHE_HOME/msdyn` (`~/.cache/msdyn`), and where that cannot be written either it is kept in
memory for the process; both are logged. `NUMBA_CACHE_DIR` overrides all of them. The folder's name
holds a hash of every kernel's source, because Numba itself looks only at the file of the kernel,
not at what that inlines.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import config

__all__ = ["cache_folder", "kernel", "settings"]

_log = logging.getLogger(__name__)

# Numba's settings, which it adds to the module at run time.
settings: Any = config


@functools.cache
def cache_folder() -> str | None:
    """Return the folder that compiled kernels are kept in, None where no folder can be written."""
    here = Path(__file__).parent
    files = sorted([*here.glob("raster/cpu/*.py"), *here.glob("**/numba_*.py")])
    sources = b"".join(path.read_bytes() for path in files)
    name = f"kernels-{hashlib.sha256(sources).hexdigest()[:12]}"
    if settings.CACHE_DIR:
        return str(Path(settings.CACHE_DIR) / name)
    beside = here / "__pycache__"
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "msdyn"
    for parent in (beside, user):
        try:
            (parent / name).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=parent / name).close()
        except OSError as error:
            _log.info("compiled kernels cannot be kept in %s (%s)", parent, error.strerror)
        else:
            return str(parent / name)
    _log.warning(
        "neither %s nor %s can be written: the CPU kernels are compiled anew in every process "
        "(half a minute); set NUMBA_CACHE_DIR to a folder that can be written",
        beside,
        user,
    )
    return None


def kernel(
    *, parallel: bool = False, fastmath: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Return the decorator that compiles a function on its first call.

    The interpreter's lock is held while a kernel runs, so that two Python threads never enter
    Numba's thread pool at once, which its fallback pool does not survive. Division by zero gives
    infinity or NaN, as in C.

    Args:
        parallel: share the rounds of `prange` loops among threads. Numba would share array
            expressions too: those of small arrays belong in a kernel that is not parallel.
        fastmath: let the compiler reorder sums and take for granted that there is no NaN.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        # A checker of annotations may have wrapped the function; Numba compiles what is inside.
        function = inspect.unwrap(function)
        folder = cache_folder()
        before = settings.CACHE_DIR
        # Numba reads the folder when a function is decorated, from this variable alone.
        settings.CACHE_DIR = folder or ""
        try:
            return njit(
                cache=folder is not None,
                error_model="numpy",
                fastmath=fastmath,
                parallel=parallel,
            )(function)
        finally:
            settings.CACHE_DIR = before

    return decorate
