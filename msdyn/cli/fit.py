"""`msdyn-fit`: fit a Gaussian sequence to a scene directory."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, cast

from msdyn.cli.run import RESUMES, parse, run
from msdyn.fit.config import PRESETS, FitConfig, preset

if TYPE_CHECKING:
    from msdyn.fit.fitter import Fitter
    from msdyn.scene import Scene

DESCRIPTION = (
    "Fit a Gaussian sequence to a scene directory. An interrupted fit resumes when the same "
    "command is given again."
)
_REFRESH_SECONDS = 3.0


@dataclass(frozen=True)
class FitCommand(FitConfig):
    """Fit a Gaussian sequence to a scene directory."""

    preset: Literal["quick", "default", "paper"] = "default"
    """quick: minutes on a CPU; default; paper: 500 epochs, for a GPU. Other options override it."""
    view: bool = False
    """Show the running fit in the browser, for connections from this computer only."""
    port: int = 8080
    """Port of --view."""

    @classmethod
    def of(cls, name: str) -> FitCommand:
        """Return the options of a preset, with the defaults of the command's own options."""
        config = preset(name)
        options: dict[str, Any] = {f.name: getattr(config, f.name) for f in fields(FitConfig)}
        return cls(**options, preset=cast(Any, name))

    @property
    def config(self) -> FitConfig:
        """The options of the fit itself."""
        return FitConfig(**{f.name: getattr(self, f.name) for f in fields(FitConfig)})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # The preset is parsed first, because it sets the defaults of the other options.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="default")
    name = first.parse_known_args(arguments)[0].preset
    default = FitCommand.of(name if name in PRESETS else "default")
    command = parse(FitCommand, arguments, "msdyn-fit", DESCRIPTION, default)
    return run(_fit, command, interrupted=RESUMES)


def _fit(command: FitCommand) -> None:
    from msdyn.fit import fit_scene
    from msdyn.scene import Scene
    from msdyn.view import write_report

    config = command.config
    scene = Scene(config.scene)
    watch = _watch(scene, command.port) if command.view else None
    sequence = fit_scene(scene, config, watch=watch)
    folder = config.out or config.scene / "fit"
    report = write_report(scene, folder, sequence=sequence)
    print(f"{sequence!r}\nwritten to {folder}; see {report}, or")
    print(f"  msdyn-render {config.out or config.scene} --path auto --out auto.mp4")


def _watch(scene: Scene, port: int) -> Callable[[Fitter], None]:
    """Return a callback that shows a fit in the browser; its first call starts the viewer."""
    from msdyn.cli.view import announce
    from msdyn.view import Viewer

    viewer: Viewer | None = None
    shown = 0.0

    def watch(fitter: Fitter) -> None:
        nonlocal viewer, shown
        if viewer is None:
            viewer = Viewer(fitter.state(), scene, port=port)
            announce(viewer.address, viewer.host)
        elif time.perf_counter() - shown > _REFRESH_SECONDS or fitter.step == fitter.steps:
            row = fitter.latest
            viewer.update(
                fitter.state(),
                f"step {fitter.step} of {fitter.steps}: loss {row['loss']:.4f}, "
                f"PSNR {row['psnr']:.1f} dB, {row['static'] + row['moving']} Gaussians",
            )
        else:
            return
        shown = time.perf_counter()

    return watch
