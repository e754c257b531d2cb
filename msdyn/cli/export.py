"""`msdyn-export`: write a fitted scene in a format that other programs read."""

from collections.abc import Sequence

from msdyn.cli.run import parse, run
from msdyn.errors import InputError
from msdyn.export.run import ExportConfig, Exported, export_scene
from msdyn.files import refuse_links

DESCRIPTION = (
    "Write a fitted scene in a format that other programs read: Gaussians, tracks, object "
    "trajectories, flow, cameras, points. docs/formats.md describes each."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(_export, parse(ExportConfig, argv, "msdyn-export", DESCRIPTION))


def _export(config: ExportConfig) -> None:
    if config.format == "report":
        if config.source != "fit":
            raise InputError("report: shows a fit; expected --from fit, got --from predict")
        # The layers `export` and `view` must not import each other.
        from msdyn.scene import Scene
        from msdyn.view import write_report

        if config.out is None:
            refuse_links(config.scene, config.scene / "fit")
        path = write_report(Scene(config.scene), out=config.out)
        print(Exported(path, (path,)))
    else:
        print(export_scene(config))
