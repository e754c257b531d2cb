"""Packed bytes: unpacked to no more than a known or a plausible size."""

from __future__ import annotations

import bz2
import struct
from collections.abc import Callable
from importlib import import_module
from typing import Any

from msdyn.errors import InputError, MissingExtraError
from msdyn.reading.guard import reading
from msdyn.reading.limits import check_bytes, check_packed, largest_unpacked

__all__ = ["load_robots", "unpack", "unpack_lzfse"]

_LZFSE_HEADERS = {b"bvx-": 8, b"bvxn": 12, b"bvx1": 772}
"""Bytes of the header of a block; that of `bvx2` is in the header."""
_LZFSE_LEAST_HEADER = 32
_LZFSE_END = b"bvx$"
_LZFSE_LEAST = 2**14
"""Bytes of all blocks but the last: a block is full after 10 000 matches of four bytes or more, or
40 000 literals."""


def load_robots(module: str) -> Any:
    """Return a module of the packages of the extra `robots`.

    Raises:
        MissingExtraError: its package is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f'{package} is not installed: pip install "msdyn[robots]"'
        ) from error


def unpack(data: bytes, packing: str, what: str, size: int | None = None) -> bytes:
    """Return unpacked bytes.

    Args:
        data: packed.
        packing: "", "none", "zstd", "lz4" or "bz2".
        what: is unpacked, for messages.
        size: that it declares; without one, at most what data of this size unpacks to.

    Raises:
        InputError: another packing, damaged, of another size than declared, or larger than data is.
        MissingExtraError: the package that unpacks is not installed.
    """
    if packing in ("", "none"):
        unpacked = data
    else:
        if size is not None:
            check_bytes(size, what)
            check_packed(len(data), size, what)
        limit = largest_unpacked(len(data)) if size is None else size
        unpacked = _unpacker(packing, what)(data, limit + 1)
        if size is None and len(unpacked) > limit:
            raise InputError(f"{what}: unpacks to far more than data of its size does")
    if size is not None and len(unpacked) != size:
        got = f"more than {size}" if len(unpacked) > size else len(unpacked)
        raise InputError(f"{what}: expected {size} bytes, got {got}")
    return unpacked


def _unpacker(packing: str, what: str) -> Callable[[bytes, int], bytes]:
    """Return a function of packed bytes and the most bytes to return."""
    if packing == "zstd":
        zstandard = load_robots("zstandard")
        return lambda data, most: zstandard.ZstdDecompressor().stream_reader(data).read(most)
    if packing == "lz4":
        frame = load_robots("lz4.frame")
        return lambda data, most: frame.LZ4FrameDecompressor().decompress(data, max_length=most)
    if packing == "bz2":
        return lambda data, most: bz2.BZ2Decompressor().decompress(data, max_length=most)
    raise InputError(f"{what}: expected zstd, lz4, bz2 or no compression, got {packing!r}")


def unpack_lzfse(data: bytes, size: int, what: str) -> bytes:
    """Return bytes packed by LZFSE.

    The library does not bound what it returns: the sizes that the blocks declare are checked first.

    Args:
        data: packed.
        size: of what is expected.
        what: is unpacked, for messages.

    Raises:
        InputError: damaged, or of another size.
        MissingExtraError: lzfse is not installed.

    Reference: the headers of blocks in src/lzfse_internal.h of github.com/lzfse/lzfse.
    """
    check_bytes(size, what)
    with reading(what, "LZFSE data"):
        blocks = _lzfse_blocks(data)
        if sum(blocks) != size:
            raise InputError(f"{what}: expected {size} bytes, got {sum(blocks)}")
        if len(blocks) > 2 + size // _LZFSE_LEAST:
            raise InputError(f"{what}: {len(blocks)} blocks for {size} bytes")
        unpacked = load_robots("lzfse").decompress(data)
        if len(unpacked) != size:
            raise InputError(f"{what}: expected {size} bytes, got {len(unpacked)}")
        return unpacked


def _lzfse_blocks(data: bytes) -> list[int]:
    """Return the unpacked bytes that each block of LZFSE data declares."""
    sizes, place = [], 0
    while (magic := data[place : place + 4]) != _LZFSE_END:
        (unpacked,) = struct.unpack_from("<I", data, place + 4)
        if magic == b"bvx-":
            payload = unpacked
        elif magic == b"bvxn":
            (payload,) = struct.unpack_from("<I", data, place + 8)
        elif magic == b"bvx1":
            (payload,) = struct.unpack_from("<I", data, place + 12)
        elif magic == b"bvx2":
            first, second, third = struct.unpack_from("<QQQ", data, place + 8)
            literals, matches = first >> 20 & 0xFFFFF, second >> 40 & 0xFFFFF
            header = third & 0xFFFFFFFF
            if header < _LZFSE_LEAST_HEADER:
                raise InputError(f"expected a block of LZFSE, got a header of {header} bytes")
            payload = header + literals + matches
        else:
            raise InputError(f"expected a block of LZFSE, got {magic!r}")
        sizes.append(unpacked)
        place += _LZFSE_HEADERS.get(magic, 0) + payload
    return sizes
