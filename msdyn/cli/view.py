"""`msdyn-view`: view a fitted scene in the browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import tyro

from msdyn.cli.run import parse, run
from msdyn.sequence.choice import SequenceSource

if TYPE_CHECKING:
    from msdyn.view import Viewer

DESCRIPTION = (
    "View a fitted scene in the browser, which renders the Gaussians: play, scrub, colour by "
    "object, compare with the input, save cameras and paths, export."
)


@dataclass(frozen=True)
class ViewConfig:
    """View a fitted scene."""

    scene: tyro.conf.Positional[Path] = Path()
    """Scene directory with a fit, or a sequence.safetensors; the current directory by default."""
    host: str = "127.0.0.1"
    """Address to listen on: by default for this computer only; 0.0.0.0 lets others connect."""
    port: int = 8080
    """Port to listen on, or the next free one."""
    source: SequenceSource = "fit"
    """Sequence of the scene directory: the fit, or the prediction of msdyn-predict."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    config = parse(ViewConfig, argv, "msdyn-view", DESCRIPTION)
    return run(_view, config, interrupted="the viewer has stopped")


def _view(config: ViewConfig) -> None:
    viewer = open_viewer(config)
    announce(viewer.address, config.host)
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

    sequence = load_sequence(config.scene, source=config.source)
    has_images = (config.scene / "scene.json").is_file()
    return Viewer(
        sequence,
        Scene(config.scene) if has_images else None,
        host=config.host,
        port=config.port,
        folder=config.scene if config.scene.is_dir() else config.scene.parent,
        export=lambda name: str(
            export_scene(ExportConfig(config.scene, cast(Any, name), source=config.source))
        ),
        formats=tuple(name for name in FORMATS if name != "report"),
    )


def announce(address: str, host: str) -> None:
    """Print the address of a viewer, and who can connect to it."""
    who = "this machine only; --host 0.0.0.0 for others" if host == "127.0.0.1" else "others too"
    print(f"look at {address} ({who}); end with Ctrl-C", flush=True)
