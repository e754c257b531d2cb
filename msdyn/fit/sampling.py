"""Frames of a step, and points of known depth in frames."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from msdyn.fit.config import FitConfig
from msdyn.fit.data import FitData
from msdyn.fit.surface import surface_tangents
from msdyn.geometry import world_points_from_depth
from msdyn.indices import evenly_spaced

__all__ = ["Sample", "frames_of_step", "sample_frame", "size_of_step", "spread_over", "subsample"]


class Sample(NamedTuple):
    """N points seen at pixels of frames.

    Attributes:
        points: [N, 3] in the world of the fit.
        colours: [N, 3] RGB in [0, 1].
        footprints: [N] size of a pixel at their depth, world of the fit.
        tangents: [N, 3, 2] by how much a point moves per px, see `surface_tangents`; in the world.
    """

    points: Float[np.ndarray, "points 3"]
    colours: Float[np.ndarray, "points 3"]
    footprints: Float[np.ndarray, " points"]
    tangents: Float[np.ndarray, "points 3 2"]

    @classmethod
    def joined(cls, samples: list[Sample]) -> Sample:
        """Return the points of several samples."""
        return cls(*(np.concatenate(values) for values in zip(*samples, strict=True)))

    def select(self, kept: Int[np.ndarray, " kept"] | Bool[np.ndarray, " points"]) -> Sample:
        """Return some of the points."""
        return Sample(*(values[kept] for values in self))


def spread_over(frames: Int[np.ndarray, " frames"], count: int) -> list[int]:
    """Return at most `count` evenly spaced frames, including the first and the last."""
    return frames[evenly_spaced(len(frames), count)].tolist()


def frames_of_step(
    frames: Int[np.ndarray, " frames"], config: FitConfig, step: int
) -> Int[np.ndarray, " batch"]:
    """Return the frames of a step: every epoch is a permutation seeded by seed and epoch."""
    per_epoch = math.ceil(len(frames) / config.batch)
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng([config.seed, epoch]).permutation(len(frames))
    return frames[order[position * config.batch : (position + 1) * config.batch]]


def size_of_step(data: FitData, config: FitConfig) -> int:
    """Return the pixels of a step, or the Gaussians if these can become more."""
    _, height, width = data.mask.shape
    most = config.density.max_static + config.density.max_moving
    return max(config.batch * height * width, most)


def sample_frame(
    data: FitData,
    frame: int,
    own: Bool[np.ndarray, "height width"],
    count: int,
    rng: np.random.Generator,
) -> Sample:
    """Return random pixels of known depth in a mask."""
    depth = data.depth.numpy(frame)
    index = np.flatnonzero((own & (depth > 0)).reshape(-1))
    index = rng.choice(index, min(count, len(index)), replace=False)
    points = world_points_from_depth(depth, data.cameras[frame]).reshape(-1, 3)[index]
    colours = data.rgb.numpy(frame).reshape(-1, 3)[index] / 255
    footprints = depth.reshape(-1)[index] / data.cameras.intrinsics[frame, 0, 0]
    tangents = surface_tangents(
        depth, data.mask.numpy(frame), data.cameras.intrinsics[frame], index
    )
    tangents = data.cameras.cam_from_world[frame, :3, :3].T @ tangents
    return Sample(points, colours, footprints, tangents)


def subsample(
    points: Float[np.ndarray, "points 3"],
    footprints: Float[np.ndarray, " points"],
    count: int,
    label: Int[np.ndarray, " points"] | None = None,
) -> Int[np.ndarray, " kept"]:
    """Return the indices of about `count` points, evenly distributed in the images.

    One point is kept per cell of a grid. The cell size is a multiple of the pixel footprint, found
    by bisection.
    """
    if len(points) <= count:
        return np.arange(len(points))
    # One grid per octave of footprint, for equal image density of near and far points.
    octave = np.round(np.log2(np.maximum(footprints, 1e-9)))
    low, high = 0.0, 12.0
    kept = np.arange(len(points))
    for _ in range(14):
        middle = (low + high) / 2
        cell = np.floor(points / (2.0 ** (octave + middle - 4))[:, None]).astype(np.int64)
        keys = np.column_stack([cell, octave.astype(np.int64)])
        if label is not None:
            keys = np.column_stack([keys, label])
        kept = np.unique(keys, axis=0, return_index=True)[1]
        if len(kept) > count:
            low = middle
        else:
            high = middle
    return np.sort(kept)
