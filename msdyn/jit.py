"""Compile CPU kernels with Numba: one set of compiler options, and the cache of machine code.

Machine code is cached in `__pycache__` beside this file, or in `$XDG_CACHE_HOME/msdyn` (default
`~/.cache/msdyn`) if the former is read-only. If neither is writable, it is kept in memory for the
life of the process; both fallbacks are logged. `NUMBA_CACHE_DIR` overrides these folders. The name
of the cache folder contains a hash of the sources of all kernels, of the constants compiled into
them and of this file's options, because Numba checks only the file that defines a kernel.
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
from typing import Any, TypeVar

from numba import njit
from numba.core import config

__all__ = ["cache_folder", "kernel", "settings"]

_log = logging.getLogger(__name__)

_R = TypeVar("_R")

# Numba's settings; `Any`, since Numba adds the attributes to the module at run time.
settings: Any = config


@functools.cache
def cache_folder() -> str | None:
    """Create and return the folder for compiled kernels, or None if no folder is writable."""
    here = Path(__file__).parent
    compiled_in = [Path(__file__), here / "raster" / "contract.py"]
    files = sorted([*here.glob("raster/cpu/*.py"), *here.glob("**/numba_*.py"), *compiled_in])
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
            _log.info("compiled kernels cannot be cached in %s (%s)", parent, error.strerror)
        else:
            return str(parent / name)
    _log.warning(
        "neither %s nor %s is writable: the CPU kernels are recompiled in every process "
        "(half a minute); set NUMBA_CACHE_DIR to a writable folder",
        beside,
        user,
    )
    return None


def kernel(*, fastmath: bool = False) -> Callable[[Callable[..., _R]], Callable[..., _R]]:
    """Return a decorator that compiles a function with Numba on its first call.

    Kernels release the GIL; `msdyn.threads` divides their work. Numba's own parallel loops are not
    used: they take twice as long to compile, their threads wait busily, and must not be used by two
    Python threads at a time. Division by zero gives infinity or NaN, as in C.

    Args:
        fastmath: let the compiler reorder sums and assume that no value is NaN or infinite.
    """

    def decorate(function: Callable[..., _R]) -> Callable[..., _R]:
        # jaxtyping's import hook wraps functions in tests; Numba has to compile the original one.
        function = inspect.unwrap(function)
        folder = cache_folder()
        before = settings.CACHE_DIR
        # Numba takes the cache folder from this global setting when a function is decorated.
        settings.CACHE_DIR = folder or ""
        try:
            return njit(
                cache=folder is not None,
                error_model="numpy",
                fastmath=fastmath,
                nogil=True,
            )(function)
        finally:
            settings.CACHE_DIR = before

    return decorate
