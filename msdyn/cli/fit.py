"""`msdyn-fit`: fit a Gaussian sequence to a scene directory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from msdyn.cli.inputs import require_scene
from msdyn.cli.run import RESUMES, parse, run
from msdyn.fit.config import PRESETS, FitConfig, preset
from msdyn.logs import require_logs
from msdyn.options import Range, text_of
from msdyn.progress import stage

if TYPE_CHECKING:
    from msdyn.fit.fitter import Fitter
    from msdyn.scene import Scene

DESCRIPTION = (
    "Fit a Gaussian sequence to a scene directory. An interrupted fit resumes when the same "
    "command is given again."
)
EXAMPLES = (
    "scene --preset quick  # minutes on a CPU",
    "scene --view  # and see it in the browser as it runs",
    "scene --preset paper --device cuda --holdout-every 8  # the paper's values, for a GPU",
)
_REFRESH_SECONDS = 3.0


@dataclass(frozen=True)
class FitCommand(FitConfig):
    """Fit a Gaussian sequence to a scene directory."""

    headings: ClassVar[dict[str, str]] = {
        "preset": "Preset",
        **FitConfig.headings,
        "view": "Running and output",
    }

    preset: Literal["quick", "default", "paper"] = "default"
    """quick: minutes on a CPU; default; paper: 500 epochs, for a GPU. Other options override it."""
    view: bool = False
    """Show the running fit in the browser, for connections from this computer only."""
    port: Annotated[int | None, Range(1, 65_535, also=(0,))] = None
    """Port of --view, 0 for any free one; by default 8080, or the next free one."""

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
    return run(_fit, options(argv), interrupted=RESUMES)


def options(argv: Sequence[str] | None = None) -> FitCommand:
    """Return the options that arguments give; those of the process by default.

    Raises:
        SystemExit: as of `parse`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # The preset is parsed first, because it sets the defaults of the other options.
    name = text_of("--preset", arguments)
    default = FitCommand.of(name if name in PRESETS else "default")
    return parse(FitCommand, arguments, "msdyn-fit", DESCRIPTION, default, examples=EXAMPLES)


def _fit(command: FitCommand) -> None:
    require_scene(command.scene)
    require_logs(command.log)
    with stage("loading"):
        from msdyn.fit import fit_scene
        from msdyn.scene import Scene
        from msdyn.view import write_report

    config = command.config
    scene = Scene(config.scene)
    watch = _watch(scene, command.port) if command.view else None
    sequence = fit_scene(scene, config, watch=watch)
    folder = config.out or config.scene / "fit"
    with stage("report"):
        report = write_report(scene, folder, sequence=sequence)
    print(f"{sequence!r}\nwritten to {folder}; see {report}, or")
    print(f"  msdyn-render {config.out or config.scene} --path auto --out auto.mp4")


def _watch(scene: Scene, port: int | None) -> Callable[[Fitter], None]:
    """Return a callback that shows a fit in the browser; its first call starts the viewer."""
    from msdyn.cli.view import announce
    from msdyn.view import Viewer
    from msdyn.view.server import listen
    from msdyn.view.viewer import LOCAL

    listen(LOCAL, port).close()  # a port in use is told now, not when the fit begins
    viewer: Viewer | None = None
    shown = 0.0

    def watch(fitter: Fitter) -> None:
        nonlocal viewer, shown
        if viewer is None:
            viewer = Viewer(fitter.state(), scene, port=port)
            announce(viewer)
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


if __name__ == "__main__":
    raise SystemExit(main())
