"""Reading and writing `sequence.safetensors`, a Gaussian sequence in one file without pickle."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.motion import motion_class
from msdyn.scene import Timeline
from msdyn.sequence.gaussians import Gaussians
from msdyn.sequence.sequence import GaussianSequence
from msdyn.tensor_files import write_tensors

__all__ = ["load_sequence", "save_sequence"]

_FORMAT = "msdyn-sequence"
_REQUIRED = ("means", "log_scales", "quats_wxyz", "opacity_logits", "harmonics")
_GAUSSIANS = (*_REQUIRED, "life_spans")
# What the folders of a scene directory contain.
_RESULTS = {"fit": "fit", "predict": "prediction"}
# Motion model of files that do not name one (early versions of msdyn).
_DEFAULT_MOTION = "hierarchy"


def save_sequence(sequence: GaussianSequence, path: str | os.PathLike) -> None:
    """Write a sequence atomically: tensors by name, all else as JSON in the header."""
    tensors: dict[str, torch.Tensor] = {}
    for part in ("static", "moving"):
        for name in _GAUSSIANS:
            value = getattr(getattr(sequence, part), name)
            if value is not None:
                tensors[f"{part}.{name}"] = value
    tensors |= sequence.motion.tensors()
    tensors["objects"] = sequence.labels
    tensors["timeline.seconds"] = torch.from_numpy(sequence.timeline.seconds)
    tensors["cameras.intrinsics"] = torch.from_numpy(sequence.cameras.intrinsics)
    tensors["cameras.cam_from_world"] = torch.from_numpy(sequence.cameras.cam_from_world)
    header = {
        "version": 1,
        "motion": sequence.motion.name,
        **sequence.motion.header(),
        "width": sequence.cameras.width,
        "height": sequence.cameras.height,
        "canonical_frame": sequence.canonical_frame,
        "world_units": sequence.world_units,
    }
    write_tensors(path, tensors, format=_FORMAT, header=header)


def load_sequence(
    path: str | os.PathLike, device: str | torch.device = "cpu", *, source: str = "fit"
) -> GaussianSequence:
    """Read a sequence written by `save_sequence`.

    Args:
        path: the file, its folder, or a scene directory.
        device: of the tensors.
        source: the folder of a scene directory that is read: "fit", or "predict" for the
            prediction of the feed-forward network.

    Raises:
        FileNotFoundError: there is no such file, or the scene has no fit (or prediction) yet.
        InputError: the file is of another format or version, or incomplete.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if path.is_dir():
        folder, path = path, path / "sequence.safetensors"
        if not path.is_file():
            path = folder / source / "sequence.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no {_RESULTS.get(source, source)} yet; make one with "
                f"`msdyn-{source} {folder}`"
            )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    if metadata.get("format") != _FORMAT:
        raise InputError(f"{path}: expected a sequence of msdyn, got another safetensors file")
    header = json.loads(metadata["header"])
    if header["version"] != 1:
        raise InputError(f"{path}: version: expected 1, got {header['version']}; update msdyn")
    try:
        return _assemble(tensors, header).to(device)
    except KeyError as error:
        raise InputError(f"{path}: {error} is missing") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _gaussians(tensors: dict[str, torch.Tensor], prefix: str) -> Gaussians:
    required = [tensors[prefix + name] for name in _REQUIRED]
    return Gaussians(*required, life_spans=tensors.get(f"{prefix}life_spans"))


def _assemble(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> GaussianSequence:
    motion = motion_class(header.get("motion", _DEFAULT_MOTION)).from_tensors(tensors, header)
    return GaussianSequence(
        _gaussians(tensors, "static."),
        _gaussians(tensors, "moving."),
        motion,
        tensors["objects"],
        timeline=Timeline(np.asarray(tensors["timeline.seconds"])),
        cameras=Cameras(
            np.asarray(tensors["cameras.intrinsics"]),
            np.asarray(tensors["cameras.cam_from_world"]),
            header["width"],
            header["height"],
        ),
        canonical_frame=header["canonical_frame"],
        world_units=header["world_units"],
    )
