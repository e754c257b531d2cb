"""3D point tracking on TAPVid-3D's clips, as the paper MoVieS measures it.

The points of a clip, estimated and true, are divided by their median norm; EPE3D is the mean
distance of what remains, the shares are those of points within .05 and .10. Only positions at which
the benchmark calls a point visible count.

Reference: Lin et al., "MoVieS: Motion-Aware 4D Dynamic View Synthesis in One Second", 2025,
section 4.3; Koppula et al., "TAPVid-3D", 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from msdyn.errors import InputError
from msdyn.evaluate.tracking import normalised_track_metrics
from msdyn.geometry import Cameras, transform_points
from msdyn.io import Tapvid3dClip
from msdyn.render import query_tracks
from msdyn.sequence import GaussianSequence

__all__ = ["SUBSETS", "Tracker", "cameras_of_clip", "evaluate_tapvid3d", "tracker_of"]

Tracker: TypeAlias = Callable[
    [Int[np.ndarray, " queries"], Float[np.ndarray, "queries 2"]],
    Float[np.ndarray, "queries frames 3"],
]
"""From frames and pixels of queries to world positions in all frames of the clip."""

SUBSETS = ("adt", "drivetrack", "pstudio")
_STATIC = ("pstudio",)


def tracker_of(sequence: GaussianSequence) -> Tracker:
    """Return the tracker of a sequence: the surface points at the queries' pixels."""
    return lambda frames, xy: query_tracks(sequence, frames, xy)


def cameras_of_clip(clip: Tapvid3dClip, subset: str) -> Cameras:
    """Return the cameras of a clip, those of a static camera for Panoptic Studio.

    Args:
        clip: of the benchmark.
        subset: one of `SUBSETS`.

    Raises:
        InputError: an unknown subset, or a clip of a moving camera without poses.
    """
    if subset not in SUBSETS:
        raise InputError(f"subset: expected one of {', '.join(SUBSETS)}, got {subset}")
    if clip.cameras is not None:
        return clip.cameras
    if subset not in _STATIC:
        raise InputError(
            f"{clip.name}: extrinsics_w2c is missing and the cameras of {subset} move; take a "
            "release of TAPVid-3D that has it"
        )
    return clip.static


def evaluate_tapvid3d(clip: Tapvid3dClip, cameras: Cameras, tracker: Tracker) -> dict[str, Any]:
    """Evaluate tracks of the points of a clip.

    Args:
        clip: images and true tracks.
        cameras: of its frames.
        tracker: what is evaluated.

    Returns:
        `epe3d`, `delta_0.05`, `delta_0.10` of positions in the camera of each frame, as the
        benchmark stores them; the same under `world`, of positions in the first camera, where
        nothing but the points moves; numbers of `frames`, `tracks` and `positions` that count, and
        the share `found` of these for which there is an estimate.
    """
    world = np.asarray(tracker(clip.query_frame, clip.query_xy)).swapaxes(0, 1)  # [T, N, 3]
    if world.shape != clip.xyz.shape:
        raise InputError(f"{clip.name}: expected tracks {clip.xyz.shape}, got {world.shape}")
    valid = clip.visible & np.isfinite(clip.xyz).all(-1)
    estimate = transform_points(cameras.cam_from_world, world)
    to_first = cameras.cam_from_world[0]
    truth = np.where(valid[..., None], clip.xyz, 0.0)
    found = np.asarray(np.isfinite(world).all(-1))
    true_world = transform_points(cameras.world_from_cam, truth)
    return {
        **normalised_track_metrics(estimate, truth, valid),
        "world": normalised_track_metrics(
            transform_points(to_first, world), transform_points(to_first, true_world), valid
        ),
        "frames": len(clip),
        "tracks": clip.xyz.shape[1],
        "positions": int(valid.sum()),
        "found": float(found[valid].mean()) if valid.any() else float("nan"),
    }
