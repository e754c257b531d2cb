"""Joining what is seen of an object before and after all its tracks were lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree

from msdyn.geometry import (
    SurfaceSamples,
    interpolate_rotations,
    register_surfaces,
    surface_agreement,
)
from msdyn.motion.alignment import RigidMotion, frame_blocks

__all__ = ["ObjectSurfaces", "rejoin"]

# Samples a surface must have to be registered.
_MIN_SAMPLES = 50
# The finest resolution of surfaces, as a share of the object's size.
_FINEST = 0.01
# Share of a surface's agreement with itself that registering another to it must reach.
_AGREEMENT = 0.5


@dataclass(frozen=True)
class ObjectSurfaces:
    """What depth maps and images show of the moving objects.

    Attributes:
        samples: S samples, in the world.
        frame: [S] frame index of each.
        object: [S] mask index of each.
    """

    samples: SurfaceSamples
    frame: np.ndarray
    object: np.ndarray

    def at_rest(self, instance: int, motion: RigidMotion, frames: np.ndarray) -> SurfaceSamples:
        """Return the samples of an object in the frames [T] bool, with its motion undone."""
        chosen = (self.object == instance) & frames[self.frame]
        when = self.frame[chosen]
        back = motion.rotations[when].swapaxes(1, 2)
        shift = motion.centre + motion.translations[when]
        offset = motion.centre - np.einsum("nij,nj->ni", back, shift)
        return self.samples.select(chosen).moved(back, offset)


def rejoin(
    motion: RigidMotion,
    weights: np.ndarray,
    surfaces: ObjectSurfaces,
    instance: int,
    canonical: int,
    size: float,
) -> RigidMotion:
    """Lay what is seen of an object after an occlusion upon what was seen of it before.

    No track joins the two, so how they lie to one another is a guess: that of what carried the
    object meanwhile, say. Where the same surface is seen on both sides, the surface knows better.
    Nothing is changed where the sides do not agree, as when they show different faces.

    Args:
        motion: of the object.
        weights: [N, T] of its tracks, zero where not visible.
        surfaces: of all objects.
        instance: the object's mask index.
        canonical: frame whose side stays as it is.
        size: of the object, scene units.

    Returns:
        The motion, changed on the far sides of occlusions and, gradually, within.
    """
    block = frame_blocks(weights)
    seen = np.flatnonzero(block >= 0)
    numbers, counts = np.unique(block[seen], return_counts=True)
    if len(numbers) < 2:
        return motion
    root = block[canonical] if block[canonical] >= 0 else numbers[counts.argmax()]
    whole = surfaces.at_rest(instance, motion, block == root)
    joined = [root]
    home = np.flatnonzero(block == root)
    away = {n: np.abs(np.flatnonzero(block == n)[:, None] - home).min() for n in numbers}
    for number in sorted(set(numbers) - {root}, key=away.__getitem__):
        part = surfaces.at_rest(instance, motion, block == number)
        if min(len(part), len(whole)) < _MIN_SAMPLES:
            continue
        resolution = 2 * float(np.median(KDTree(whole.xyz).query(whole.xyz, k=2)[0][:, 1]))
        resolution = max(resolution, _FINEST * size)  # samples of several frames may coincide
        found = register_surfaces(part, whole, reach=size, resolution=resolution)
        even = np.arange(len(whole)) % 2 == 0
        itself = surface_agreement(whole.select(even), whole.select(~even), resolution)
        if found.agreement < max(_AGREEMENT * itself, found.before):
            continue
        # What lies between, hidden or seen too little of, goes along by halves.
        fixed = np.flatnonzero(np.isin(block, [*joined, number]))
        side = np.interp(np.arange(len(block)), fixed, block[fixed] == number)
        moved = part.moved(found.rotation, found.translation)
        motion = motion.after(_undoing(found.rotation, part.xyz.mean(0), moved.xyz.mean(0), side))
        whole = SurfaceSamples.concatenate([whole, moved])
        joined.append(number)
    return motion


def _undoing(
    rotation: np.ndarray, start: np.ndarray, end: np.ndarray, share: np.ndarray
) -> RigidMotion:
    """Return the inverse of a rigid motion that takes a centre from start to end, by shares [T]."""
    frames = len(share)
    still = torch.eye(3, dtype=torch.float64).expand(frames, 3, 3)
    back = torch.from_numpy(rotation.T.copy()).expand(frames, 3, 3)
    turns = interpolate_rotations(still, back, torch.from_numpy(share))
    return RigidMotion(end, turns.numpy(), share[:, None] * (start - end))
