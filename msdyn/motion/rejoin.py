"""Re-registration of an object across a full occlusion, by its visible surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from msdyn.geometry import (
    Rigid,
    SurfaceSamples,
    register_surfaces,
    surface_agreement,
)
from msdyn.motion.alignment import RigidMotion, frame_blocks

__all__ = ["ObjectSurfaces", "rejoin"]

# Samples a surface must have to be registered.
_MIN_SAMPLES = 50
# The finest resolution of surfaces, as a share of the object's size.
_FINEST = 0.01
# Minimum agreement of a registered surface, as a share of the target's agreement with itself.
_AGREEMENT = 0.5


@dataclass(frozen=True)
class ObjectSurfaces:
    """Surface samples of the moving objects, from depth maps and images.

    Attributes:
        samples: S samples, in the world.
        frame: [S] frame index of each.
        object: [S] mask index of each.
    """

    samples: SurfaceSamples
    frame: Int[np.ndarray, " samples"]
    object: Int[np.ndarray, " samples"]

    def canonical(
        self, instance: int, motion: RigidMotion, frames: Bool[np.ndarray, " frames"]
    ) -> SurfaceSamples:
        """Return the samples of an object in some frames, with its motion undone."""
        chosen = (self.object == instance) & frames[self.frame]
        when = self.frame[chosen]
        return self.samples.select(chosen).moved(motion.world.inverse()[when])


def rejoin(
    motion: RigidMotion,
    weights: Float[np.ndarray, "tracks frames"],
    surfaces: ObjectSurfaces,
    instance: int,
    canonical: int,
    size: float,
) -> RigidMotion:
    """Re-register an object across full occlusions by ICP.

    No track connects the two sides of a full occlusion: their relative pose is an extrapolation of
    the carrier's motion. Where the same surface is visible on both sides, it is registered. Nothing
    is changed where the registered surfaces do not agree, as when they show different faces.

    Args:
        motion: of the object.
        weights: of its tracks, zero where not visible.
        surfaces: of all objects.
        instance: the object's mask index.
        canonical: frame whose side stays fixed.
        size: of the object, scene units.

    Returns:
        The motion, changed beyond occlusions and, gradually, within them.
    """
    block = frame_blocks(weights)
    seen = np.flatnonzero(block >= 0)
    numbers, counts = np.unique(block[seen], return_counts=True)
    if len(numbers) < 2:
        return motion
    root = block[canonical] if block[canonical] >= 0 else numbers[counts.argmax()]
    whole = surfaces.canonical(instance, motion, block == root)
    joined = [root]
    home = np.flatnonzero(block == root)
    away = {n: np.abs(np.flatnonzero(block == n)[:, None] - home).min() for n in numbers}
    for number in sorted(set(numbers) - {root}, key=away.__getitem__):
        part = surfaces.canonical(instance, motion, block == number)
        if min(len(part), len(whole)) < _MIN_SAMPLES:
            continue
        resolution = 2 * float(np.median(KDTree(whole.xyz).query(whole.xyz, k=2)[0][:, 1]))
        resolution = max(resolution, _FINEST * size)  # samples of several frames may coincide
        found = register_surfaces(part, whole, reach=size, resolution=resolution)
        even = np.arange(len(whole)) % 2 == 0
        itself = surface_agreement(whole.select(even), whole.select(~even), resolution)
        if found.agreement < max(_AGREEMENT * itself, found.before):
            continue
        # Frames in between, without enough tracks, get part of the correction.
        fixed = np.flatnonzero(np.isin(block, [*joined, number]))
        side = np.interp(np.arange(len(block)), fixed, block[fixed] == number)
        moved = part.moved(found.rigid)
        rotation = found.rigid.rotation
        motion = motion.after(_undoing(rotation, part.xyz.mean(0), moved.xyz.mean(0), side))
        whole = SurfaceSamples.concatenate([whole, moved])
        joined.append(number)
    return motion


def _undoing(
    rotation: Float[np.ndarray, "3 3"],
    start: Float[np.ndarray, " 3"],
    end: Float[np.ndarray, " 3"],
    share: Float[np.ndarray, " frames"],
) -> RigidMotion:
    """Return, by shares, the inverse of a rigid motion that maps a centre from start to end."""
    still = Rigid.identity(len(share))
    back = Rigid(np.tile(rotation.T, (len(share), 1, 1)), np.tile(start - end, (len(share), 1)))
    return RigidMotion(end, still.interpolated(back, share))
