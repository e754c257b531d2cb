"""`msdyn-export`: write a fitted scene in a format that other programs read."""

from collections.abc import Sequence

from msdyn.cli.inputs import require_sequence
from msdyn.cli.run import parse, run
from msdyn.errors import InputError
from msdyn.export.config import ExportConfig
from msdyn.progress import stage
from msdyn.writing import refuse_links

DESCRIPTION = (
    "Write a fitted scene in a format that other programs read: Gaussians, tracks, object "
    "trajectories, flow, cameras, points. docs/formats.md describes each."
)


EXAMPLES = (
    "scene --format ply  # Gaussians, a file per frame",
    "scene --format tracks --points 120,80  # the track of a pixel",
    "scene --format html --out clip.html  # a page that plays the sequence",
    "scene --format glb --tolerance-px 1  # rigid parts as animated nodes",
    "scene --format mjcf --time 0  # bodies with joints for MuJoCo",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(_export, parse(ExportConfig, argv, "msdyn-export", DESCRIPTION, examples=EXAMPLES))


def _export(config: ExportConfig) -> None:
    require_sequence(config.scene, config.source)
    with stage("loading"):
        from msdyn.export.run import Exported, export_scene

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


if __name__ == "__main__":
    raise SystemExit(main())
