"""Weights: our own files, the released checkpoint, and VGGT-1B.

Ours are safetensors files whose header holds the config. The released names differ from ours by
prefixes only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from msdyn.errors import InputError
from msdyn.feedforward.config import ModelConfig
from msdyn.feedforward.model import Movies, needs_float32
from msdyn.reading import (
    OtherFormatError,
    as_schema,
    is_safetensors,
    read_safetensors,
    read_torch,
    reading,
    safetensors_header,
)
from msdyn.writing import write_tensors

__all__ = [
    "load_model",
    "load_vggt",
    "published_names",
    "read_about",
    "save_model",
    "start_from",
]

_FORMAT = "msdyn-feedforward"
# Prefixes, the first match counts: ours, in the released checkpoint.
_PUBLISHED = (("aggregator.", "backbone.backbone."), ("", "backbone."))
# Prefixes, the first match counts: in VGGT, ours.
_VGGT = (
    ("aggregator.patch_embed.", "encoder."),
    ("aggregator.", "aggregator."),
    ("depth_head.", "depth_head."),
    ("point_head.", "motion_head."),
)
_VGGT_UNUSED = ("camera_head.", "track_head.")


def published_names(names: Iterable[str]) -> dict[str, str]:
    """Return the name in the released checkpoint of each of our parameters."""
    renamed = {}
    for name in names:
        ours, theirs = next(rule for rule in _PUBLISHED if name.startswith(rule[0]))
        renamed[name] = theirs + name[len(ours) :]
    return renamed


def save_model(
    model: Movies,
    path: str | os.PathLike,
    *,
    about: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a network atomically.

    Args:
        model: the network.
        path: of the safetensors file.
        about: further facts for the header, as JSON: how it was trained.
        dtype: of the weights in the file.
        weights: all of them, if the network has been divided among processes.
    """
    header = {"version": 1, "config": model.config.to_json(), "about": dict(about or {})}
    tensors = {
        name: value.detach().to("cpu", dtype)
        for name, value in (weights or _weights(model)).items()
    }
    write_tensors(path, tensors, format=_FORMAT, header=header)


class _Header(TypedDict):
    version: int
    config: dict[str, Any]


def load_model(path: str | os.PathLike, *, dtype: torch.dtype = torch.float32) -> Movies:
    """Read a network, on the CPU, for inference.

    Args:
        path: a file of `save_model`, or the released checkpoint (safetensors or PyTorch).
        dtype: of the weights, whatever it is in the file; those that `needs_float32` names stay in
            float32.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: another file, or weights that do not fit the config.
    """
    path = _existing(path)
    tensors, header = _read(path)
    if header is not None:
        with reading(path, "network"):
            checked = as_schema(header, _Header, "header")
            if checked["version"] != 1:
                version = checked["version"]
                raise InputError(f"version: expected 1, got {version}; update msdyn")
            config = ModelConfig.from_json(checked["config"])
    else:
        is_static = not any(name.startswith("backbone.motion_head.") for name in tensors)
        config = ModelConfig.published_static() if is_static else ModelConfig.published_network()
    model = _on_meta(config)
    if header is None:
        ours = {theirs: name for name, theirs in published_names(_weights(model)).items()}
        tensors = {ours.get(name, name): value for name, value in tensors.items()}
    _assign(model, tensors, path, dtype)
    return model.eval()


def read_about(path: str | os.PathLike) -> dict[str, Any]:
    """Return what `save_model` was told about a network; empty for other files."""
    try:
        header = safetensors_header(path, _FORMAT, "network")
    except (InputError, OSError):
        return {}
    about = header.get("about")
    return about if isinstance(about, dict) else {}


def load_vggt(model: Movies, path: str | os.PathLike) -> list[str]:
    """Initialise those parts of a network that VGGT-1B has; its point head starts the motion.

    Args:
        model: a network of VGGT's sizes; its own parameters are overwritten.
        path: VGGT's checkpoint (safetensors or PyTorch).

    Returns:
        The names of the parameters that the checkpoint does not have.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: another file, or weights of other shapes.
    """
    path = _existing(path)
    expected = _weights(model)
    found: dict[str, Tensor] = {}
    for name, value in _read(path)[0].items():
        if name.startswith(_VGGT_UNUSED):
            continue
        rule = next((rule for rule in _VGGT if name.startswith(rule[0])), None)
        ours = "" if rule is None else rule[1] + name[len(rule[0]) :]
        if ours in expected:
            found[ours] = value
    if not found:
        raise InputError(f"{path}: expected the weights of VGGT-1B, got none of its names")
    _check_shapes(expected, found, path)
    for name, value in found.items():
        expected[name].data.copy_(value)
    return sorted(expected.keys() - found.keys())


def start_from(model: Movies, path: str | os.PathLike) -> list[str]:
    """Initialise a network with the weights of another: of ours, the released one or VGGT-1B.

    Weights of the same names are taken; what the other network has besides is not used, so that a
    network with motion can start from one of the static stage.

    Args:
        model: its own parameters are overwritten.
        path: a file of `save_model`, the released checkpoint, or that of VGGT-1B.

    Returns:
        The names of the parameters that the file does not have.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: another file, or weights of other shapes.
    """
    path = _existing(path)
    if any(name.startswith(_VGGT_UNUSED) for name in _read(path)[0]):
        return load_vggt(model, path)
    expected, given = _weights(model), load_model(path).state_dict()
    found = {name: value for name, value in given.items() if name in expected}
    _check_shapes(expected, found, path)
    for name, value in found.items():
        expected[name].data.copy_(value)
    return sorted(expected.keys() - found.keys())


def _existing(path: str | os.PathLike) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights")
    return path


def _on_meta(config: ModelConfig) -> Movies:
    """Return a network without memory for its weights."""
    with torch.device("meta"):
        return Movies(config)


def _weights(model: Movies) -> dict[str, Tensor]:
    return dict(model.state_dict(keep_vars=True))


def _assign(model: Movies, tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype) -> None:
    """Give a network on the meta device its weights, without a second copy in memory."""
    expected = _weights(model)
    missing = sorted(expected.keys() - tensors.keys())
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(expected)} weights are missing ({missing[0]}, ...)"
        )
    unknown = sorted(tensors.keys() - expected.keys())
    if unknown:
        raise InputError(f"{path}: {len(unknown)} unknown weights ({unknown[0]}, ...)")
    _check_shapes(expected, tensors, path)
    converted = {
        name: value.to(torch.float32 if needs_float32(name) else dtype)
        for name, value in tensors.items()
    }
    model.load_state_dict(converted, assign=True)


def _check_shapes(
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    path: Path,
) -> None:
    for name, value in found.items():
        if value.shape != expected[name].shape:
            raise InputError(
                f"{path}: {name}: expected {list(expected[name].shape)}, got {list(value.shape)}"
            )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Return the tensors of a safetensors or PyTorch file, and the header of a file of ours."""
    if is_safetensors(path):
        tensors = read_safetensors(path, "file of weights", mapped=True)
        try:
            return tensors, safetensors_header(path, _FORMAT, "network")
        except OtherFormatError:
            return tensors, None
    stored = read_torch(path, "file of weights", mmap=True)
    while isinstance(stored, Mapping) and len(stored) < 16:  # wrapped: {"model": {...}}
        inner = [value for value in stored.values() if isinstance(value, Mapping)]
        if len(inner) != 1:
            break
        stored = inner[0]
    if not isinstance(stored, Mapping):
        raise InputError(f"{path}: expected weights by name, got {type(stored).__name__}")
    tensors = {str(name): value for name, value in stored.items() if isinstance(value, Tensor)}
    return tensors, None
