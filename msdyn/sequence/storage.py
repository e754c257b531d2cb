"""Reading and writing `sequence.safetensors`, a Gaussian sequence in one file without pickle."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import numpy as np
import torch

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.motion import motion_class
from msdyn.reading import (
    StoredTensors,
    as_schema,
    check_image_size,
    read_safetensors,
    reading,
    safetensors_header,
)
from msdyn.scene import IGNORE, Timeline
from msdyn.sequence.exposure import LARGEST_LOG_GAIN, Exposure
from msdyn.sequence.gaussians import Gaussians
from msdyn.sequence.sequence import GaussianSequence
from msdyn.writing import write_tensors

__all__ = ["load_sequence", "save_sequence"]

_FORMAT = "msdyn-sequence"
_REQUIRED = ("means", "log_scales", "quats_wxyz", "opacity_logits", "harmonics")
_GAUSSIANS = (*_REQUIRED, "life_spans")
# What the folders of a scene directory contain.
_RESULTS = {"fit": "fit", "predict": "prediction"}
# Motion model of files that do not name one (early versions of msdyn).
_DEFAULT_MOTION = "hierarchy"
_LARGEST_LOG_SCALE = 40.0
# Of sequences with gains only; others are written as before there were any.
_EXPOSURE = "exposure.log_gains"


class _Header(TypedDict):
    """What the header has besides that of the motion."""

    width: int
    height: int
    canonical_frame: Annotated[int, msgspec.Meta(ge=0)]
    world_units: Literal["metric", "arbitrary"]


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
    if sequence.exposure is not None:
        tensors[_EXPOSURE] = torch.from_numpy(sequence.exposure.log_gains)
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
    header = safetensors_header(path, _FORMAT, "sequence")
    with reading(path, "sequence"):
        if header.get("version") != 1:
            version = header.get("version")
            raise InputError(f"version: expected 1, got {version!r}; update msdyn")
        tensors = read_safetensors(path, "sequence")
        sequence = _assemble(tensors, header)
    return sequence.to(device)


def _gaussians(tensors: dict[str, torch.Tensor], prefix: str) -> Gaussians:
    stored, name = StoredTensors(tensors), prefix + "life_spans"
    means = stored.floats(f"{prefix}means", None, 3)
    count = len(means)
    return Gaussians(
        means,
        stored.floats(f"{prefix}log_scales", count, 3, largest=_LARGEST_LOG_SCALE),
        stored.floats(f"{prefix}quats_wxyz", count, 4),
        stored.floats(f"{prefix}opacity_logits", count, infinite=True),
        stored.floats(f"{prefix}harmonics", count, None, 3),
        stored.floats(name, count, 2, infinite=True) if name in tensors else None,
    )


def _assemble(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> GaussianSequence:
    own = as_schema(header, _Header, "header")
    check_image_size(own["width"], own["height"], "header: size")
    name = header.get("motion", _DEFAULT_MOTION)
    if not isinstance(name, str):
        raise InputError(f"header: motion: expected a name, got {type(name).__name__}")
    motion = motion_class(name).from_tensors(tensors, header)
    stored = StoredTensors(tensors)
    timeline = Timeline(np.asarray(stored.floats("timeline.seconds", None)))
    frames = len(timeline)
    if own["canonical_frame"] >= frames:
        raise InputError(
            f"header: canonical_frame: expected 0 to {frames - 1}, got {own['canonical_frame']}"
        )
    moving = _gaussians(tensors, "moving.")
    exposure = None
    if _EXPOSURE in tensors:
        gains = stored.floats(_EXPOSURE, frames, 3, largest=LARGEST_LOG_GAIN)
        exposure = Exposure(np.asarray(gains, np.float64))
    return GaussianSequence(
        _gaussians(tensors, "static."),
        moving,
        motion,
        stored.indices("objects", len(moving), below=IGNORE),
        timeline=timeline,
        cameras=Cameras(
            np.asarray(stored.floats("cameras.intrinsics", frames, 3, 3)),
            np.asarray(stored.floats("cameras.cam_from_world", frames, 4, 4)),
            own["width"],
            own["height"],
        ),
        canonical_frame=own["canonical_frame"],
        world_units=own["world_units"],
        exposure=exposure,
    )
