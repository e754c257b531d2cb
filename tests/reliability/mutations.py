"""Damage to the content of files: of any file, and of what a format says of itself."""

from __future__ import annotations

import copy
import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import numpy as np

__all__ = ["damaged"]

Mutation = Callable[[np.random.Generator, bytes], bytes]

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e-320, 1e18, 1e300, -1e300, 2**31, 2**40, 2**63),
    *(-(2**63), 10**400, "", "x", "nan", "../../etc/passwd", "\x00", "\ud800", "ä" * 300, [], {}),
    *([[]], [0], {"a": 1}, [1, "x"], [[1, 2], [3]], "<script>", "1" * 5000),
)
"""For any key of a JSON file."""
RAW = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"[" * 3000, b"\xff\xfe", b"01", b"'a'")
"""What JSON does not know."""
WORDS = (
    *("nan", "inf", "-inf", "1e999", "-1", "0", "x", "9" * 400, "1e308", "-1e308", "", "#", "1 2"),
    *("\x00", "\udcff", "ä", "1,5", "4294967296", "18446744073709551616"),
)
"""For any word of a text file."""
NUMBERS = (0, 1, 2, 255, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)
KINDS = ("f2", "f4", "f8", "i1", "i4", "i8", "u1", "u8", "?", "c8", "S3", "U2", "M8[s]", ">f4")


def damaged(rng: np.random.Generator, content: bytes, name: str) -> bytes:
    """Return damaged content of a file; by its suffix, what its format declares is changed too."""
    suffix = PurePath(name).suffix
    special = OF_FORMAT.get(suffix, ())
    choices = (*BYTES, *special, *special, *special)  # more often than bits
    for _ in range(1 + int(rng.random() < 0.2)):
        mutation = choices[int(rng.integers(len(choices)))]
        try:
            content = mutation(rng, content)
        except Exception:  # what is damaged already cannot be taken apart
            content = flipped(rng, content)
    return content


def flipped(rng: np.random.Generator, content: bytes) -> bytes:
    """Flip bits, more of them in the first kilobyte, where the headers are."""
    data = bytearray(content or b"\x00")
    for _ in range(int(rng.choice([1, 1, 2, 4, 16]))):
        end = min(len(data), 1024) if rng.random() < 0.5 else len(data)
        data[int(rng.integers(end))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def cut(rng: np.random.Generator, content: bytes) -> bytes:
    end = int(rng.choice([0, 1, 8, len(content) // 2, max(len(content) - 1, 0), -1]))
    return content[: int(rng.integers(len(content) + 1)) if end < 0 else end]


def swapped(rng: np.random.Generator, content: bytes) -> bytes:
    a, b, c = np.sort(rng.integers(0, len(content) + 1, 3)).tolist()
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def repeated(rng: np.random.Generator, content: bytes) -> bytes:
    a, b = np.sort(rng.integers(0, len(content) + 1, 2)).tolist()
    return content[:b] + content[a:b] * int(rng.integers(1, 4)) + content[b:]


def overwritten(rng: np.random.Generator, content: bytes) -> bytes:
    """Write a number that is no likely one over bytes of the file."""
    size, order = int(rng.choice([1, 2, 4, 8])), str(rng.choice(["little", "big"]))
    number = int(NUMBERS[int(rng.integers(len(NUMBERS)))]) % 256**size
    end = min(len(content), 512) if rng.random() < 0.6 else len(content)
    start = int(rng.integers(max(1, end)))
    data = number.to_bytes(size, "little" if order == "little" else "big")
    return content[:start] + data + content[start + size :]


def filled(rng: np.random.Generator, content: bytes) -> bytes:
    a, b = np.sort(rng.integers(0, len(content) + 1, 2)).tolist()
    return content[:a] + bytes([int(rng.choice([0, 10, 32, 255]))]) * (b - a) + content[b:]


def extended(rng: np.random.Generator, content: bytes) -> bytes:
    return content + rng.bytes(int(rng.choice([1, 100, 5000])))


BYTES: tuple[Mutation, ...] = (flipped, flipped, cut, swapped, repeated, overwritten, filled)
BYTES += (overwritten, extended)


def _value(rng: np.random.Generator) -> Any:
    return copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return container and key of every value, long lists by a few of their values."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items)[:40]:
        found.append((value, key))
        if isinstance(inner, dict | list):
            found += _places(inner)
    return found


def json_changed(rng: np.random.Generator, content: bytes) -> bytes:
    """Change, remove, add or repeat a value."""
    value = json.loads(content)
    places = _places(value)
    # Keys that are near the top as often as the many numbers of matrices.
    names = [place for place in places if isinstance(place[1], str)]
    if names and rng.random() < 0.7:
        places = names
    container, key = places[int(rng.integers(len(places)))]
    end = int(rng.integers(8))
    if end < 5:
        container[key] = _value(rng)
    elif end == 5:
        del container[key]
    elif end == 6 and isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    elif isinstance(container, dict):
        container[str(_value(rng))] = _value(rng)
    if rng.random() < 0.03:
        value = _value(rng)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def json_raw(rng: np.random.Generator, content: bytes) -> bytes:
    """Put what JSON does not know in the place of a value."""
    value = json.loads(content)
    places = _places(value)
    container, key = places[int(rng.integers(len(places)))]
    container[key] = "@HERE@"
    return json.dumps(value).encode().replace(b'"@HERE@"', RAW[int(rng.integers(len(RAW)))])


def line_changed(rng: np.random.Generator, content: bytes) -> bytes:
    """Change a line of lines of JSON."""
    lines = content.splitlines()
    row = int(rng.integers(len(lines)))
    lines[row] = json_changed(rng, lines[row])
    return b"\n".join(lines)


def words_changed(rng: np.random.Generator, content: bytes) -> bytes:
    lines = content.decode().splitlines()
    row = int(rng.integers(len(lines)))
    words = lines[row].split(" ")
    place, end = int(rng.integers(len(words))), int(rng.integers(6))
    if end < 3:
        words[place] = WORDS[int(rng.integers(len(WORDS)))]
    elif end == 3:
        del words[place]
    else:
        words.insert(place, words[place])
    lines[row] = " ".join(words)
    if end == 5:
        lines.insert(int(rng.integers(len(lines))), lines[row] * int(rng.choice([1, 1000])))
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def array_changed(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    """Change the type, shape or values of an array."""
    end = int(rng.integers(8))
    if end == 0:
        return array.astype(KINDS[int(rng.integers(len(KINDS)))])
    if end == 1:
        return array.reshape(-1) if rng.random() < 0.5 else array[None]
    if end == 2:
        return array[: int(rng.integers(len(array) + 1))]
    if end == 3:
        return np.zeros(tuple(int(n) for n in rng.integers(0, 4, int(rng.integers(0, 5)))))
    if end == 4:
        return array.T
    if end == 5:
        return np.concatenate([array, array])
    changed = array.copy()
    if changed.dtype.kind in "fiu" and changed.size:
        limits: tuple[float, ...] = (np.nan, np.inf, -np.inf, 1e30, -1e30, -1, 0, 65504)
        if changed.dtype.kind in "iu":
            info = np.iinfo(changed.dtype)
            limits = (int(info.min), int(info.max), 0, 1)
        count = changed.size if end == 6 else 1
        with np.errstate(all="ignore"):
            places = rng.integers(0, changed.size, count)
            changed.reshape(-1)[places] = limits[int(rng.integers(len(limits)))]
    return changed


def npy_changed(rng: np.random.Generator, content: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, array_changed(rng, np.load(io.BytesIO(content))))
    return file.getvalue()


def npy_header(rng: np.random.Generator, content: bytes) -> bytes:
    """Change what the header declares, not the values."""
    file = io.BytesIO()
    array = np.load(io.BytesIO(content))
    shape = list(array.shape) or [1]
    shape[int(rng.integers(len(shape)))] = int(rng.choice([0, -1, 10**6, 10**12, 2**62]))
    kinds = (*KINDS, "|O", array.dtype.str)
    header = {"descr": kinds[int(rng.integers(len(kinds)))], "fortran_order": bool(rng.integers(2))}
    np.lib.format.write_array_header_1_0(file, header | {"shape": tuple(shape)})
    return file.getvalue() + content[128:]


def npz_changed(rng: np.random.Generator, content: bytes) -> bytes:
    with np.load(io.BytesIO(content)) as stored:
        arrays = dict(stored)
    name = list(arrays)[int(rng.integers(len(arrays)))]
    end = int(rng.integers(10))
    if end == 0:
        del arrays[name]
    elif end == 1:
        arrays[name + "x"] = arrays.pop(name)
    elif end == 2:
        arrays[name] = np.array([{"a": 1}], object)
    else:
        arrays[name] = array_changed(rng, arrays[name])
    file = io.BytesIO()
    np.savez(file, **arrays)  # pyright: ignore
    return file.getvalue()


def png_changed(rng: np.random.Generator, content: bytes) -> bytes:
    """Change the header of a PNG, with the checksum of the new one."""
    header = list(struct.unpack(">IIBBBBB", content[16:29]))
    field = int(rng.integers(7))
    sizes = (0, 1, 63, 128, 30000, 65535, 2**31 - 1)
    header[field] = int(rng.choice(sizes)) if field < 2 else int(rng.choice([0, 1, 2, 3, 4, 6, 16]))
    chunk = b"IHDR" + struct.pack(">IIBBBBB", *header)
    return content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


def image_changed(rng: np.random.Generator, content: bytes) -> bytes:
    """Return a whole image of another size or mode."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as opened:
        image, kind = opened.copy(), opened.format
    if rng.random() < 0.5:
        image = image.resize((int(rng.integers(1, 80)), int(rng.integers(1, 80))))
    else:
        image = image.convert(str(rng.choice(["1", "L", "P", "RGB", "RGBA", "CMYK", "I", "LA"])))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def safetensors_header(rng: np.random.Generator, content: bytes) -> bytes:
    """Change the header of a safetensors file, or the JSON that it holds."""
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    about = header.get("__metadata__", {})
    if "header" in about and rng.random() < 0.5:
        about["header"] = json_changed(rng, about["header"].encode()).decode("utf-8", "replace")
        changed = json.dumps(header).encode()
    else:
        changed = json_changed(rng, json.dumps(header).encode())
    return struct.pack("<Q", len(changed)) + changed + content[8 + size :]


def tensor_changed(rng: np.random.Generator, content: bytes) -> bytes:
    """Change a tensor of a safetensors file."""
    from safetensors.numpy import load, save

    (size,) = struct.unpack("<Q", content[:8])
    about = json.loads(content[8 : 8 + size]).get("__metadata__")
    tensors = load(content)
    name = list(tensors)[int(rng.integers(len(tensors)))]
    if rng.random() < 0.1:
        del tensors[name]
    else:
        tensors[name] = np.ascontiguousarray(array_changed(rng, tensors[name]))
    return save(tensors, about)


def gzip_changed(rng: np.random.Generator, content: bytes) -> bytes:
    return gzip.compress(json_changed(rng, gzip.decompress(content)), 1)


def zip_changed(rng: np.random.Generator, content: bytes) -> bytes:
    """Damage, rename or remove a member of a zip file, with the checksum of the new one."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = list(members)[int(rng.integers(len(members)))]
    end = int(rng.integers(10))
    if end == 0:
        del members[name]
    elif end == 1:
        members[str(rng.choice(["../x", "/etc/passwd", "9" * 30, ""])) + name] = members.pop(name)
    else:
        members[name] = damaged(rng, members[name], "a.json" if name == "metadata" else name)
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, member in members.items():
            file.writestr(name, member)
    return changed.getvalue()


def mcap_changed(rng: np.random.Generator, content: bytes) -> bytes:
    """Damage a message, topic, type or encoding of an MCAP file, with the checksums of the new."""
    from mcap.reader import make_reader
    from mcap.writer import CompressionType, Writer

    changed, channels = io.BytesIO(), {}
    writer = Writer(changed, compression=rng.choice(list(CompressionType)))
    writer.start("ros2")
    rows = list(make_reader(io.BytesIO(content)).iter_messages(log_time_order=False))
    chosen, part = int(rng.integers(len(rows))), int(rng.integers(12))
    for number, (schema, channel, message) in enumerate(rows):
        names = [channel.topic, schema.name, channel.message_encoding]
        data = message.data
        if number == chosen and part < len(names):
            others = [row[0].name for row in rows] + ["", "x" * 300, "ros1", "protobuf"]
            names[part] = str(rng.choice(others))
        elif number == chosen:
            data = (flipped, cut)[part % 2](rng, data)
        if tuple(names) not in channels:
            kind = writer.register_schema(names[1], "ros2msg", b"")
            channels[tuple(names)] = writer.register_channel(names[0], names[2], kind)
        time = int(rng.choice(NUMBERS)) if rng.random() < 0.01 else message.log_time
        writer.add_message(channels[tuple(names)], time, data, time)
    writer.finish()
    return changed.getvalue()


OF_FORMAT: dict[str, tuple[Mutation, ...]] = {
    ".json": (json_changed, json_changed, json_changed, json_raw),
    ".jsonl": (line_changed, json_raw),
    ".jgz": (gzip_changed,),
    ".txt": (words_changed,),
    ".npy": (npy_changed, npy_header),
    ".npz": (npz_changed,),
    ".zip": (zip_changed,),
    ".r3d": (zip_changed,),
    ".mcap": (mcap_changed,),
    ".png": (png_changed, image_changed),
    ".jpg": (image_changed,),
    ".safetensors": (safetensors_header, tensor_changed),
}
