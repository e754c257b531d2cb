"""Selection of the torch device, shared by all commands."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

import torch
import tyro

from msdyn.errors import InputError

__all__ = ["DeviceName", "choose_device"]

DeviceName: TypeAlias = Annotated[str, tyro.conf.arg(metavar="{auto,cpu,cuda,cuda:N}")]
"""The type of an option that names a device; see `choose_device`."""


def choose_device(name: str) -> torch.device:
    """Return the torch device of an option value.

    Args:
        name: "cpu", "cuda", "cuda:N" for GPU number N, or "auto" for a GPU if one is available
            and the CPU otherwise.

    Raises:
        InputError: another name, or a GPU that is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise InputError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise InputError(
                f"device: expected a CUDA device for {name}, torch finds none; use --device cpu"
            )
        if (device.index or 0) >= count:
            raise InputError(f"device: expected cuda:0 to cuda:{count - 1}, got {name}")
    return device
