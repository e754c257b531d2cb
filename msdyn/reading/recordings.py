"""Recordings of robots: MCAP files, bags of ROS 1, and databases and folders of rosbag2.

A recording has topics and their messages, which are bytes here; `msdyn.io.ros_messages` parses
them.

Reference: the specification of MCAP at mcap.dev/spec; the tables `topics` and `messages` of
rosbag2_storage_sqlite3 in github.com/ros2/rosbag2.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdyn.errors import InputError
from msdyn.reading.file_names import natural_order
from msdyn.reading.guard import reading, required_file
from msdyn.reading.limits import check_bytes
from msdyn.reading.packed import load_robots, unpack
from msdyn.reading.text import opened_file

__all__ = ["Recording", "RecordedMessage", "Topic"]

_SUFFIXES = (".mcap", ".db3", ".bag")
_LARGEST_RECORD = 2**30
"""Bytes of a record of MCAP, such as a chunk; writers make chunks of about a megabyte."""
_UNINDEXED = "; an interrupted recording is repaired by `mcap recover` or `rosbag reindex`"


@dataclass(frozen=True)
class Topic:
    """A topic of a recording.

    Attributes:
        name: such as `/camera/image`.
        type: of its messages, such as `sensor_msgs/msg/Image` or `foxglove.CompressedVideo`.
        encoding: of its messages: "cdr", "ros1", "protobuf", or another.
        count: number of messages.
    """

    name: str
    type: str
    encoding: str
    count: int = 0


@dataclass(frozen=True)
class RecordedMessage:
    """A message as it is stored.

    Attributes:
        topic: of the message.
        log_time: ns, when it was recorded.
        data: its bytes.
    """

    topic: Topic
    log_time: int
    data: bytes


class Recording:
    """A recording: one file, or a folder of several that continue one another.

    Attributes:
        path: of the file or folder.
        topics: by name.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """Read which topics a recording has.

        Raises:
            FileNotFoundError: there is no such file or folder.
            InputError: no recording, or a damaged one.
            MissingExtraError: the packages of `msdyn[robots]` are not installed.
        """
        self.path = Path(path)
        self._files = _files_of(self.path)
        counts: Counter[str] = Counter()
        found: dict[str, Topic] = {}
        for file in self._files:
            for topic in _format_of(file).topics(file):
                first = found.setdefault(topic.name, topic)
                if (first.type, first.encoding) != (topic.type, topic.encoding):
                    raise InputError(
                        f"{file}: {topic.name}: messages of one type expected, got {first.type} "
                        f"and {topic.type}"
                    )
                counts[topic.name] += topic.count
        self.topics = {
            name: dataclasses.replace(topic, count=counts[name]) for name, topic in found.items()
        }

    def messages(self, topics: Collection[str]) -> Iterator[RecordedMessage]:
        """Yield the messages of some topics, in the order in which they are stored.

        Raises:
            InputError: the recording is damaged.
        """
        for file in self._files:
            for name, log_time, data in _format_of(file).messages(file, topics):
                yield RecordedMessage(self.topics[name], log_time, data)


def _files_of(path: Path) -> list[Path]:
    """Return the files that a recording consists of."""
    if not path.is_dir():
        file = required_file(path)
        if file.suffix.lower() not in _SUFFIXES:
            raise InputError(
                f"{path}: expected a recording ({', '.join(_SUFFIXES)}), or a folder of rosbag2"
            )
        return [file]
    files = [file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES]
    if not files:
        packed = any(path.glob("*.zstd"))
        cure = "; its files are compressed: unpack them (zstd -d --rm *.zstd)" if packed else ""
        raise InputError(f"{path}: no recording in this folder (.mcap or .db3){cure}")
    return sorted(files, key=natural_order)


class _Mcap:
    """Files of MCAP, which are read from their beginning to their end."""

    @staticmethod
    def topics(path: Path) -> list[Topic]:
        """Return the topics, with the counts of the index or, without one, from all messages."""
        reader = load_robots("mcap.reader")
        with opened_file(path, "MCAP file") as file, _cured(path):
            index = reader.SeekingReader(file, record_size_limit=_LARGEST_RECORD)
            summary = index.get_summary()
        if summary is not None and summary.statistics is not None and summary.channels:
            counts: Any = summary.statistics.channel_message_counts
            return _Mcap._topics(summary.channels, summary.schemas, counts)
        schemas: dict[int, Any] = {}
        channels: dict[int, Any] = {}
        counts = Counter()
        with _cured(path):
            for record in _Mcap._records(path):
                kind = type(record).__name__
                if kind == "Schema":
                    schemas[record.id] = record
                elif kind == "Channel":
                    channels[record.id] = record
                elif kind == "Message":
                    counts[record.channel_id] += 1
        return _Mcap._topics(channels, schemas, counts)

    @staticmethod
    def _topics(channels: dict[int, Any], schemas: dict[int, Any], counts: Any) -> list[Topic]:
        return [
            Topic(
                channel.topic,
                schemas[channel.schema_id].name if channel.schema_id in schemas else "",
                channel.message_encoding,
                counts.get(channel.id, 0),
            )
            for channel in channels.values()
        ]

    @staticmethod
    def messages(path: Path, topics: Collection[str]) -> Iterator[tuple[str, int, bytes]]:
        """Yield topic, time and content of messages."""
        names: dict[int, str] = {}
        with _cured(path):
            for record in _Mcap._records(path):
                kind = type(record).__name__
                if kind == "Channel" and record.topic in topics:
                    names[record.id] = record.topic
                elif kind == "Message" and record.channel_id in names:
                    yield names[record.channel_id], record.log_time, record.data

    @staticmethod
    def _records(path: Path) -> Iterator[Any]:
        """Yield the records of a file, those in chunks too."""
        streams, records = load_robots("mcap.stream_reader"), load_robots("mcap.records")
        with opened_file(path, "MCAP file") as file:
            stream = streams.StreamReader(file, emit_chunks=True, record_size_limit=_LARGEST_RECORD)
            for record in stream.records:
                if not isinstance(record, records.Chunk):
                    yield record
                    continue
                data = unpack(
                    record.data, record.compression, f"{path}: chunk", record.uncompressed_size
                )
                plain = dataclasses.replace(record, compression="", data=data)
                yield from streams.breakup_chunk(plain, validate_crc=True)


class _Rosbag1:
    """Bags of ROS 1."""

    @staticmethod
    def topics(path: Path) -> list[Topic]:
        """Return the topics, from the index."""
        with _Rosbag1._opened(path) as bag:
            return [
                Topic(name, info.msgtype or "", "ros1", info.msgcount)
                for name, info in bag.topics.items()
            ]

    @staticmethod
    def messages(path: Path, topics: Collection[str]) -> Iterator[tuple[str, int, bytes]]:
        """Yield topic, time and content of messages."""
        with _Rosbag1._opened(path) as bag:
            chosen = [c for c in bag.connections if c.topic in topics]
            if chosen:
                for connection, time, data in bag.messages(chosen):
                    yield connection.topic, time, data

    @staticmethod
    @contextlib.contextmanager
    def _opened(path: Path) -> Iterator[Any]:
        rosbag1 = load_robots("rosbags.rosbag1.reader")
        packings = {unpacker: name for name, unpacker in rosbag1.decompressors.items()}
        with reading(path, "bag of ROS 1"), _cured(path), rosbag1.Reader(path) as bag:
            # Those of the library unpack whatever there is.
            for place, chunk in bag.chunks.items():
                check_bytes(chunk.datasize, f"{path}: chunk")
                packing = packings[chunk.decompressor]
                bag.chunks[place] = chunk._replace(decompressor=_bounded(packing, path))
            yield bag


class _Rosbag2:
    """Databases of rosbag2."""

    @staticmethod
    def topics(path: Path) -> list[Topic]:
        """Return the topics, with the numbers of their messages."""
        with _Rosbag2._opened(path) as database:
            counts = dict(
                database.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id")
            )
            rows = database.execute("SELECT id, name, type, serialization_format FROM topics")
            return [
                Topic(str(name), str(kind), str(encoding), int(counts.get(number, 0)))
                for number, name, kind, encoding in rows
            ]

    @staticmethod
    def messages(path: Path, topics: Collection[str]) -> Iterator[tuple[str, int, bytes]]:
        """Yield topic, time and content of messages."""
        with _Rosbag2._opened(path) as database:
            rows = database.execute("SELECT id, name FROM topics")
            names = {number: name for number, name in rows if name in topics}
            every = "SELECT topic_id, timestamp, data FROM messages ORDER BY timestamp"
            for number, time, data in database.execute(every):
                if number not in names:
                    continue
                if not isinstance(time, int) or not isinstance(data, bytes):
                    raise InputError("messages: expected numbers and bytes, got others")
                yield names[number], time, data

    @staticmethod
    @contextlib.contextmanager
    def _opened(path: Path) -> Iterator[sqlite3.Connection]:
        path.open("rb").close()  # raises PermissionError, which is no damage
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        with (
            reading(path, "database of rosbag2"),
            contextlib.closing(sqlite3.connect(uri, uri=True)) as database,
        ):
            database.execute("PRAGMA trusted_schema = OFF")
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            (page,) = database.execute("PRAGMA page_size").fetchone()
            if pages * page > path.stat().st_size:
                raise InputError(f"expected {pages * page} bytes, got {path.stat().st_size}")
            if not {"topics", "messages"} <= {name for (name,) in tables}:
                raise InputError("expected tables of topics and messages")
            yield database


_Format = type[_Mcap] | type[_Rosbag1] | type[_Rosbag2]


def _format_of(path: Path) -> _Format:
    """Return what reads a file, by its suffix."""
    formats: dict[str, _Format] = {".mcap": _Mcap, ".bag": _Rosbag1, ".db3": _Rosbag2}
    return formats[path.suffix.lower()]


def _bounded(packing: str, path: Path) -> Any:
    """Return a function that unpacks a chunk of a bag."""
    return lambda data: unpack(data, packing, f"{path}: chunk")


@contextlib.contextmanager
def _cured(path: Path) -> Iterator[None]:
    """Say of what ends early how such a recording is repaired."""
    with reading(path, "recording", cure=_UNINDEXED):
        yield
