"""Reading files of PyTorch without running code that is in them."""

from __future__ import annotations

import os
from typing import Any

import torch

from msdyn.errors import InputError

__all__ = ["read_torch"]

_LONGEST = 200


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
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such {what}")
    try:
        # weights_only: no code in the file is executed.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # of any kind: the reader trusts what the file says of itself
        reason = " ".join(str(error).split())[:_LONGEST]
        raise InputError(f"{path}: not a {what} ({reason})") from error
