"""The choice of a device, the same for every command."""

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
    """Return the device of a name.

    Args:
        name: "cpu"; "cuda", or "cuda:N" for the GPU of that number; "auto" for a GPU if there is
            one, and otherwise the CPU.

    Raises:
        InputError: another name, or a GPU that torch does not find.
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
