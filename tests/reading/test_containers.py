"""Readers of containers: every failure is one line that names the file, and costs no memory."""

import io
import json
import resource
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Annotated, TypedDict

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from msdyn.errors import InputError
from msdyn.reading import (
    as_schema,
    check_image_size,
    decode_json,
    image_size,
    load_npz,
    npz_keys,
    read_json,
    read_json_as,
    read_npy,
    read_pixels,
    read_rgb,
    read_safetensors,
    read_text,
    read_torch,
    reading,
    safetensors_header,
    stream_npz,
)


class Thing(TypedDict):
    width: Annotated[int, msgspec.Meta(ge=1, le=9)]
    times: list[float]


def refused(path, function, *args, match="a."):
    with pytest.raises(InputError, match=match) as caught:
        function(path, *args)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 600
    return message


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[NaN]",
        b"[Infinity]",
        b"[1e999]",
        b'"\\ud800"',
        b"\xff\xfe\x00",
        b"[" * 200_000 + b"]" * 200_000,
        b"[" * 65 + b"]" * 65,
        b"[1" + b"0" * 5000 + b"]",
        b"{} {}",
    ],
)
def test_what_is_not_json(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    refused(path, read_json)


def test_json_of_many_small_values_takes_no_memory(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"[" + b"[]," * 2**24 + b"[]]")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, read_json, match="at most 33554432 values")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB


def test_levels_of_json_are_counted_across_blocks():
    deep = b"[" * 40 + b'"' + b"x" * 2**20 + b'",' + b"[" * 30 + b"]" * 70
    with pytest.raises(InputError, match="at most 64 levels"):
        decode_json(deep, "a")
    assert decode_json(b"[" * 40 + b"1," * 2**19 + b"1" + b"]" * 40, "a")


def test_json_as_written(tmp_path):
    value = {"a": [1, 2.5, -3e-20, True, None, "ü\n"], "b": {"c": []}, "big": 2**70}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    assert read_json(path) == value
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(value).encode())
    assert read_json(path) == value
    nested = b"[" * 64 + b"]" * 64
    assert decode_json(nested, "x") is not None
    with pytest.raises(FileNotFoundError, match=r"no\.json"):
        read_json(tmp_path / "no.json")


@pytest.mark.parametrize(
    "value, message",
    [
        ([], "expected object, got array"),
        ({"times": []}, "width: missing"),
        ({"width": 0, "times": []}, "width: expected int >= 1, got 0"),
        ({"width": 10, "times": []}, "width: expected int <= 9, got 10"),
        ({"width": True, "times": []}, "width: expected int, got bool"),
        ({"width": 1.5, "times": []}, "width: expected int, got float"),
        ({"width": 1, "times": [1, "x"]}, r"times\[1\]: expected float, got str"),
        ({"width": 1, "times": {"a": 1}}, "times: expected array, got object"),
    ],
)
def test_values_of_another_type(tmp_path, value, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    refused(path, read_json_as, Thing, match=message)


def test_values_of_a_type(tmp_path):
    assert as_schema({"width": 3, "times": [1, 2.5], "more": 1}, Thing, "x") == {
        "width": 3,
        "times": [1.0, 2.5],
    }


def test_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffä\n".encode())
    assert read_text(path) == "ä\n"
    path.write_bytes(b"\xff\xfe")
    refused(path, read_text, match="not a readable text file")


def test_reading_takes_the_memory_of_the_file_alone(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1]")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**27, limits[1]))
    try:
        assert read_json(path) == [1]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_arrays_as_written(tmp_path):
    arrays = {
        "a": np.arange(12, dtype=">i2").reshape(3, 4),
        "f": np.asfortranarray(np.random.default_rng(0).normal(size=(5, 3))),
        "b": np.array([[True, False]]),
        "none": np.zeros((0, 3), np.float16),
        "scalar": np.float32(2.5),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    assert npz_keys(tmp_path / "a.npz") == list(arrays)
    for source in (tmp_path / "a.npz", (tmp_path / "a.npz").read_bytes()):
        for name, found in load_npz(source, tuple(arrays), "a.npz").items():
            np.testing.assert_array_equal(found, arrays[name])
            assert found.dtype == arrays[name].dtype and found.flags.writeable
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
        np.testing.assert_array_equal(read_npy(tmp_path / f"{name}.npy"), array)


def npy(shape, descr="<f4", data=b""):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return file.getvalue() + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00" + bytes(20),
        npy((10**12, 20)),
        npy((4,), data=bytes(15)),
        npy((-4,), data=bytes(16)),
        npy((2,), "|O", bytes(16)),
        npy((2,), "<U4", bytes(32)),
        npy((2,), "<M8[s]", bytes(16)),
        npy((2,), "<c8", bytes(16)),
        npy((2, 2)).replace(b"(2, 2)", b"(2, x)"),
        npy((2, 2)).replace(b"'<f4'", b"'<f3'"),
        npy((2, 2)).replace(b"'shape'", b"'shapf'"),
        npy((2, 2)).replace(b"{", b"("),
    ],
)
def test_damaged_arrays(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    refused(tmp_path / "a.npy", read_npy)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x.npy", content)
    assert "x" in refused(tmp_path / "a.npz", load_npz, ("x",))

    def streamed(path):
        with stream_npz(path, ("x",)) as arrays:
            arrays["x"].to_array()

    refused(tmp_path / "a.npz", streamed)


def test_bytes_of_bool_arrays_are_made_bool(tmp_path):
    (tmp_path / "a.npy").write_bytes(npy((4,), "|b1", bytes([0, 1, 2, 255])))
    found = read_npy(tmp_path / "a.npy")
    assert found.view(np.uint8).tolist() == [0, 1, 1, 1]


def test_damaged_archives(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=1000))
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refused(path, load_npz, ("x",))
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    path.write_bytes(bytes(damaged))
    refused(path, load_npz, ("x",))
    path.write_bytes(whole)
    refused(path, load_npz, ("y",), match="y missing, found x")
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", method) as file:
            file.writestr("x.npy", npy((4,), data=bytes(16)))
        refused(path, load_npz, ("x",), match="stored or deflated")


def bomb(path, count):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("x.npy", "w", force_zip64=True) as member:
            member.write(npy((count,), "<i4"))
            for _ in range(4 * count // 2**24):
                member.write(bytes(2**24))


def test_an_archive_that_unpacks_to_a_gigabyte_takes_none(tmp_path):
    bomb(tmp_path / "a.npz", 2**28)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path / "a.npz", load_npz, ("x",), match="packed data")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def png(path, width, height):
    """Write a PNG of one bit per pixel that holds no data."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        content += struct.pack(">I", len(data)) + kind + data
        content += struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)


def test_images(tmp_path):
    path = tmp_path / "a.png"
    image = np.random.default_rng(0).integers(0, 255, (7, 9, 3), np.uint8)
    Image.fromarray(image).save(path)
    for source in (path, path.read_bytes()):
        np.testing.assert_array_equal(read_rgb(source, "a.png"), image)
        assert image_size(source, "a.png") == (9, 7)
    refused(path, lambda p: read_pixels(p, size=(7, 8)), match="expected 8x7 px, got 9x7")
    whole = path.read_bytes()
    for cut in (0, 8, 20, len(whole) // 2):
        path.write_bytes(whole[:cut])
        refused(path, read_pixels)
    palette = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), "P")
    palette.putpalette(list(range(12)))
    palette.save(path)
    np.testing.assert_array_equal(read_pixels(path), [[0, 1], [2, 3]])
    for width, height in ((60000, 60000), (40000, 2), (2**31 - 1, 2**31 - 1)):
        png(path, width, height)
        refused(path, read_pixels)
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # no other formats
    refused(path, read_pixels)


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "tif", "webp", "mpo"])
def test_formats_of_images(tmp_path, kind):
    image = Image.fromarray(np.full((7, 9, 3), 90, np.uint8))
    more = {"save_all": True, "append_images": [image]} if kind == "mpo" else {}
    image.save(tmp_path / f"a.{kind}", **more)
    np.testing.assert_allclose(read_rgb(tmp_path / f"a.{kind}"), 90, atol=3)


@pytest.mark.parametrize("size", [(0, 5), (-1, 5), (8193, 8193), (40000, 1)])
def test_sizes_of_images(size):
    with pytest.raises(InputError, match="--width: expected at"):
        check_image_size(*size, "--width")
    check_image_size(8192, 8192, "--width")


def test_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.arange(4.0)}, path, metadata={"format": "f", "header": '{"n": 1}'})
    assert read_safetensors(path)["x"].tolist() == [0, 1, 2, 3]
    assert safetensors_header(path, "f", "thing") == {"n": 1}
    refused(path, safetensors_header, "g", "thing", match="expected a thing of msdyn")
    whole = path.read_bytes()
    damaged = [whole[:cut] for cut in (0, 5, 30, len(whole) - 1)]
    damaged += [struct.pack("<Q", 2**40) + b"{}", whole.replace(b"[4]", b"[9]")]
    damaged += [whole.replace(b'"F32"', b'"F99"'), whole.replace(b'"x"', b'"\xff"')]
    for content in damaged:
        path.write_bytes(content)
        refused(path, read_safetensors)
        refused(path, safetensors_header, "f", "thing")
    for metadata in ({"format": "f"}, *({"format": "f", "header": h} for h in ("[", "[]", "3"))):
        save_file({"x": torch.arange(4.0)}, path, metadata=metadata)
        refused(path, safetensors_header, "f", "thing")


def test_torch_files_that_unpack_to_more_than_they_may(tmp_path):
    bomb(tmp_path / "a.pt", 2**25)
    refused(tmp_path / "a.pt", read_torch, match="packed data")


@pytest.mark.parametrize(
    "error", [KeyError("x"), RecursionError(), IndexError(), MemoryError(), zlib.error("e\ne")]
)
def test_any_failure_is_an_input_error(error):
    with pytest.raises(InputError, match="a.bin: ") as caught, reading("a.bin", "box"):
        raise error
    assert "\n" not in str(caught.value)


def test_messages_that_quote_a_file_are_shortened():
    error = InputError("a.json: version: expected 1, got " + "1" * 5000 + "; update")
    assert len(str(error)) < 2000 and str(error).startswith("a.json: version: expected 1")
    assert str(error).endswith("; update")
    assert str(InputError("a.json: short")) == "a.json: short"


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "none.json"])
def test_files_that_cannot_be(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="no such file") as caught:
        read_json(tmp_path / name)
    assert len(str(caught.value)) < 1200


def test_other_errors_pass():
    for error in (PermissionError(13, "no", "a"), KeyboardInterrupt(), SystemExit(3), NameError()):
        with pytest.raises(type(error)), reading("a.bin"):
            raise error
    with pytest.raises(InputError, match="^a.bin: key: wrong$"), reading("a.bin"):
        raise InputError("key: wrong")
    with pytest.raises(InputError, match="^a.bin: wrong$"), reading("a.bin"):
        raise InputError("a.bin: wrong")


def test_reading_imports_no_torch():
    code = "import sys, msdyn.reading; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
