"""Re-registration of an object across a full occlusion by its visible surfaces."""

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
from msdyn.motion.alignment import RigidMotion
from msdyn.motion.object_alignment import frame_blocks

__all__ = ["ObjectSurfaces", "reregister"]

# Minimum number of samples of a surface.
_MIN_SAMPLES = 50
# Minimum resolution of surfaces, as a fraction of the object's size.
_MIN_RESOLUTION = 0.01
# Minimum agreement of a registered surface, as a fraction of the target's agreement with itself.
_MIN_AGREEMENT = 0.5


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
        frame = self.frame[chosen]
        return self.samples.select(chosen).moved(motion.world.inverse()[frame])


def reregister(
    motion: RigidMotion,
    weights: Float[np.ndarray, "tracks frames"],
    surfaces: ObjectSurfaces,
    instance: int,
    canonical: int,
    size: float,
) -> RigidMotion:
    """Re-register an object across full occlusions by ICP.

    No track connects the two sides of a full occlusion, so their relative pose is extrapolated from
    the carrier's motion. If the same surface is visible on both sides, it is registered. Nothing is
    changed if the registered surfaces do not agree, for example because they are different faces.

    Args:
        motion: of the object.
        weights: of its tracks, zero where not visible.
        surfaces: of all objects.
        instance: the object's mask index.
        canonical: frame whose block of frames is kept fixed.
        size: of the object, scene units.

    Returns:
        The motion, with the corrections of registered blocks interpolated over occlusions; the
        argument itself if nothing is changed.
    """
    block = frame_blocks(weights)
    visible = np.flatnonzero(block >= 0)
    numbers, counts = np.unique(block[visible], return_counts=True)
    if len(numbers) < 2:
        return motion
    root = block[canonical] if block[canonical] >= 0 else numbers[counts.argmax()]
    target = surfaces.canonical(instance, motion, block == root)
    registered = [root]
    root_frames = np.flatnonzero(block == root)
    gap = {n: np.abs(np.flatnonzero(block == n)[:, None] - root_frames).min() for n in numbers}
    for number in sorted(set(numbers) - {root}, key=gap.__getitem__):
        source = surfaces.canonical(instance, motion, block == number)
        if min(len(source), len(target)) < _MIN_SAMPLES:
            continue
        resolution = 2 * float(np.median(KDTree(target.xyz).query(target.xyz, k=2)[0][:, 1]))
        # Samples of several frames may coincide.
        resolution = max(resolution, _MIN_RESOLUTION * size)
        found = register_surfaces(source, target, reach=size, resolution=resolution)
        even = np.arange(len(target)) % 2 == 0
        self_agreement = surface_agreement(target.select(even), target.select(~even), resolution)
        if found.agreement < max(_MIN_AGREEMENT * self_agreement, found.agreement_before):
            continue
        # Frames of the occlusion get an interpolated correction.
        fixed = np.flatnonzero(np.isin(block, [*registered, number]))
        share = np.interp(np.arange(len(block)), fixed, block[fixed] == number)
        moved = source.moved(found.rigid)
        rotation = found.rigid.rotation
        motion = motion.after(
            _partial_inverse(rotation, source.xyz.mean(0), moved.xyz.mean(0), share)
        )
        target = SurfaceSamples.concatenate([target, moved])
        registered.append(number)
    return motion


def _partial_inverse(
    rotation: Float[np.ndarray, "3 3"],
    start: Float[np.ndarray, " 3"],
    end: Float[np.ndarray, " 3"],
    share: Float[np.ndarray, " frames"],
) -> RigidMotion:
    """Interpolate between the identity (share 0) and the inverse of a rigid motion (share 1).

    Args:
        rotation: of the motion.
        start, end: the centre of the moved points before and after the motion.
        share: for each frame.
    """
    identity, count = Rigid.identity(len(share)), len(share)
    inverse = Rigid(np.tile(rotation.T, (count, 1, 1)), np.tile(start - end, (count, 1)))
    return RigidMotion(end, identity.interpolated(inverse, share))
