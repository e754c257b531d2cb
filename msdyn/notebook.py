"""Methods of sequences for notebooks: `sequence.render(...)`, `.tracks`, `.flow`, `.export`.

Sequences know nothing of rendering or exporting, which lie above them; this module, above all of
these, adds the methods when it is imported. `import msdyn` does so as soon as a sequence is read or
fitted by its names (`msdyn.load_sequence`, `msdyn.fit_scene`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

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
    """Render one image, by default in the input camera of that time: see `render_image`."""
    return render_image(sequence, camera or sequence.camera_at(time), time, **options)


def tracks(
    sequence: GaussianSequence, xy: np.ndarray, frame: float | np.ndarray, **options: Any
) -> PointTracks:
    """Follow the surface points at pixels [N, 2] of a frame: see `point_tracks`."""
    return point_tracks(sequence, xy, frame, **options)


def flow(
    sequence: GaussianSequence,
    time: float,
    other: float,
    cameras: tuple[Cameras, Cameras] | None = None,
    **options: Any,
) -> Flow:
    """Render the flow between two times, by default in their input cameras: see `render_flow`."""
    cameras = cameras or (sequence.camera_at(time), sequence.camera_at(other))
    return render_flow(sequence, cameras, (time, other), **options)


def poses(
    sequence: GaussianSequence, times: np.ndarray | None = None, **options: Any
) -> dict[int, np.ndarray]:
    """Return the 6-DoF pose [T, 4, 4] of every object: see `msdyn.sequence.object_poses`.

    At normalised times [T]; those of the frames by default.
    """
    timeline = sequence.timeline
    frames = timeline.frame_positions(timeline.times if times is None else times)
    return object_poses(sequence, frames, **options)


def export(sequence: GaussianSequence, format: str, out: str | Path, **options: Any) -> Exported:
    """Write files for other programs: see `msdyn.export.export_as`."""
    return export_as(sequence, format, out, **options)


for _method in (render, tracks, flow, poses, export):
    setattr(GaussianSequence, _method.__name__, _method)
