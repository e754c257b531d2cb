"""Selection of the torch device, shared by all commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, TypeAlias

from msdyn.errors import InputError
from msdyn.options import Pattern

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from jaxtyping import Shaped

__all__ = ["DeviceName", "choose_device", "numbers_like", "upload"]

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


def upload(values: Shaped[np.ndarray, "*shape"], device: torch.device) -> torch.Tensor:
    """Return an array as a tensor on a device, without waiting for a GPU.

    A copy from memory that is not pinned, as `torch.as_tensor(values, device=...)` makes it, waits
    until the GPU has done all that it was given before.

    Args:
        values: of numpy; on the CPU the tensor shares their memory.
        device: of the tensor.
    """
    import torch

    tensor = torch.from_numpy(values)
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def numbers_like(numbers: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """Return numbers in the type and on the device of a tensor, by `upload`.

    `like.new_tensor(numbers)` waits for a GPU.
    """
    import numpy as np

    return upload(np.array(numbers, float), like.device).to(like.dtype)
