"""Text and JSON."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
import numpy as np

from msdyn.errors import InputError
from msdyn.reading.guard import reading, required_file, shown
from msdyn.reading.limits import LARGEST_TEXT, MOST_LEVELS, MOST_VALUES

__all__ = [
    "as_schema",
    "decode_json",
    "opened_file",
    "read_bytes",
    "read_gzipped_json",
    "read_json",
    "read_json_as",
    "read_lines",
    "read_text",
]

_LONGEST_LINE = 2**26
_BLOCK = 2**20

Schema = TypeVar("Schema")


def read_bytes(path: str | os.PathLike, largest: int = LARGEST_TEXT) -> bytes:
    """Return the content of a file.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it has more than `largest` bytes.
    """
    path = required_file(path)
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > largest:
            raise InputError(f"{path}: expected at most {largest / 1e6:.0f} MB, got more")
        return file.read()


@contextlib.contextmanager
def opened_file(path: str | os.PathLike, what: str = "file") -> Iterator[io.BufferedReader]:
    """Open a file for reading bytes in the block; what fails there is an `InputError`.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = required_file(path)
    with reading(path, what), path.open("rb") as file:
        yield file


def read_lines(path: str | os.PathLike) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file (UTF-8) without their ends, and their numbers from 1.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not text, or a line is too long.
    """
    with opened_file(path, "text file (UTF-8)") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE + 1), b""), 1):
            if len(line) > _LONGEST_LINE:
                raise InputError(f"line {number}: more than {_LONGEST_LINE / 1e6:.0f} MB")
            encoding = "utf-8-sig" if number == 1 else "utf-8"
            yield number, line.decode(encoding).rstrip("\r\n")


def read_text(path: str | os.PathLike) -> str:
    """Return the content of a text file (UTF-8, with or without a byte order mark).

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not text, or too large.
    """
    with reading(path, "text file (UTF-8)"):
        return read_bytes(path).decode("utf-8-sig")


def read_json(path: str | os.PathLike) -> Any:
    """Return the content of a JSON file; see `decode_json`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not JSON, or too large.
    """
    return decode_json(read_bytes(path), str(path))


def read_json_as(path: str | os.PathLike, schema: type[Schema]) -> Schema:
    """Return the content of a JSON file as a value of a type; see `as_schema`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not JSON, or of another type; the message names the file and key.
    """
    return as_schema(read_json(path), schema, str(path))


def read_gzipped_json(path: str | os.PathLike) -> Any:
    """Return the content of a JSON file that is compressed by gzip; see `decode_json`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not gzipped JSON, or too large.
    """
    path = required_file(path)
    data = bytearray()
    with reading(path, "gzipped JSON file"), gzip.open(path) as file:
        while block := file.read(_BLOCK):
            data += block
            if len(data) > LARGEST_TEXT:
                raise InputError(f"expected at most {LARGEST_TEXT / 1e6:.0f} MB, got more")
    return decode_json(bytes(data), str(path))


def decode_json(data: bytes | str, where: str) -> Any:
    """Return the value of a JSON text.

    NaN, infinity and numbers outside the range of a double are refused, as JSON has none.

    Args:
        data: the text.
        where: the file, for the message.

    Raises:
        InputError: not JSON, with more than `MOST_LEVELS` levels of brackets, or with more than
            `MOST_VALUES` values.
    """
    data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    data = data.removeprefix(b"\xef\xbb\xbf")
    with reading(where, "JSON"):
        values = data.count(b",") + data.count(b"[") + data.count(b"{")
        if values > MOST_VALUES:
            raise InputError(f"{where}: expected JSON of at most {MOST_VALUES} values, got more")
        if _levels(data) > MOST_LEVELS:
            raise InputError(f"{where}: expected JSON of at most {MOST_LEVELS} levels")
        try:
            return msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise InputError(f"{where}: not valid JSON ({error})") from error


def _levels(data: bytes) -> int:
    """Return the depth of brackets, or more where brackets are in strings."""
    deepest = level = 0
    for start in range(0, len(data), _BLOCK):
        codes = np.frombuffer(data, np.uint8, min(_BLOCK, len(data) - start), start)
        opening = (codes == ord("[")) | (codes == ord("{"))
        closing = (codes == ord("]")) | (codes == ord("}"))
        steps = opening[opening | closing].astype(np.int8) * 2 - 1
        levels = level + np.cumsum(steps, dtype=np.int32)
        deepest = max(deepest, int(levels.max(initial=0)))
        level = int(levels[-1]) if len(levels) else level
    return deepest


def as_schema(value: Any, schema: type[Schema], where: str) -> Schema:
    """Return a JSON value as a value of a type, checked.

    Args:
        value: as of `decode_json`.
        schema: dataclass, TypedDict, list, dict, ..., with `msgspec.Meta` for ranges; keys it does
            not have are ignored.
        where: the file, for the message.

    Raises:
        InputError: a key is missing or of another type or range; the message names it.
    """
    with reading(where, "file of this kind"):
        try:
            return msgspec.convert(value, schema)
        except msgspec.ValidationError as error:
            raise InputError(f"{where}: {_explained(str(error), value)}") from error


def _explained(message: str, value: Any) -> str:
    """Return a message of msgspec in the words of ours: key, expected, actual."""
    text, _, place = message.partition(" - at `$")
    key = place.rstrip("`").removeprefix(".")
    text = text.replace("`", "").replace("Expected", "expected", 1)
    if match := re.fullmatch(r"Object missing required field (.+)", text):
        name = f"{key}.{match[1]}" if key else match[1]
        return f"{name}: missing"
    if ", got" not in text and (actual := _at(value, key)) is not None:
        text += f", got {shown(actual)}"
    return f"{key}: {text}" if key else text


def _at(value: Any, key: str) -> Any:
    """Return the part of a value that a key of msgspec names; None where it names no single one."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]", key):
        if index == "...":
            return None
        value = value[int(index)] if index else value[name]
    return value
