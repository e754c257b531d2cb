"""Errors of the disk are told in one line, whoever reports them, and leave the old file."""

import errno
import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch

from msdyn.cli.run import run
from msdyn.errors import InputError, ResourceError
from msdyn.writing import atomic_path, disk_error, scratch_folder, write_tensors


class ForeignError(Exception):
    """An error of a library."""


@pytest.mark.parametrize(
    "error, text",
    [
        (OSError(errno.ENOSPC, "x", "a.png"), "a.png: No space left on device; free some space"),
        (OSError(errno.EROFS, "x", "a"), "a: Read-only file system; choose a folder"),
        (OSError(errno.EDQUOT, "x"), "Disk quota exceeded"),
        (OSError(errno.EMFILE, "x", "a"), "Too many open files; allow more"),
        (ForeignError("I/O error: No space left on device (os error 28)"), "No space left"),
        (ForeignError("io: (os error 30)"), "Read-only file system"),
        (RuntimeError("SQLite error: database or disk is full"), "No space left"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "Cannot allocate memory"),
        (MemoryError(), "Cannot allocate memory"),
    ],
    ids=str,
)
def test_errors_of_libraries_are_recognised(error, text):
    told = disk_error(error)
    assert told is not None and text in str(told) and told.exit_code == 4
    assert "\n" not in str(told)


def test_the_cause_of_an_error_counts_unless_it_has_been_explained():
    def nested(outer, inner):
        outer.__cause__ = inner
        return outer

    full = OSError(errno.ENOSPC, "x", "a")
    assert disk_error(nested(ForeignError("cannot write"), full)) is not None
    assert disk_error(nested(InputError("a: not a picture"), full)) is None
    for other in (ValueError("12 is no number"), FileNotFoundError(2, "x", "a"), KeyError("28")):
        assert disk_error(other) is None


def test_permission_to_write_and_to_read(tmp_path):
    assert disk_error(PermissionError(13, "x", str(tmp_path / "new"))) is not None
    assert disk_error(PermissionError(13, "x")) is None


@pytest.fixture
def small_files():
    """Limit the size of files to 8 kB, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_numpy(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(10_000))


def write_pillow(path):
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)
    Image.fromarray(noise).save(path, format="PNG")


def write_imageio(path):
    import imageio.v3 as iio

    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)
    iio.imwrite(path, noise, extension=".png")


def write_torch(path):
    torch.save(torch.zeros(10_000), path)


def write_safetensors(path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(10_000)}, path)


def write_foreign(path):
    path.write_bytes(bytes(8192))
    raise ForeignError("something went wrong")


@pytest.mark.parametrize(
    "write",
    [write_numpy, write_pillow, write_imageio, write_torch, write_safetensors, write_foreign],
)
def test_a_file_that_cannot_be_written(tmp_path, small_files, write):
    path = tmp_path / "result.png"
    path.write_text("before")
    with pytest.raises(ResourceError, match=r"result\.png: File too large"):
        with atomic_path(path) as temporary:
            write(temporary)
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


def test_errors_that_are_not_of_the_disk_stay_as_they_are(tmp_path):
    with pytest.raises(ForeignError), atomic_path(tmp_path / "a"):
        raise ForeignError("a bug")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_vanishes_while_a_file_is_written(tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(ResourceError, match="vanished"):
        with atomic_path(folder / "a") as temporary:
            temporary.unlink()
            folder.rmdir()
            temporary.write_text("x")


def test_scratch_names_its_folder_and_removes_it():
    with pytest.raises(ResourceError, match="msdyn-scratch.*No space left") as told:
        with scratch_folder() as folder:
            (folder / "a").write_text("x")
            raise RuntimeError("SQLite error: database or disk is full")
    assert str(folder) in str(told.value) and not folder.exists()


def test_commands_exit_with_4(capsys):
    def fill(_: None) -> None:
        raise RuntimeError("PNG: No space left on device")

    assert run(fill, None) == 4
    assert capsys.readouterr().err.splitlines() == [
        "error: No space left on device; free some space and give the same command again"
    ]


def test_a_closed_pipe_ends_a_command_quietly():
    code = (
        "import sys; from msdyn.cli.run import run\n"
        "sys.exit(run(lambda _: [print('x' * 100) for _ in range(10000)] and 0, None))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait() == 141 and process.stderr.read() == b""
    process.stderr.close()


def test_files_are_synced_before_they_are_renamed(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: calls.append(os.readlink(f"/proc/self/fd/{handle}"))
    )
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    with atomic_path(tmp_path / "a.txt") as path:
        path.write_text("x")
    assert calls[0].startswith(str(tmp_path / ".a~")) and calls[1:] == ["rename", str(tmp_path)]


def test_equal_tensors_give_equal_bytes_that_the_library_reads(tmp_path):
    from safetensors import safe_open

    tensors = {
        "z": torch.arange(6).reshape(2, 3),
        "a": torch.rand(3, generator=torch.Generator().manual_seed(0)),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "flags": torch.tensor([True, False, True]),
        "none": torch.zeros(0, 3),
        "one": torch.tensor(2.5, dtype=torch.float64),
        "strided": torch.arange(12).reshape(3, 4).T,
    }
    for name, order in (("a", list(tensors)), ("b", sorted(tensors))):
        header = {key: 1 for key in order}
        write_tensors(tmp_path / name, {k: tensors[k] for k in order}, format="test", header=header)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with safe_open(tmp_path / "a", framework="pt") as file:
        metadata = file.metadata()
        assert metadata["format"] == "test" and set(json.loads(metadata["header"])) == set(tensors)
        assert set(file.keys()) == set(tensors)
        for name, value in tensors.items():
            assert torch.equal(file.get_tensor(name), value), name
