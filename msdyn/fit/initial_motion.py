"""The motion of the objects from their tracks, with corrections of their depth."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from scipy.ndimage import binary_erosion

from msdyn.fit.config import FitConfig
from msdyn.fit.data import FitData
from msdyn.fit.object_depth import ObjectDepth
from msdyn.fit.prefit import prefit_motion
from msdyn.fit.sampling import evenly_spaced, sample_frame
from msdyn.geometry import SurfaceSamples, sample_normals
from msdyn.motion import ObjectSurfaces, TrackedMotion, TrackedScene, motion_class
from msdyn.scene import canonical_frame

__all__ = ["estimate_motion"]

# Frames, and samples per object and frame, for registration across occlusions.
_SURFACE_FRAMES = 24
_SURFACE_SAMPLES = 400


def estimate_motion(data: FitData, config: FitConfig) -> tuple[TrackedMotion, ObjectDepth]:
    """Estimate the motion of the tracks that are visible in a fitted frame.

    Returns:
        The motion, and corrections of the objects' depth, which are zero if they are not wanted.
    """
    tracks = data.visible_tracks
    objects = np.unique(tracks.object)
    scene = TrackedScene(
        tracks,
        canonical_frame(tracks),
        data.frames,
        surfaces=lambda: _object_surfaces(data, objects, config.seed),
        seed=config.seed,
    )
    tracked = motion_class(config.motion.model).from_tracks(scene, config.motion)
    return prefit_motion(
        tracked,
        tracks,
        data.cameras[data.frames],
        config.loss,
        correct_depth=config.object_depth == "corrected",
        steps=config.motion.prefit_steps,
        seed=config.seed,
    )


def _object_surfaces(
    data: FitData, objects: Int[np.ndarray, " objects"], seed: int
) -> ObjectSurfaces | None:
    """Sample the visible surfaces of the objects in frames over the clip; None without objects."""
    if not len(objects):
        return None
    rng = np.random.default_rng(seed)
    samples, frames, instances = [], [], []
    for frame in evenly_spaced(data.frames, _SURFACE_FRAMES):
        mask = data.mask[frame].cpu().numpy()
        for instance in objects:
            inner = binary_erosion(mask == instance)  # borders are uncertain
            xyz, rgb, _ = sample_frame(data, frame, inner, _SURFACE_SAMPLES, rng)
            samples.append(
                SurfaceSamples(xyz, rgb, sample_normals(xyz, data.cameras.centres[frame]))
            )
            frames.append(np.full(len(xyz), np.searchsorted(data.frames, frame)))
            instances.append(np.full(len(xyz), instance))
    all_samples = SurfaceSamples.concatenate(samples)
    return ObjectSurfaces(all_samples, np.concatenate(frames), np.concatenate(instances))
