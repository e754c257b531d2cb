"""Methods for notebooks: what other layers do with a sequence, at the sequence itself.

The functions lie in layers above this one and are looked up by name when a method is called, so
that this layer still depends on none of them.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["Shortcuts"]


class Shortcuts:
    """Mixin of `GaussianSequence`."""

    def render(self, camera: Any = None, time: float = 0.0, **options: Any) -> Any:
        """Render one image: see `msdyn.render.render_image`. The input camera by default."""
        camera = self.camera_at(time) if camera is None else camera  # type: ignore[attr-defined]
        return import_module("msdyn.render").render_image(self, camera, time, **options)

    def tracks(self, xy: Any, frame: Any, **options: Any) -> Any:
        """Follow the surface points at pixels of a frame: see `msdyn.render.point_tracks`."""
        return import_module("msdyn.render").point_tracks(self, xy, frame, **options)

    def flow(self, time: float, other: float, cameras: Any = None, **options: Any) -> Any:
        """Render the flow from one time to another: see `msdyn.render.render_flow`.

        The input cameras of the two times by default.
        """
        if cameras is None:
            cameras = self.camera_at(time), self.camera_at(other)  # type: ignore[attr-defined]
        return import_module("msdyn.render").render_flow(self, cameras, (time, other), **options)

    def objects(self, times: Any = None, **options: Any) -> Any:
        """Return the 6-DoF pose of every object: see `msdyn.sequence.object_poses`.

        At normalised times; those of the frames by default.
        """
        timeline = self.timeline  # type: ignore[attr-defined]
        positions = timeline.frame_positions(timeline.times if times is None else times)
        return import_module("msdyn.sequence").object_poses(self, positions, **options)

    def export(self, format: str, out: str | Path, **options: Any) -> Any:
        """Write files for other programs: see `msdyn.export.export_as`."""
        return import_module("msdyn.export").export_as(self, format, out, **options)
