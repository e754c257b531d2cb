"""npz files: written atomically, read without pickle, optionally in blocks of rows."""

from __future__ import annotations

import contextlib
import lzma
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Shaped

from msdyn.errors import InputError
from msdyn.files import atomic_path

__all__ = ["Blocks", "load_npz", "npz_keys", "row_slices", "save_npz", "stream_npz"]

BLOCK_BYTES = 2**20
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
)


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


def save_npz(path: str | os.PathLike, **arrays: Shaped[np.ndarray, "*_"] | Blocks) -> None:
    """Write arrays as a compressed npz, atomically. Equal arrays give equal bytes."""
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file,
    ):
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                _write_array(member, array)


def _write_array(
    member: BufferedIOBase | IO[bytes], array: Shaped[np.ndarray, "*_"] | Blocks
) -> None:
    if not isinstance(array, Blocks):
        np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
        return
    header = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": array.shape,
    }
    np.lib.format.write_array_header_1_0(member, header)
    for block in array:
        member.write(block.astype(array.dtype, copy=False).tobytes())


def load_npz(path: str | os.PathLike, keys: tuple[str, ...]) -> dict[str, Shaped[np.ndarray, "*_"]]:
    """Read the named arrays of an npz without pickle.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not an npz, or an array is missing; the message names the file and key.
    """
    with _reading(path), zipfile.ZipFile(path) as file:
        _check_keys(keys, _names(file))
        content = {}
        for key in keys:
            with file.open(f"{key}.npy") as member:
                content[key] = np.lib.format.read_array(member, allow_pickle=False)
        return content


@contextlib.contextmanager
def stream_npz(path: str | os.PathLike, keys: tuple[str, ...]) -> Iterator[dict[str, Blocks]]:
    """Open the named arrays of an npz for reading in blocks, without pickle.

    The file's name is prepended to an `InputError` that is raised while the file is open.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not an npz, or an array is missing; the message names the file and key.
    """
    with _reading(path), zipfile.ZipFile(path) as file:
        _check_keys(keys, _names(file))
        yield {key: _stored_blocks(file, f"{key}.npy") for key in keys}


def npz_keys(path: str | os.PathLike) -> list[str]:
    """Return the names of the arrays of an npz.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not an npz.
    """
    with _reading(path), zipfile.ZipFile(path) as file:
        return _names(file)


@contextlib.contextmanager
def _reading(path: str | os.PathLike) -> Iterator[None]:
    """Prepend the file's name to input errors, and convert errors of reading to input errors."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except _UNREADABLE as error:
        raise InputError(f"{path}: not a readable npz file ({error})") from error


def _names(file: zipfile.ZipFile) -> list[str]:
    """Return the names of the arrays in a file; other members are ignored."""
    return [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]


def _check_keys(keys: tuple[str, ...], found: list[str]) -> None:
    missing = [key for key in keys if key not in found]
    if missing:
        raise InputError(
            f"expected arrays {', '.join(keys)}; {', '.join(missing)} missing, "
            f"found {', '.join(found) or 'none'}"
        )


def _stored_blocks(file: zipfile.ZipFile, name: str) -> Blocks:
    with file.open(name) as member:
        shape, fortran_order, dtype = _read_header(member)

    def blocks() -> Iterator[np.ndarray]:
        with file.open(name) as member:
            _read_header(member)
            if fortran_order:  # the rows are not contiguous
                yield from Blocks.from_array(_read_rows(member, shape, dtype, "F"))
            else:
                for rows in row_slices(shape, dtype):
                    yield _read_rows(member, (rows.stop - rows.start, *shape[1:]), dtype, "C")
            member.read(1)  # zipfile compares the checksum at the end of a member

    return Blocks(shape, dtype, blocks)


def _read_header(member: BufferedIOBase | IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"npy of version {version}")
    shape, fortran_order, dtype = readers[version](member)
    if dtype.hasobject:
        raise ValueError("an array of objects, not of numbers")
    return shape, fortran_order, dtype


def _read_rows(
    member: BufferedIOBase | IO[bytes], shape: tuple[int, ...], dtype: np.dtype, order: str
) -> Shaped[np.ndarray, "*_"]:
    size = math.prod(shape) * dtype.itemsize
    data = member.read(size)
    if len(data) < size:
        raise EOFError(f"it ends {size - len(data)} bytes early")
    return np.frombuffer(data, dtype).reshape(shape, order=order)  # pyright: ignore
