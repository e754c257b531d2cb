"""`msdyn-render`: render a fitted scene from any camera at any time."""

from collections.abc import Sequence

from msdyn.cli.render_files import RenderConfig, render_to_files
from msdyn.cli.run import parse, run

DESCRIPTION = (
    "Render a fitted scene at any time from any camera: colour, depth, objects, flow, tracks, as "
    "images, arrays or video."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(_render, parse(RenderConfig, argv, "msdyn-render", DESCRIPTION))


def _render(config: RenderConfig) -> None:
    for path in render_to_files(config):
        print(path)
