"""Parquet files: some columns of some rows at a time, with limits before memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msdyn.errors import InputError, MissingExtraError
from msdyn.reading.guard import reading, required_file
from msdyn.reading.limits import MOST_FRAMES, check_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ParquetFile", "load_pyarrow", "opened_parquet"]

_BATCH = 4096
"""Rows read at a time."""
_LARGEST_FOOTER = 2**26
_MOST_COLUMNS = 20_000
"""Leaves of the schema; statistics of episodes are ten for each feature of a dataset."""
_MOST_ROWS = 2**31
"""Of a row group."""


def load_pyarrow(module: str = "pyarrow") -> Any:
    """Return pyarrow, or a module of it.

    Unless the environment says otherwise, it allocates as the system does: its own allocator keeps
    30 to 50 MB more of what a hundred thousand rows of a batch have passed through.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        # Read once, when it is loaded.
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
        import_module("pyarrow")
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError('pyarrow is not installed: pip install "msdyn[cluster]"') from error


@contextlib.contextmanager
def opened_parquet(path: str | os.PathLike, *, repeated: bool = True) -> Iterator[ParquetFile]:
    """Open a parquet file for reading in the block; what fails there is an `InputError`.

    Args:
        path: of the file.
        repeated: read texts as dictionaries, so that one that is repeated takes no more memory.
            Where all of them differ, as names do, the dictionary of a row group holds them all.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not a parquet file, cut short, or of too many columns.
        MissingExtraError: pyarrow is not installed.
    """
    parquet = load_pyarrow("pyarrow.parquet")
    path = required_file(path)
    limits = {
        "thrift_string_size_limit": _LARGEST_FOOTER,
        "thrift_container_size_limit": _LARGEST_FOOTER // 64,
    }
    with reading(path, "parquet file"):
        metadata = parquet.read_metadata(path)
        count = metadata.num_columns
        if count > _MOST_COLUMNS:
            raise InputError(f"expected at most {_MOST_COLUMNS} columns, got {count}")
        texts = [
            metadata.schema.column(index).path
            for index in range(count)
            if repeated and metadata.schema.column(index).physical_type == "BYTE_ARRAY"
        ]
        with parquet.ParquetFile(path, metadata=metadata, read_dictionary=texts, **limits) as file:
            yield ParquetFile(path, file)


class ParquetFile:
    """An open parquet file.

    Attributes:
        path: of the file.
        columns: names of its columns; one of lists or structures is one column.
        num_rows: that it declares.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self._file = path, file
        self.columns: list[str] = list(file.schema_arrow.names)
        self.num_rows: int = file.metadata.num_rows

    def type_of(self, column: str) -> pa.DataType:
        """Return the type of a column."""
        return self._file.schema_arrow.field(column).type

    @property
    def schema(self) -> pa.Schema:
        """The columns and their types; those of texts, which are read as dictionaries, as texts."""
        pa = import_module("pyarrow")
        fields = [pa.field(f.name, _plain(pa, f.type)) for f in self._file.schema_arrow]
        return pa.schema(fields)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns of all rows, a few thousand rows at a time.

        Raises:
            InputError: a column is missing, or a row group declares more than the memory holds.
        """
        self._require(columns)
        for group in range(self._file.num_row_groups):
            self._check_group(group)
            for batch in self._file.iter_batches(_BATCH, row_groups=[group], columns=list(columns)):
                yield batch.select(list(columns))  # "action" also reads "action.is_pad"

    def rows_of(self, key: str, value: int, columns: Sequence[str]) -> pa.Table:
        """Return some columns of the rows in which an integer column has a value.

        Of row groups without such a row, only the integer column is read.

        Args:
            key: the integer column.
            value: the value.
            columns: to return.

        Raises:
            InputError: a column is missing or of another type, there are more than `MOST_FRAMES`
                such rows, or a row group declares more than the memory holds.
        """
        pa, compute = import_module("pyarrow"), import_module("pyarrow.compute")
        self._require([key, *columns])
        if not pa.types.is_integer(self.type_of(key)):
            raise InputError(f"{key}: expected a column of integers, got {self.type_of(key)}")
        wanted = list(dict.fromkeys([key, *columns]))
        found: list[Any] = []
        count = 0
        for group in range(self._file.num_row_groups):
            self._check_group(group)
            keys = self._file.iter_batches(_BATCH, row_groups=[group], columns=[key])
            if not any(compute.any(compute.equal(b.column(key), value)).as_py() for b in keys):
                continue
            for batch in self._file.iter_batches(_BATCH, row_groups=[group], columns=wanted):
                rows = batch.filter(compute.equal(batch.column(key), value))
                count += rows.num_rows
                if count > MOST_FRAMES:
                    raise InputError(f"{key} {value}: expected at most {MOST_FRAMES} rows")
                found += [rows] if rows.num_rows else []
        schema = pa.schema([self._file.schema_arrow.field(name) for name in wanted])
        if found:
            return pa.Table.from_batches(found).select(list(columns))
        return schema.empty_table().select(list(columns))

    def _require(self, columns: Sequence[str]) -> None:
        for name in columns:
            if name not in self.columns:
                raise InputError(f"{name}: expected a column of this name, found none")

    def _check_group(self, group: int) -> None:
        """Check what a row group declares before a batch of it is read.

        Its columns are not asked: pyarrow (26.0) ends the process where what it stores about one is
        damaged (`RowGroupMetaData.column`).
        """
        metadata = self._file.metadata.row_group(group)
        where = f"{self.path}: row group {group}"
        check_bytes(max(metadata.total_byte_size, 0), where)
        if not 0 <= metadata.num_rows <= _MOST_ROWS:
            raise InputError(f"{where}: expected at most {_MOST_ROWS} rows")


def _plain(pa: Any, kind: pa.DataType) -> pa.DataType:
    """Return a type without dictionaries."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_list(kind):
        return pa.list_(_plain(pa, kind.value_type))
    return kind
