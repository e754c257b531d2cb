"""`msdyn-render`: render a fitted scene from any camera at any time."""

from collections.abc import Sequence

from msdyn.cli.inputs import require_files, require_sequence
from msdyn.cli.render_config import RenderConfig
from msdyn.cli.run import parse, run
from msdyn.progress import stage

DESCRIPTION = (
    "Render a fitted scene at any time from any camera: colour, depth, objects, flow, tracks, as "
    "images, arrays or video."
)


EXAMPLES = (
    "scene --path auto --out auto.mp4  # a video about the moving objects",
    "scene --time 0.5 --out middle.png  # the input camera, half way through the clip",
    "scene --path orbit --output rgb,depth,flow --out orbit  # folders of images",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(_render, parse(RenderConfig, argv, "msdyn-render", DESCRIPTION, examples=EXAMPLES))


def _render(config: RenderConfig) -> None:
    require_sequence(config.scene, config.source)
    require_files(config.camera)
    with stage("loading"):
        from msdyn.cli.render_files import render_to_files

    for path in render_to_files(config):
        print(path)


if __name__ == "__main__":
    raise SystemExit(main())
