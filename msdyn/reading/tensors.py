"""safetensors files, and files of PyTorch without running code that is in them."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING, Any

from msdyn.errors import InputError
from msdyn.reading.guard import reading, required_file
from msdyn.reading.limits import check_bytes, check_packed
from msdyn.reading.text import decode_json

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "OtherFormatError",
    "is_safetensors",
    "read_safetensors",
    "read_torch",
    "safetensors_header",
]


class OtherFormatError(InputError):
    """A whole safetensors file that is not marked with the expected format."""


def is_safetensors(path: str | os.PathLike) -> bool:
    """Return whether a file begins as safetensors files do: with the size of a JSON object."""
    path = required_file(path)
    with path.open("rb") as file:
        start = file.read(9)
    return (
        len(start) == 9
        and start[8:] == b"{"
        and (int.from_bytes(start[:8], "little") <= path.stat().st_size - 8)
    )


def safetensors_header(
    path: str | os.PathLike, file_format: str, what: str, *, cure: str = ""
) -> dict[str, Any]:
    """Return the header of a safetensors file of msdyn: JSON under the key `header`.

    Args:
        path: of the file.
        file_format: that the file must be marked with.
        what: it should be, for messages.
        cure: what to do about a damaged file, appended to the message.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not a safetensors file, or of another format.
    """
    from safetensors import safe_open

    path = required_file(path)
    with reading(path, what, cure=cure):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != file_format:
            raise OtherFormatError(
                f"{path}: expected a {what} of msdyn, got another safetensors file"
            )
        header = decode_json(metadata["header"], f"{path}: header")
        if not isinstance(header, dict):
            raise InputError(f"header: expected a JSON object, got {type(header).__name__}")
        return header


def read_safetensors(
    path: str | os.PathLike,
    what: str = "safetensors file",
    *,
    mapped: bool = False,
    cure: str = "",
) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, on the CPU.

    Args:
        path: of the file.
        what: it should be, for messages.
        mapped: the file is mapped and read when it is used, instead of into memory of their own.
        cure: what to do about a damaged file, appended to the message.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: damaged, or larger than the memory.
    """
    from safetensors import safe_open

    path = required_file(path)
    with reading(path, what, cure=cure):
        check_bytes(path.stat().st_size, str(path))
        with safe_open(path, framework="pt") as file:
            # Cloned: rounding in vectorised kernels depends on the alignment, and the file may
            # change while it is mapped.
            names = list(file.keys())
            tensors = ((name, file.get_tensor(name)) for name in names)
            return {name: value if mapped else value.clone() for name, value in tensors}


def read_torch(
    path: str | os.PathLike, what: str = "file of tensors", *, mmap: bool = False
) -> Any:
    """Return the content of a file of `torch.save`, on the CPU.

    Args:
        path: of the file.
        what: it should be, for the error.
        mmap: read tensors when they are used.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is damaged, or holds other things than tensors and plain containers.
    """
    import torch

    path = required_file(path)
    with reading(path, what):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                size = sum(info.file_size for info in file.infolist())
            check_bytes(size, str(path))
            check_packed(path.stat().st_size, size, str(path))
        # weights_only: no code in the file is executed.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
