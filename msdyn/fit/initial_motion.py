"""The motion of the objects from their tracks, with corrections of their depth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from scipy.ndimage import binary_erosion

from msdyn.fit.config import FitConfig
from msdyn.fit.data import FitData
from msdyn.fit.object_depth import ObjectDepth
from msdyn.fit.prefit import prefit_motion
from msdyn.fit.sampling import sample_frame, spread_over
from msdyn.geometry import SurfaceSamples, sample_normals
from msdyn.machine_limits import give_back_memory
from msdyn.motion import ObjectSurfaces, TrackedMotion, TrackedScene, motion_class
from msdyn.scene import canonical_frame

__all__ = ["MotionEstimate", "estimate_motion"]

# Frames, and samples per object and frame, for registration across occlusions.
_SURFACE_FRAMES = 24
_SURFACE_SAMPLES = 400
# Corrections of depth below this root mean square (log) do not change the motion.
_NEGLIGIBLE = 2e-3


class MotionEstimate(NamedTuple):
    """The motion of the tracks, the corrections of depth, and the data with these corrections."""

    tracked: TrackedMotion
    object_depth: ObjectDepth
    data: FitData


def estimate_motion(data: FitData, config: FitConfig) -> MotionEstimate:
    """Estimate the motion of the tracks that are visible in a fitted frame.

    Where that corrects the depth of the objects, the motion is estimated again from tracks lifted
    with the corrected depth: which tracks move together is decided before any correction.
    """
    correct = config.object_depth == "corrected"
    tracked, object_depth = _estimate(data, config, correct_depth=correct)
    data = data.with_object_depth(object_depth)
    if object_depth.magnitude > _NEGLIGIBLE:
        tracked, _ = _estimate(data, config, correct_depth=False)
    return MotionEstimate(tracked, object_depth, data)


def _estimate(
    data: FitData, config: FitConfig, *, correct_depth: bool
) -> tuple[TrackedMotion, ObjectDepth]:
    """Estimate the motion once."""
    tracks = data.motion_tracks()
    objects = np.unique(tracks.object)
    scene = TrackedScene(
        tracks,
        canonical_frame(tracks),
        data.frames,
        camera_centres=data.cameras.centres[data.frames],
        surfaces=lambda: _object_surfaces(data, objects, config.seed),
        seed=config.seed,
    )
    tracked = motion_class(config.motion.model).from_tracks(scene, config.motion)
    give_back_memory()
    return prefit_motion(
        tracked,
        tracks,
        data.cameras[data.frames],
        config.loss,
        correct_depth=correct_depth,
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
    for frame in spread_over(data.frames, _SURFACE_FRAMES):
        mask = data.mask.numpy(frame)
        for instance in objects:
            inner = binary_erosion(mask == instance)  # borders are uncertain
            xyz, rgb, *_ = sample_frame(data, frame, inner, _SURFACE_SAMPLES, rng)
            samples.append(
                SurfaceSamples(xyz, rgb, sample_normals(xyz, data.cameras.centres[frame]))
            )
            frames.append(np.full(len(xyz), np.searchsorted(data.frames, frame)))
            instances.append(np.full(len(xyz), instance))
    all_samples = SurfaceSamples.concatenate(samples)
    return ObjectSurfaces(all_samples, np.concatenate(frames), np.concatenate(instances))
