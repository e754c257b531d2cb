"""Methods of sequences for notebooks: `sequence.render(...)`, `.tracks`, `.flow`, `.export`.

Rendering and exporting are layers above sequences, so this module adds the methods when it is
imported. `msdyn.load_sequence` and `msdyn.fit_scene` import it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Real

from msdyn.export import Exported, export_as
from msdyn.geometry import Cameras
from msdyn.render import (
    Flow,
    PointTracks,
    RenderedImage,
    point_tracks,
    render_flow,
    render_image,
)
from msdyn.sequence import GaussianSequence, object_poses

__all__: list[str] = []


def render(
    sequence: GaussianSequence, camera: Cameras | None = None, time: float = 0.0, **options: Any
) -> RenderedImage:
    """Render one image, by default in the input camera at that time: see `render_image`."""
    return render_image(sequence, camera or sequence.camera_at(time), time, **options)


def tracks(
    sequence: GaussianSequence,
    xy: Real[np.ndarray, "points 2"],
    frame: float | Real[np.ndarray, " points"],
    **options: Any,
) -> PointTracks:
    """Track the surface points at pixels of a frame: see `point_tracks`."""
    return point_tracks(sequence, xy, frame, **options)


def flow(
    sequence: GaussianSequence,
    time: float,
    other: float,
    cameras: tuple[Cameras, Cameras] | None = None,
    **options: Any,
) -> Flow:
    """Render optical flow between two times, by default in the input cameras: see `render_flow`."""
    cameras = cameras or (sequence.camera_at(time), sequence.camera_at(other))
    return render_flow(sequence, cameras, (time, other), **options)


def poses(
    sequence: GaussianSequence, times: Real[np.ndarray, " times"] | None = None, **options: Any
) -> dict[int, Float[np.ndarray, "times 4 4"]]:
    """Return the 6-DoF pose of every object: see `msdyn.sequence.object_poses`.

    Args:
        times: normalised times; those of all frames by default.
    """
    timeline = sequence.timeline
    frames = timeline.frame_positions(timeline.times if times is None else times)
    return object_poses(sequence, frames, **options)


def export(sequence: GaussianSequence, format: str, out: str | Path, **options: Any) -> Exported:
    """Write files for other programs: see `msdyn.export.export_as`."""
    return export_as(sequence, format, out, **options)


for _method in (render, tracks, flow, poses, export):
    setattr(GaussianSequence, _method.__name__, _method)
