"""`msdyn-preprocess`: from a video to a scene directory."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msdyn.cli.inputs import require_files, require_scene, require_video
from msdyn.cli.run import parse, run
from msdyn.errors import InputError, PoorInputError
from msdyn.options import text_of
from msdyn.preprocess.config import (
    IMPORT_KINDS,
    CheckConfig,
    ImportConfig,
    PreprocessConfig,
)
from msdyn.preprocess.dycheck_config import DycheckConfig
from msdyn.preprocess.lerobot_config import LerobotConfig
from msdyn.preprocess.recording_kinds import with_kind
from msdyn.preprocess.stages import BACKEND_STAGES, STAGES, add_backends
from msdyn.progress import stage, write_error

if TYPE_CHECKING:
    from msdyn.scene import Scene

__all__ = ["main"]

PROG = "msdyn-preprocess"
DESCRIPTION = (
    "Turn a video into a scene directory: frames, tracks, masks, cameras, depth. Stages that are "
    "up to date are not run again. `--check DIR` checks a scene directory instead, `--from KIND "
    f"PATH` imports a data set or a recording: {', '.join(IMPORT_KINDS)}."
)
FROM_LEROBOT = (
    "Turn an episode of a LeRobotDataset v3.0 into a scene directory, with the robot's states and "
    "actions. Cameras and depth of the dataset are used where it has them."
)
LEROBOT_EXAMPLES = (
    "--from lerobot pick_place --episode 3 --camera observation.images.front",
    "--from lerobot pick_place --episode 3 --cameras sfm  # estimate what the dataset has",
)
EXAMPLES = (
    "clip.mp4  # writes the scene directory clip/",
    "clip.mp4 --start 2 --end 8 --max-frames 120 --out scene",
    "clip.mp4 --cameras files --cameras-path transforms.json",
    'clip.mp4 --prompts "gripper, red mug"  # objects by name, with SAM 3',
    "--from record3d kitchen.r3d --max-frames 120  # with the poses and depth of the phone",
    "--check scene  # reads all files and says what would not fit",
)
STAGES_KEPT = "finished stages are kept, the same command resumes with the one that was running"
add_backends("msdyn.feedforward.backends")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    config = options(argv)
    if isinstance(config, CheckConfig):
        return run(_check, config)
    if isinstance(config, DycheckConfig):
        return run(_from_dycheck, config, interrupted=STAGES_KEPT)
    return run(_preprocess, config, interrupted=STAGES_KEPT)


def options(
    argv: Sequence[str] | None = None,
) -> PreprocessConfig | DycheckConfig | CheckConfig:
    """Return the options that arguments give; those of the process by default.

    Raises:
        SystemExit: as of `parse`.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        argv, line = with_kind(argv)
    except InputError as error:
        write_error(str(error))
        raise SystemExit(error.exit_code) from None
    if line:
        print(line)
    if any(argument.split("=")[0] == "--check" for argument in argv):
        return parse(CheckConfig, argv, PROG, "Check a scene directory.")
    if text_of("--from", argv) == "lerobot":
        return parse(LerobotConfig, argv, PROG, FROM_LEROBOT, examples=LEROBOT_EXAMPLES)
    if text_of("--from", argv) == "dycheck":
        return parse(DycheckConfig, argv, PROG, "Import a sequence of DyCheck.")
    if any(argument.split("=")[0] == "--from" for argument in argv):
        return parse(ImportConfig, argv, PROG, "Import a recording, such as --from record3d.")
    return parse(PreprocessConfig, argv, PROG, DESCRIPTION, examples=EXAMPLES)


def _preprocess(config: PreprocessConfig) -> int:
    """Preprocess a video, a recording or an episode; print its stages and what does not fit.

    Returns:
        3 where a fit would not do well, unless that is accepted, else 0.
    """
    require_video(config.video)
    paths = [getattr(config, f"{stage}_path") for stage in BACKEND_STAGES]
    require_files(*paths, config.prompts_file)
    with stage("loading"):
        from msdyn.cli.verdicts import NOT_FIT, print_reasons, print_table
        from msdyn.preprocess.report.fitness import judge_scene, measure_fitness
        from msdyn.preprocess.report.quality import judge_stages
        from msdyn.scene import Scene

    logging.basicConfig(format="%(message)s")
    try:
        scene = _made(config)
    except PoorInputError:
        print_table(Scene(config.directory), besides="cameras")  # the error has their verdict
        raise
    print_table(scene)
    if not set(STAGES) <= set(scene.info.stages):
        # Cameras too poor for the depth to come have ended `preprocess_video`.
        verdicts = judge_stages(scene.info.stages, triangulated=False)
        poor = any(verdict.grade == "poor" for verdict in verdicts.values())
        return 3 if poor and not config.accept_poor else 0
    with stage("how the parts fit"):
        fitness = measure_fitness(scene)
    print_reasons(scene, fitness)
    if judge_scene(scene, fitness).grade == "poor" and not config.accept_poor:
        print(f"{config.directory} {NOT_FIT}; all the same: msdyn-fit {config.directory}")
        return 3
    print(f"next: msdyn-fit {config.directory}")
    return 0


def _made(config: PreprocessConfig) -> Scene:
    """Make the scene of a video, of an episode of a robot, or of a recording."""
    if isinstance(config, LerobotConfig):
        from msdyn.preprocess.importers.lerobot import preprocess_lerobot

        return preprocess_lerobot(config)
    if isinstance(config, ImportConfig):
        from msdyn.preprocess.imported import import_clip

        return import_clip(config)
    from msdyn.preprocess.pipeline import preprocess_video

    return preprocess_video(config)


def _from_dycheck(config: DycheckConfig) -> None:
    """Import a sequence of DyCheck, and print the table of its stages."""
    require_files(config.data, config.masks_path, config.tracks_path)
    with stage("loading"):
        from msdyn.cli.verdicts import print_table
        from msdyn.preprocess.importers.dycheck import preprocess_dycheck

    logging.basicConfig(format="%(message)s")
    print_table(preprocess_dycheck(config))
    print(f"next: msdyn-fit {config.directory}, msdyn-eval --protocol dycheck {config.directory}")


def _check(config: CheckConfig) -> int:
    """Check a scene directory; return 3 where a fit would not do well, else 0."""
    require_scene(config.check)
    with stage("loading"):
        from msdyn.cli.verdicts import NOT_FIT, print_reasons, print_stages
        from msdyn.preprocess.report.fitness import judge_scene, measure_fitness
        from msdyn.scene import Scene, check_scene

    scene = Scene(config.check)
    with stage("reading the scene"):
        report = check_scene(scene)
    for name, fact in report.facts.items():
        print(f"{name:<14} {fact}")
    for warning in report.warnings:
        print(f"warning: {warning}")
    with stage("how the parts fit"):
        fitness = measure_fitness(scene)
    for figure in fitness:
        print(f"{figure.name:<14} {figure.value}: {figure.verdict.grade}")
    print_stages(scene)
    print_reasons(scene, fitness)
    if judge_scene(scene, fitness).grade == "poor":
        print(f"{config.check} {NOT_FIT}")
        return 3
    print(f"{config.check} is a scene directory that msdyn-fit can take")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
