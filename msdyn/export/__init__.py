"""Exporting a sequence to files that other programs read. docs/formats.md describes them."""

from typing import TYPE_CHECKING

from msdyn.lazy import lazy_names

if TYPE_CHECKING:
    from msdyn.export.cameras import export_cameras
    from msdyn.export.flow import export_flow
    from msdyn.export.fourdgs import export_4dgs
    from msdyn.export.gaussians import export_ply
    from msdyn.export.glb import export_glb
    from msdyn.export.objects import export_objects
    from msdyn.export.player import export_player
    from msdyn.export.points import export_points, surface_points, to_open3d
    from msdyn.export.recording import export_rrd
    from msdyn.export.run import (
        FORMATS,
        ExportConfig,
        Exported,
        export_as,
        export_scene,
        export_sequence,
    )
    from msdyn.export.simulation import SimulationOptions, export_simulation
    from msdyn.export.spz import export_compressed_ply, export_spz
    from msdyn.export.tracks import export_tracks
    from msdyn.export.usd import export_usd

__all__ = [
    "FORMATS",
    "ExportConfig",
    "Exported",
    "export_4dgs",
    "SimulationOptions",
    "export_as",
    "export_cameras",
    "export_compressed_ply",
    "export_flow",
    "export_glb",
    "export_objects",
    "export_player",
    "export_ply",
    "export_points",
    "export_rrd",
    "export_scene",
    "export_sequence",
    "export_spz",
    "export_simulation",
    "export_tracks",
    "export_usd",
    "surface_points",
    "to_open3d",
]

__getattr__ = lazy_names(
    __name__,
    {
        "cameras": ("export_cameras",),
        "flow": ("export_flow",),
        "fourdgs": ("export_4dgs",),
        "gaussians": ("export_ply",),
        "glb": ("export_glb",),
        "objects": ("export_objects",),
        "player": ("export_player",),
        "points": (
            "export_points",
            "surface_points",
            "to_open3d",
        ),
        "recording": ("export_rrd",),
        "run": (
            "FORMATS",
            "ExportConfig",
            "Exported",
            "export_as",
            "export_scene",
            "export_sequence",
        ),
        "spz": ("export_compressed_ply", "export_spz"),
        "simulation": (
            "SimulationOptions",
            "export_simulation",
        ),
        "tracks": ("export_tracks",),
        "usd": ("export_usd",),
    },
)
