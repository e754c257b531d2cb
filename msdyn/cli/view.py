"""`msdyn-view`: view a fitted scene in the browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from msdyn.cli.inputs import require_sequence
from msdyn.cli.run import parse, run
from msdyn.errors import InputError
from msdyn.options import POSITIONAL, Options, Range
from msdyn.progress import stage, write_line
from msdyn.sequence.choice import SequenceSource

if TYPE_CHECKING:
    from msdyn.view import Viewer

DESCRIPTION = (
    "View a fitted scene in the browser, which renders the Gaussians: play, scrub, colour by "
    "object, compare with the input, save cameras and paths, export."
)
EXAMPLES = (
    "scene  # then open the address that it prints",
    "scene --port 9000",
    "scene --from predict  # what msdyn-predict wrote",
)


@dataclass(frozen=True)
class ViewConfig(Options):
    """View a fitted scene."""

    scene: Annotated[Path, POSITIONAL] = Path()
    """Scene directory with a fit, or a sequence.safetensors; the current directory by default."""
    host: str = "127.0.0.1"
    """Address to listen on: by default for this computer only; 0.0.0.0 lets others connect."""
    port: Annotated[int | None, Range(1, 65_535, also=(0,))] = None
    """Port to listen on, 0 for any free one; by default 8080, or the next free one."""
    allow_host: tuple[str, ...] = ()
    """Names by which the browser may call the viewer besides those of this computer, as through a
    proxy: NAME or NAME:PORT."""
    source: SequenceSource = "fit"
    """Sequence of the scene directory: the fit, or the prediction of msdyn-predict."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    config = parse(ViewConfig, argv, "msdyn-view", DESCRIPTION, examples=EXAMPLES)
    return run(_view, config, interrupted="the viewer has stopped")


def _view(config: ViewConfig) -> None:
    require_sequence(config.scene, config.source)
    with stage("loading"):
        viewer = open_viewer(config)
    announce(viewer)
    try:
        viewer.wait()
    except KeyboardInterrupt:
        print("stopped")


def open_viewer(config: ViewConfig) -> Viewer:
    """Start the viewer of a config, with the export button."""
    from msdyn.export import FORMATS, ExportConfig, export_scene
    from msdyn.scene import Scene
    from msdyn.sequence import load_sequence
    from msdyn.view import Viewer

    # What the panel writes stays below this folder, wherever links lead later.
    path = config.scene.resolve()
    folder = path if path.is_dir() else path.parent
    sequence = load_sequence(config.scene, source=config.source)

    def export(name: str) -> str:
        for place in (folder / "export", *(folder / "export").glob("*")):
            if not place.resolve().is_relative_to(folder):
                raise InputError(f"{place}: leads out of the scene directory; remove this link")
        return str(export_scene(ExportConfig(path, cast(Any, name), source=config.source)))

    return Viewer(
        sequence,
        Scene(config.scene) if (config.scene / "scene.json").is_file() else None,
        host=config.host,
        port=config.port,
        folder=folder,
        export=export,
        formats=tuple(name for name in FORMATS if name != "report"),
        allowed_hosts=config.allow_host,
    )


def announce(viewer: Viewer) -> None:
    """Print the address of a viewer, and who can use it."""
    from msdyn.view.access import is_loopback

    if is_loopback(viewer.host):
        who = "this machine only; --host 0.0.0.0 for others"
    else:
        who = "others too"
        write_line(
            f"warning: listening on {viewer.host}: whoever can reach this computer and has the "
            "address below sees the scene and its images, and can save cameras and exports into "
            f"{viewer.folder}; nothing is encrypted (ssh -L {viewer.access.port}:127.0.0.1:"
            f"{viewer.access.port} with the default --host is)"
        )
    print(f"look at {viewer.address} ({who}); end with Ctrl-C", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
