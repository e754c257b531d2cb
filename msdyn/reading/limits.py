"""How much a file may hold: checked from what it declares, before any memory is allocated.

The limits are those of one file. What is read in parts, such as the frames of a clip, may be any
number of files.
"""

from __future__ import annotations

import functools

from msdyn.errors import InputError
from msdyn.machine_limits import total_memory

__all__ = [
    "LARGEST_SIDE",
    "LARGEST_TEXT",
    "MOST_FRAMES",
    "MOST_LEVELS",
    "MOST_PIXELS",
    "MOST_VALUES",
    "check_bytes",
    "check_image_size",
    "check_packed",
    "largest_unpacked",
    "memory_bytes",
]

MOST_PIXELS = 2**26
"""Of an image, a frame of a video or a render: 8192x8192; 8K video is 7680x4320."""
LARGEST_SIDE = 2**15
"""px, of an image."""
LARGEST_TEXT = 2**28
"""Bytes of a text or JSON file."""
MOST_LEVELS = 64
"""Of brackets within brackets in JSON."""
MOST_VALUES = 2**25
"""Of a JSON file: each takes up to 64 bytes of memory for as little as two of the file."""
MOST_FRAMES = 10**6
"""Of a clip: nine hours at 30 frames per second."""

_SHARE_OF_MEMORY = 0.5
_SMALL = 2**26
_DENSEST_PACKING = 100
"""Ratio of bytes unpacked to bytes packed. Zeros reach 230 (the quickest deflate) to 1032."""


def check_image_size(width: int, height: int, what: str) -> None:
    """Check the size of an image before it is decoded or rendered.

    Args:
        width, height: px.
        what: the file or option, for the message.

    Raises:
        InputError: not positive, or larger than `LARGEST_SIDE` or `MOST_PIXELS`.
    """
    if width < 1 or height < 1:
        raise InputError(f"{what}: expected at least 1x1 px, got {width}x{height}")
    if max(width, height) > LARGEST_SIDE or width * height > MOST_PIXELS:
        raise InputError(
            f"{what}: expected at most {MOST_PIXELS / 1e6:.0f} megapixels and {LARGEST_SIDE} px a "
            f"side, got {width}x{height}; make it smaller first"
        )


def check_bytes(count: int, what: str) -> None:
    """Check that something fits into memory before it is allocated.

    Args:
        count: bytes.
        what: the file or array, for the message.

    Raises:
        InputError: more than half of the memory of this machine.
    """
    limit = int(_SHARE_OF_MEMORY * memory_bytes())
    if not 0 <= count <= limit:
        raise InputError(
            f"{what}: {count / 1e9:.3g} GB declared, more than half of the memory of this machine "
            f"({limit / 1e9:.3g} GB)"
        )


def check_packed(packed: int, unpacked: int, what: str) -> None:
    """Check that compressed data does not unpack to far more than data of its size does.

    Raises:
        InputError: more than 64 MiB, in more than 100 times the packed bytes.
    """
    if unpacked > _SMALL and unpacked > _DENSEST_PACKING * packed:
        raise InputError(
            f"{what}: {unpacked / 1e6:.0f} MB declared in {packed / 1e6:.3g} MB of packed data; "
            "no measured data is so compressible"
        )


def largest_unpacked(packed: int) -> int:
    """Return the most bytes that packed data of a size unpacks to; see `check_packed`."""
    return max(_SMALL, _DENSEST_PACKING * packed)


@functools.cache
def memory_bytes() -> int:
    """Return the memory of this machine, or of the container, in bytes."""
    return total_memory()
