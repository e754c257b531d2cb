"""What one process of a machine does at a time, while the others wait for it: fetching a file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["of_one_process"]


@contextlib.contextmanager
def of_one_process(name: str) -> Iterator[None]:
    """Wait until no other process of this user on this machine is in a block of this name.

    The block should begin by looking whether another process has done the work meanwhile. A process
    that ends in the block, in whatever way, leaves it. Where the system cannot lock files, nobody
    waits.

    Args:
        name: any text.
    """
    handle = -1
    try:
        try:
            import fcntl

            digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
            path = Path(tempfile.gettempdir()) / f"msdyn-{os.getuid()}-{digest}.lock"
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except (ImportError, AttributeError, OSError):
            pass
        yield
    finally:
        if handle >= 0:
            os.close(handle)
