"""Writing safetensors files: equal tensors and metadata give equal bytes.

The library writes its metadata in random order. Here the header is sorted JSON; tensors are in
order of the size of their type, largest first, then of their names, as the library has them.

Reference: the format, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from msdyn.writing.files import atomic_path

__all__ = ["write_tensors"]

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(
    path: str | os.PathLike, tensors: Mapping[str, Tensor], *, format: str, header: Any
) -> None:
    """Write tensors atomically, with a format's name and a JSON value in the metadata.

    Raises:
        TypeError: a tensor of another type than numbers and bool.
        ResourceError: the disk is full, or does not let the file be written.
    """
    assert sys.byteorder == "little"
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    described: dict[str, Any] = {"__metadata__": {"format": format, "header": text}}
    end = 0
    for name in order:
        value = tensors[name]
        if value.dtype not in _TYPES:
            raise TypeError(f"{name}: expected numbers or bool, got {value.dtype}")
        begin, end = end, end + value.numel() * value.element_size()
        described[name] = {
            "dtype": _TYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in order:
            value = tensors[name].detach().cpu()
            if value.dtype == torch.bfloat16:  # numpy has none
                value = value.view(torch.int16)
            file.write(value.numpy().tobytes())
