"""`msdyn-export`: write a fitted scene in a format that other programs read."""

from collections.abc import Sequence

from msdyn.cli.run import parse, run
from msdyn.export.run import ExportConfig, export_scene

DESCRIPTION = (
    "Write a fitted scene in a format that other programs read: Gaussians, tracks, object "
    "trajectories, flow, cameras, points. docs/formats.md describes each."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(_export, parse(ExportConfig, argv, "msdyn-export", DESCRIPTION))


def _export(config: ExportConfig) -> None:
    print(export_scene(config))
