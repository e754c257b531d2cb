"""Selection of the torch device, shared by all commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, TypeAlias

from msdyn.errors import InputError
from msdyn.options import Pattern

if TYPE_CHECKING:
    import torch

__all__ = ["DeviceName", "choose_device"]

_NAMES = Pattern(r"auto|cpu|cuda(:\d{1,3})?", "auto, cpu, cuda or cuda:N", "{auto,cpu,cuda,cuda:N}")

DeviceName: TypeAlias = Annotated[str, _NAMES]
"""The type of an option that names a device; see `choose_device`."""


def choose_device(name: str) -> torch.device:
    """Return the torch device of an option value.

    Args:
        name: "cpu", "cuda", "cuda:N" for GPU number N, or "auto" for a GPU if one is available
            and the CPU otherwise.

    Raises:
        InputError: another name, or a GPU that is not available.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(_NAMES.expression, name):
        raise InputError(f"device: expected {_NAMES.text}, got {name!r}")
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
