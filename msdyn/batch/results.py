"""The results of a batch in Parquet: a row for each stage that was run, in parts; the quarantine.

    results/part-<shard>-<time>-<number>.parquet   rows of `Row`, in the order in which they came
    quarantine.parquet                             the clips that did not come to their end, and why

Every writer has files of its own, so that shards on several machines do not meet. The quarantine is
made from all parts; whoever writes it looks for new parts afterwards, and makes it again.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import UInt8, UInt64

from msdyn.batch.clips import Row, State, row_of
from msdyn.batch.manifest import Shard, key_of
from msdyn.batch.steps import CURES
from msdyn.batch.store import Store
from msdyn.reading import load_pyarrow, opened_parquet

__all__ = ["QUARANTINE", "ClipEnds", "ResultsWriter", "read_rows", "write_quarantine"]

FOLDER, QUARANTINE = "results", "quarantine.parquet"
_ROWS, _SECONDS = 2000, 20.0
"""Rows, and seconds, after which a part is written."""
_STATES: tuple[str, ...] = get_args(State)
_QUARANTINE_COLUMNS = (
    *("clip", "reason", "stage", "attempts", "error_class", "error", "cure", "uri", "metadata"),
)


class ResultsWriter:
    """Writes rows to parts, some thousands at a time."""

    def __init__(self, store: Store, shard: Shard) -> None:
        self._store, self._rows = store, list[Row]()
        self._stem = f"{FOLDER}/part-{shard.name}-{time.time_ns():020d}"
        self._number, self._since = 0, time.monotonic()

    def add(self, row: Row) -> None:
        """Add a row; it is written later, at the latest by `flush`."""
        self._rows.append(row)
        if len(self._rows) >= _ROWS:
            self.flush()

    def flush_if_due(self) -> None:
        """Write a part if the last one was some time ago."""
        if time.monotonic() - self._since > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are not written yet."""
        self._since = time.monotonic()
        if not self._rows:
            return
        name = f"{self._stem}-{self._number:06d}.parquet"
        self._store.write(name, _parquet([row.to_json() for row in self._rows], _row_schema()))
        self._number += 1
        self._rows.clear()


def read_rows(store: Store) -> Iterator[Row]:
    """Yield the rows of all parts, each clip's in the order in which they were made.

    Raises:
        InputError: a part is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="msdyn-results-") as scratch:
        for name in part_names(store):
            path = Path(store.place(name))
            if store.folder is None:
                path = Path(scratch) / "part.parquet"
                store.get(name, path)
            with opened_parquet(path) as file:
                for batch in file.batches(file.columns):
                    yield from map(row_of, batch.to_pylist())


def part_names(store: Store) -> list[str]:
    """Return the names of the parts, oldest first."""
    names = [name for name in store.names(FOLDER) if name.endswith(".parquet")]
    return sorted(names, key=lambda name: name.rsplit("-", 2)[1:])


class ClipEnds:
    """How the clips of a batch ended, in a few bytes each.

    An end of a later round replaces that of an earlier one.
    """

    def __init__(self, keys: UInt64[np.ndarray, " clips"]) -> None:
        """Take the keys of the clips (`manifest.key_of`)."""
        self._keys: UInt64[np.ndarray, " clips"] = np.sort(keys)
        self._ends: UInt8[np.ndarray, " clips"] = np.zeros(len(keys), np.uint8)
        self._rounds: UInt8[np.ndarray, " clips"] = np.zeros(len(keys), np.uint8)

    def __len__(self) -> int:
        return len(self._keys)

    def _index(self, clip_id: str) -> int | None:
        key = np.uint64(key_of(clip_id))
        at = int(np.searchsorted(self._keys, key))
        return at if at < len(self._keys) and self._keys[at] == key else None

    def has(self, clip_id: str) -> bool:
        """Return whether a clip is one of them."""
        return self._index(clip_id) is not None

    def end(self, row: Row) -> str:
        """Note the end that a row has, if it has one; return the state that it replaces, or ""."""
        at = self._index(row.clip) if row.ended else None
        if at is None or row.round < self._rounds[at]:
            return ""
        before = int(self._ends[at])
        self._ends[at] = 1 + _STATES.index(row.ended)
        self._rounds[at] = min(row.round, 255)
        return _STATES[before - 1] if before else ""

    def state(self, clip_id: str) -> str:
        """Return how a clip ended; "" where it has not."""
        at = self._index(clip_id)
        return "" if at is None or not self._ends[at] else _STATES[self._ends[at] - 1]

    @property
    def count(self) -> int:
        """How many have ended."""
        return int(np.count_nonzero(self._ends))


def write_quarantine(store: Store, ended: Iterable[Row]) -> None:
    """Write the clips that are in quarantine, each with its reason and the cure.

    Args:
        store: of the batch.
        ended: the last row of each of them.
    """
    rows = [
        {
            "clip": row.clip,
            "reason": row.ended,
            "stage": row.stage,
            "attempts": row.attempt,
            "error_class": row.error_class,
            "error": row.error,
            "cure": CURES.get(row.ended, ""),
            "uri": row.uri,
            "metadata": row.metadata,
        }
        for row in ended
    ]
    pa = load_pyarrow()
    kinds = dict.fromkeys(_QUARANTINE_COLUMNS, pa.string()) | {"attempts": pa.int64()}
    store.write(QUARANTINE, _parquet(rows, pa.schema(list(kinds.items()))))


def _row_schema() -> Any:
    pa = load_pyarrow()
    kinds = {
        "str": pa.string(),
        "State": pa.string(),
        "int": pa.int64(),
        "bool": pa.bool_(),
        "float": pa.float64(),
        "float | None": pa.float64(),
    }
    return pa.schema([pa.field(f.name, kinds[str(f.type)]) for f in fields(Row)])


def _parquet(rows: list[dict[str, Any]], schema: Any) -> bytes:
    pa, parquet = load_pyarrow(), load_pyarrow("pyarrow.parquet")
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()
