"""`msdyn-fit`: fit a Gaussian sequence to a scene directory."""

import argparse
import sys
from collections.abc import Sequence

from msdyn.cli.run import parse, run
from msdyn.fit.config import PRESETS, FitConfig

DESCRIPTION = (
    "Fit a Gaussian sequence to a scene directory. An interrupted fit goes on where it was when "
    "the same command is given again."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # The preset is read first: it is what the other options override.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="default")
    preset = first.parse_known_args(arguments)[0].preset
    default = PRESETS.get(preset, FitConfig())
    return run(_fit, parse(FitConfig, arguments, "msdyn-fit", DESCRIPTION, default))


def _fit(config: FitConfig) -> None:
    from msdyn.fit import fit_scene
    from msdyn.scene import Scene
    from msdyn.view import write_report

    scene = Scene(config.scene)
    sequence = fit_scene(scene, config)
    folder = config.out or config.scene / "fit"
    report = write_report(scene, folder, sequence=sequence)
    print(f"{sequence!r}\nwritten to {folder}; see {report}, or")
    print(f"  msdyn-render {config.out or config.scene} --path orbit --out orbit.mp4")
