"""Manifests: which clips a batch has.

A Parquet or CSV file with a row for each clip, or a folder of videos; any of them may be a URL. The
folder of a LeRobotDataset, which must be on this disk, has a clip for each episode and camera.
Columns `clip` (id) and `uri` are required; `start`, `end` (seconds), `preprocess` and `fit`
(options, as on the command line) are known; all others are metadata that travels along. A `uri`
that is a relative path is relative to the manifest. Without a column `clip` the id is the name of
the video.

Manifests are read in blocks, and once more for every use, so that memory does not grow with them;
what is kept of each clip are eight bytes.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import posixpath
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from msdyn.batch.clips import Clip
from msdyn.batch.store import Store, local_path
from msdyn.errors import InputError, printable
from msdyn.reading import natural_order, opened_parquet, read_lines, reading

__all__ = ["VIDEOS", "Manifest", "Shard", "key_of"]

VIDEOS = frozenset(
    {".mp4", ".mov", ".mkv", ".webm", ".gif", ".avi", ".m4v", ".mpg", ".mpeg", ".ts"}
)
"""Suffixes of the files of a folder that are clips."""
_KNOWN = ("clip", "uri", "start", "end", "preprocess", "fit")
_LONGEST_ID = 500


@dataclass(frozen=True)
class Shard:
    """A part of the clips: those whose digest, modulo `count`, is `number - 1`.

    Attributes:
        number: from 1.
        count: of all parts.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard of a text such as "3/64".

        Raises:
            InputError: another text, or a number outside.
        """
        number, _, count = text.partition("/")
        try:
            shard = cls(int(number), int(count))
        except ValueError as error:
            raise InputError(f"shard: expected I/N such as 3/64, got {text!r}") from error
        if not 1 <= shard.number <= shard.count:
            raise InputError(
                f"shard: expected 1/{shard.count} to {shard.count}/{shard.count}, got {text!r}"
            )
        return shard

    def has(self, key: int) -> bool:
        """Return whether a clip of this key (`key_of`) is in the shard."""
        return key % self.count == self.number - 1

    def of(self, keys: UInt64[np.ndarray, " clips"]) -> UInt64[np.ndarray, " in_shard"]:
        """Return those of the keys that are in the shard."""
        return keys[keys % np.uint64(self.count) == np.uint64(self.number - 1)]

    @property
    def name(self) -> str:
        """A name for files."""
        return "all" if self.count == 1 else f"{self.number:05d}-of-{self.count:05d}"


def key_of(clip_id: str) -> int:
    """Return the first 64 bits of the digest of a clip's id."""
    return int.from_bytes(hashlib.blake2b(clip_id.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Manifest:
    """A manifest.

    Attributes:
        uri: of a Parquet or CSV file, or a folder.
        cameras: of a LeRobotDataset: those to take; none for all.
    """

    uri: str
    cameras: tuple[str, ...] = ()

    def clips(self) -> Iterator[Clip]:
        """Yield the clips in their order.

        Raises:
            FileNotFoundError: there is no such file or folder.
            InputError: the manifest is invalid; the message has the row.
            ResourceError: the store does not answer.
        """
        path = local_path(self.uri)
        is_dataset = path is not None and (path / "meta" / "info.json").is_file()
        if self.cameras and not is_dataset:
            raise InputError(
                f"{self.uri}: --camera is for LeRobotDatasets (no meta/info.json here)"
            )
        if is_dataset:
            yield from self._of_dataset()
        elif _suffix(self.uri) in (".parquet", ".csv", ".pq"):
            yield from self._of_table()
        else:
            yield from self._of_folder()

    def keys(self) -> UInt64[np.ndarray, " clips"]:
        """Return the keys of the clips, in their order; every row is checked for it.

        Raises:
            InputError: the manifest is invalid, has no clip, or an id twice.
        """
        every = np.fromiter((key_of(clip.id) for clip in self.clips()), np.uint64)
        if not len(every):
            raise InputError(f"{self.uri}: no clip; expected videos ({', '.join(sorted(VIDEOS))})")
        if len(np.unique(every)) < len(every):
            raise InputError(
                f"{self.uri}: clip {self._twice(every)!r} is there twice; ids are unique"
            )
        return every

    def _twice(self, keys: UInt64[np.ndarray, " clips"]) -> str:
        values, counts = np.unique(keys, return_counts=True)
        several = set(values[counts > 1].tolist())
        return next(clip.id for clip in self.clips() if key_of(clip.id) in several)

    def _of_table(self) -> Iterator[Clip]:
        with tempfile.TemporaryDirectory(prefix="msdyn-manifest-") as scratch:
            path = local_path(self.uri)
            if path is None:
                folder, name = posixpath.split(self.uri)
                path = Path(scratch) / f"manifest{_suffix(self.uri)}"
                Store(folder).get(name, path)
            rows = _csv_rows(path) if path.suffix == ".csv" else _parquet_rows(path)
            for number, row in enumerate(rows, 1):
                with reading(self.uri, "manifest"):
                    clip = self._clip(row, number)
                yield clip

    def _clip(self, row: Mapping[str, Any], number: int) -> Clip:
        """Return the clip of a row; the number is for messages."""
        uri = row.get("uri")
        if not isinstance(uri, str) or not uri.strip() or "\0" in uri:
            raise InputError(f"row {number}: expected a uri, got {printable(uri, 60)!r}")
        given = row.get("clip")
        clip_id = Path(uri).stem if given is None or given == "" else str(given)
        if not clip_id.strip() or len(clip_id) > _LONGEST_ID or not clip_id.isprintable():
            raise InputError(
                f"row {number}: expected a clip of 1 to {_LONGEST_ID} characters, "
                f"got {printable(clip_id, 60)!r}"
            )
        start, end = (_seconds(row, name, number) for name in ("start", "end"))
        if end is not None and end <= (start or 0.0):
            raise InputError(f"row {number}: expected an end after the start, got {start} to {end}")
        texts = {name: row.get(name) or "" for name in ("preprocess", "fit")}
        for name, text in texts.items():
            if not isinstance(text, str):
                raise InputError(f"row {number}: {name}: expected options as a text")
        metadata = {k: _json_value(v) for k, v in row.items() if k not in _KNOWN}
        return Clip(clip_id, self._whole(uri.strip()), start, end, metadata=metadata, **texts)

    def _whole(self, uri: str) -> str:
        """Return a URI that holds everywhere: relative paths are relative to the manifest."""
        path = local_path(uri)
        if path is None or path.is_absolute():
            return uri
        here = local_path(self.uri)
        if here is None:
            return posixpath.join(posixpath.dirname(self.uri), uri)
        return str((here.parent / path).absolute())

    def _of_dataset(self) -> Iterator[Clip]:
        from msdyn.io import LeRobotDataset, manifest_rows  # it loads torch, which others need not

        dataset = LeRobotDataset(str(local_path(self.uri)))
        cameras = self.cameras or tuple(dataset.cameras)
        for camera in cameras:
            for row in manifest_rows(dataset, camera):
                name = row["clip"] if len(cameras) == 1 else f"{row['clip']}-{camera}"
                metadata = {key: row[key] for key in ("episode", "camera", "dataset", "task")}
                yield Clip(name, row["uri"], preprocess=row["preprocess"], metadata=metadata)

    def _of_folder(self) -> Iterator[Clip]:
        path = local_path(self.uri)
        if path is not None and not path.is_dir():
            if path.is_file():
                raise InputError(
                    f"{self.uri}: expected a .parquet or .csv file, or a folder of videos"
                )
            raise FileNotFoundError(f"{self.uri}: no such file or folder")
        store = Store(self.uri if path is None else str(path.absolute()))
        names = [n for n in store.names(deep=True) if _suffix(n) in VIDEOS]
        names = [n for n in names if not any(part.startswith(".") for part in n.split("/"))]
        stems = [posixpath.splitext(name)[0] for name in names]
        unique = len(set(stems)) == len(stems)
        for name, stem in sorted(zip(names, stems, strict=True), key=lambda p: natural_order(p[0])):
            yield Clip(stem if unique else name, store.place(name))


def _suffix(uri: str) -> str:
    return posixpath.splitext(uri)[1].lower()


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with reading(path, "CSV file"):
        lines = (f"{line}\n" for _, line in read_lines(path))
        reader = csv.DictReader(lines, strict=True)
        names = reader.fieldnames or []
        if "uri" not in names:
            raise InputError(
                f"{path}: expected a column uri, got {printable(', '.join(names), 200)}"
            )
    while True:
        with reading(path, "CSV file"):
            row = next(reader, None)
        if row is None:
            return
        if None in row or None in row.values():
            raise InputError(f"{path}: line {reader.line_num}: expected {len(names)} values")
        yield row


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with opened_parquet(path, repeated=False) as file:
        if "uri" not in file.columns:
            names = printable(", ".join(file.columns), 200)
            raise InputError(f"expected a column uri, got {names}")
        for batch in file.batches(file.columns):
            yield from batch.to_pylist()


def _seconds(row: Mapping[str, Any], name: str, number: int) -> float | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < 1e9:
        raise InputError(f"row {number}: {name}: expected seconds, got {printable(value, 60)!r}")
    return seconds


def _json_value(value: Any) -> Any:
    """Return a value of a table as a JSON value; others, as times, as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value
