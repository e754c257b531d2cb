"""Training batches of clips."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from msdyn.errors import InputError
from msdyn.feedforward.batches import MOTION_KINDS, TrackedMotion, TrainingBatch
from msdyn.feedforward.data.datasets import dataset_info
from msdyn.feedforward.data.index import ClipEntry
from msdyn.feedforward.data.sample import ClipSample
from msdyn.feedforward.data.sampling import QueryTimes
from msdyn.feedforward.model import ClipTensors

__all__ = ["BatchShape", "ClipBatchOptions", "batch_of", "random_shape"]


@dataclass(frozen=True)
class ClipBatchOptions:
    """What a batch of clips is; ranges are (smallest, largest)."""

    scenes: int = 4
    """Scenes of a batch, of one process."""
    frames: tuple[int, int] = (4, 4)
    """Input frames."""
    long_side: int = 64
    """Longer side of the images, px; a multiple of the patch."""
    aspect: tuple[float, float] = (1.0, 1.0)
    """Width over height of the images, drawn evenly in its logarithm."""
    patch: int = 8
    """Sides of the images are multiples of this."""
    queries: int = 1
    """Query times per scene."""
    query_times: QueryTimes = "random"
    """Query times are those of input frames, or of any frames."""
    targets: bool = True
    """Read the images at the query times."""
    crop: tuple[float, float] = (0.77, 1.0)
    """Share of the image that is used."""
    only: Literal["all", "static", "dynamic"] = "all"
    """Clips that are used."""

    def __post_init__(self) -> None:
        for name in ("scenes", "patch", "queries", "long_side"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("frames", "aspect", "crop"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise InputError(f"{name}: expected 0 < smallest <= largest, got {low}, {high}")
        if self.frames[0] < 1 or self.crop[1] > 1:
            raise InputError("frames, crop: expected at least 1 frame and a crop of at most 1")
        if self.long_side % self.patch:
            raise InputError(
                f"long_side: expected a multiple of the patch, {self.patch}, got {self.long_side}"
            )


@dataclass(frozen=True)
class BatchShape:
    """What all scenes of a batch share."""

    frames: int
    """Input frames."""
    size: tuple[int, int]
    """Height and width, px."""


def random_shape(options: ClipBatchOptions, generator: np.random.Generator) -> BatchShape:
    """Draw the number of frames and the size of a batch."""
    frames = int(generator.integers(*options.frames, endpoint=True))
    low, high = (math.log(value) for value in options.aspect)
    aspect = math.exp(generator.uniform(low, high))
    patches = options.long_side / options.patch * min(aspect, 1 / aspect)
    short = max(1, round(patches)) * options.patch
    size = (short, options.long_side) if aspect >= 1 else (options.long_side, short)
    return BatchShape(frames, size)


def batch_of(
    entries: list[ClipEntry], samples: list[ClipSample], device: torch.device | str
) -> TrainingBatch:
    """Return samples of equal shape as a batch on a device."""
    infos = [dataset_info(entry.dataset) for entry in entries]
    most = max(sample.frame_poses.shape[1] for sample in samples) - 1  # without the identity

    def stacked(name: str) -> Tensor:
        return _tensor(np.stack([getattr(sample, name) for sample in samples]), device)

    def images(name: str) -> Float[Tensor, "scenes frames 3 height width"]:
        return stacked(name).movedim(-1, 2).float() / 255

    def times(name: str) -> Tensor:
        values = np.stack([getattr(sample.choice, name) for sample in samples])
        return _tensor(values.astype(np.float32), device)

    def poses(name: str) -> Tensor:
        padded = []
        for sample in samples:
            own = getattr(sample, name)
            identity = np.broadcast_to(np.eye(4, dtype=np.float32), (len(own), most + 1, 4, 4))
            padded.append(np.concatenate([own[:, :-1], identity], axis=1)[:, : most + 1])
        return _tensor(np.stack(padded), device)

    objects = np.stack(
        [np.where(s.objects == s.frame_poses.shape[1] - 1, most, s.objects) for s in samples]
    )
    return TrainingBatch(
        clip=ClipTensors(
            images("images"), stacked("world_from_cam"), stacked("intrinsics"), times("times")
        ),
        depth=stacked("depth"),
        moving=stacked("moving"),
        objects=_tensor(objects, device),
        frame_poses=poses("frame_poses"),
        query_times=times("query_times"),
        query_poses=poses("query_poses"),
        target_images=None if samples[0].target_images is None else images("target_images"),
        target_world_from_cam=stacked("target_world_from_cam"),
        target_intrinsics=stacked("target_intrinsics"),
        valid=stacked("valid"),
        tracked=_tracked(samples, device),
        kind=torch.tensor([MOTION_KINDS.index(entry.motion) for entry in entries], device=device),
        depth_weight=torch.tensor(
            [
                info.depth_weight if sample.valid.any() else 0.0
                for info, sample in zip(infos, samples, strict=True)
            ],
            device=device,
        ),
        motion_weight=torch.tensor([info.motion_weight for info in infos], device=device),
    )


def _tracked(samples: list[ClipSample], device: torch.device | str) -> TrackedMotion | None:
    """Return the motion of the scenes with tracks; nothing is known of the others' here."""
    if all(sample.known is None for sample in samples):
        return None
    shape = (len(samples[0].choice.outputs), *samples[0].depth.shape)
    shifts, known = [], []
    for sample in samples:
        shifts.append(np.zeros((*shape, 3), np.float32) if sample.displacement is None
                      else sample.displacement)  # fmt: skip
        known.append(np.zeros(shape, bool) if sample.known is None else sample.known)
    return TrackedMotion(_tensor(np.stack(shifts), device), _tensor(np.stack(known), device))


def _tensor(values: Shaped[np.ndarray, "*_"], device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)
