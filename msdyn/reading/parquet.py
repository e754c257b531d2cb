"""Tables in Parquet files."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

from msdyn.errors import InputError, MissingExtraError
from msdyn.reading.guard import reading, required_file

__all__ = ["load_pyarrow", "parquet_batches", "parquet_columns"]

_MOST_ROWS = 20_000
"""Rows that are read at a time."""
_LARGEST_GROUP = 2**31
"""Bytes of a group of rows, unpacked, which pyarrow may hold as a whole."""


def load_pyarrow(name: str = "pyarrow") -> Any:
    """Import a module of pyarrow.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            'tables in Parquet need pyarrow; install it with: pip install "msdyn[cluster]"'
        ) from error


def parquet_columns(path: str | os.PathLike) -> list[str]:
    """Return the names of the columns of a Parquet file.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is not a Parquet file.
    """
    parquet = load_pyarrow("pyarrow.parquet")
    path = required_file(path)
    with reading(path, "Parquet file"):
        return list(parquet.read_schema(path).names)


def parquet_batches(
    path: str | os.PathLike, columns: Sequence[str] | None = None, rows: int = _MOST_ROWS
) -> Iterator[Any]:
    """Yield the rows of a Parquet file as pyarrow's record batches.

    Args:
        path: of the file.
        columns: to read; all by default.
        rows: of a batch at most.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is not a Parquet file, is damaged, lacks a column, or unpacks to too much.
    """
    parquet = load_pyarrow("pyarrow.parquet")
    path = required_file(path)
    with reading(path, "Parquet file"):
        file = parquet.ParquetFile(path)
        names = list(file.schema_arrow.names)
        missing = [name for name in columns or () if name not in names]
        if missing:
            raise InputError(f"no column {', '.join(missing)}; it has {', '.join(names)}")
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).total_byte_size
            if size > _LARGEST_GROUP:
                raise InputError(
                    f"group {group} of its rows has {size / 1e9:.1f} GB; expected at most "
                    f"{_LARGEST_GROUP / 1e9:.1f} GB"
                )
        batches = file.iter_batches(
            batch_size=rows, columns=None if columns is None else list(columns)
        )
    while True:
        with reading(path, "Parquet file"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
