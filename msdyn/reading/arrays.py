"""Arrays: npy and npz files, without pickle, npz optionally in blocks of rows."""

from __future__ import annotations

import contextlib
import io
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Shaped

from msdyn.errors import InputError
from msdyn.reading.guard import reading, required_file
from msdyn.reading.limits import check_bytes, check_packed

__all__ = ["Blocks", "load_npz", "npz_keys", "npz_shape", "read_npy", "row_slices", "stream_npz"]

BLOCK_BYTES = 2**20
_KINDS = "biufS"
"""Kinds of data types that are read: bool, integers, floating point, bytes (of image files)."""
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What numpy writes."""


@dataclass(frozen=True)
class Blocks:
    """An array that is generated or read in blocks of rows; iterating yields the blocks in order.

    Attributes:
        shape, dtype: of the whole array.
        blocks: returns an iterable over the blocks, whose concatenation is the array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: Callable[[], Iterable[np.ndarray]]

    def __iter__(self) -> Iterator[Shaped[np.ndarray, "rows ..."]]:
        return iter(self.blocks())

    @classmethod
    def from_array(cls, array: Shaped[np.ndarray, "*_"]) -> Blocks:
        """Return the blocks of an array in memory."""
        array = np.asarray(array)
        slices = row_slices(array.shape, array.dtype)
        return cls(array.shape, array.dtype, lambda: (array[rows] for rows in slices))

    def to_array(self) -> Shaped[np.ndarray, "rows ..."]:
        """Read all blocks into one array."""
        return np.concatenate([np.zeros((0, *self.shape[1:]), self.dtype), *self])


def row_slices(shape: tuple[int, ...], dtype: np.dtype) -> list[slice]:
    """Return the row range of each block of an array, for blocks of about `BLOCK_BYTES`."""
    count = shape[0] if shape else 0
    step = max(1, BLOCK_BYTES // max(1, math.prod(shape[1:]) * dtype.itemsize))
    return [slice(first, min(first + step, count)) for first in range(0, count, step)]


def read_npy(path: str | os.PathLike, *, cure: str = "") -> Shaped[np.ndarray, "*_"]:
    """Read the array of an npy file.

    Args:
        path: of the file.
        cure: what to do about a missing file, appended to the message.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not an npy file of numbers, cut short, or larger than the memory.
    """
    path = required_file(path, cure)
    with reading(path, "npy file"), path.open("rb") as file:
        size = path.stat().st_size
        return _read_array(_Array(file, size, size))


def load_npz(
    source: str | os.PathLike | bytes, keys: tuple[str, ...], name: str | None = None
) -> dict[str, Shaped[np.ndarray, "*_"]]:
    """Read the named arrays of an npz.

    Args:
        source: a file, or the content of one.
        keys: names of the arrays.
        name: of the file, for messages, where its content is given.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not an npz, an array is missing, not of numbers, or larger than the memory; the
            message names the file and key.
    """
    with _opened(source, name) as file:
        _check_keys(keys, _names(file))
        content = {}
        for key in keys:
            with _member(file, key) as member:
                content[key] = _read_array(member)
        return content


@contextlib.contextmanager
def stream_npz(path: str | os.PathLike, keys: tuple[str, ...]) -> Iterator[dict[str, Blocks]]:
    """Open the named arrays of an npz for reading in blocks.

    The file's name is prepended to an `InputError` that is raised while the file is open.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not an npz, or an array is missing; the message names the file and key.
    """
    with _opened(path) as file:
        _check_keys(keys, _names(file))
        yield {key: _stored_blocks(file, key) for key in keys}


def npz_keys(source: str | os.PathLike | bytes, name: str | None = None) -> list[str]:
    """Return the names of the arrays of an npz.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not an npz.
    """
    with _opened(source, name) as file:
        return _names(file)


def npz_shape(path: str | os.PathLike, key: str) -> tuple[int, ...]:
    """Return the shape that an array of an npz declares, whatever its type.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not an npz, or there is no such array.
    """
    with _opened(path) as file:
        _check_keys((key,), _names(file))
        with _member(file, key) as member:
            return _parsed_header(member)[0]


@dataclass(frozen=True)
class _Array:
    """An open npy file, or the member of an npz.

    Attributes:
        file: from which nothing has been read.
        size: bytes it declares.
        packed: bytes it takes in the file.
    """

    file: io.BufferedIOBase
    size: int
    packed: int


@contextlib.contextmanager
def _opened(
    source: str | os.PathLike | bytes, name: str | None = None
) -> Iterator[zipfile.ZipFile]:
    opened = io.BytesIO(source) if isinstance(source, bytes) else required_file(source)
    with reading(name or str(opened), "npz file"), zipfile.ZipFile(opened) as file:
        yield file


@contextlib.contextmanager
def _member(file: zipfile.ZipFile, key: str) -> Iterator[_Array]:
    """Open an array of an npz; its name is in front of every error."""
    info = file.getinfo(f"{key}.npy")
    with reading(key, "array"):
        if info.compress_type not in _PACKINGS:
            raise InputError("expected an array that is stored or deflated, as numpy writes")
        with file.open(info) as member:
            yield _Array(cast(io.BufferedIOBase, member), info.file_size, info.compress_size)


def _names(file: zipfile.ZipFile) -> list[str]:
    """Return the names of the arrays in a file; other members are ignored."""
    return [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]


def _check_keys(keys: tuple[str, ...], found: list[str]) -> None:
    missing = [key for key in keys if key not in found]
    if missing:
        listed = ", ".join(found[:20]) + (", ..." if len(found) > 20 else "")
        raise InputError(
            f"expected arrays {', '.join(keys)}; {', '.join(missing)} missing, "
            f"found {listed or 'none'}"
        )


def _stored_blocks(file: zipfile.ZipFile, key: str) -> Blocks:
    with _member(file, key) as member:
        shape, fortran_order, dtype = _read_header(member)

    def blocks() -> Iterator[np.ndarray]:
        with _member(file, key) as member:
            _read_header(member)
            if fortran_order:  # the rows are not contiguous
                yield from Blocks.from_array(_read_whole(member, shape, dtype, "F"))
            else:
                for rows in row_slices(shape, dtype):
                    yield _read_rows(member, (rows.stop - rows.start, *shape[1:]), dtype, "C")
            member.file.read(1)  # zipfile compares the checksum at the end of a member

    return Blocks(shape, dtype, blocks)


def _read_array(array: _Array) -> Shaped[np.ndarray, "*_"]:
    shape, fortran_order, dtype = _read_header(array)
    values = _read_whole(array, shape, dtype, "F" if fortran_order else "C")
    array.file.read(1)  # zipfile compares the checksum at the end of a member
    return values


def _read_whole(
    array: _Array, shape: tuple[int, ...], dtype: np.dtype, order: str
) -> Shaped[np.ndarray, "*_"]:
    """Read the values of an array that fits into memory and is not packed too densely."""
    size = math.prod(shape) * dtype.itemsize
    check_bytes(size, f"an array {list(shape)}")
    check_packed(array.packed, size, f"an array {list(shape)}")
    return _read_rows(array, shape, dtype, order)


def _read_header(array: _Array) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of an array, and check that it fits the bytes of the file."""
    shape, fortran_order, dtype = _parsed_header(array)
    if dtype.kind not in _KINDS:
        raise InputError(f"expected an array of numbers, got {dtype}")
    expected, found = math.prod(shape) * dtype.itemsize, array.size - array.file.tell()
    if min(shape, default=0) < 0 or expected > found:
        raise InputError(
            f"expected {expected} bytes for an array {list(shape)} of {dtype}, got {found}"
        )
    return shape, fortran_order, dtype


def _parsed_header(array: _Array) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(array.file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise InputError(f"expected npy of version 1 or 2, got {version}")
    return readers[version](array.file)


def _read_rows(
    array: _Array, shape: tuple[int, ...], dtype: np.dtype, order: str
) -> Shaped[np.ndarray, "*_"]:
    values = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
    missing = memoryview(values)  # pyright: ignore  # arrays are buffers
    while missing:
        count = array.file.readinto(missing)  # pyright: ignore  # every binary file has it
        if not count:
            raise InputError(f"it ends {len(missing)} bytes early")
        missing = missing[count:]
    # Bytes other than 0 and 1 are undefined as bool.
    numbers = values != 0 if dtype.kind == "b" else values.view(dtype)
    return numbers.reshape(shape, order=order)  # pyright: ignore
