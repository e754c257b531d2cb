"""`msdyn-preprocess`: from a video to a scene directory."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdyn.cli.run import parse, run
from msdyn.errors import PoorInputError
from msdyn.feedforward import backends as _network_backends  # noqa: F401  registers them
from msdyn.preprocess import STAGES, PreprocessConfig, preprocess_video
from msdyn.preprocess.importers.dycheck import DycheckConfig, preprocess_dycheck
from msdyn.preprocess.report.fitness import Fitness, judge_scene, measure_fitness
from msdyn.preprocess.report.page import REPORT
from msdyn.preprocess.report.quality import judge_stages
from msdyn.scene import Scene, check_scene

__all__ = ["main"]

PROG = "msdyn-preprocess"
DESCRIPTION = (
    "Turn a video into a scene directory: frames, tracks, masks, cameras, depth. Stages that are "
    "up to date are not run again. `--check DIR` checks a scene directory instead, `--from dycheck "
    "DIR` imports a sequence of DyCheck."
)
FIGURES = {
    "frames": ("source_frame_count", "timestamps"),
    "tracks": ("tracks", "mean_life_frames", "forward_backward_px"),
    "masks": ("objects", "moving_share", "tracks_on_objects"),
    "cameras": (
        "motion",
        "registered_frames",
        "reprojection_px",
        "triangulation_degrees",
        "focal_px",
        "focal_error",
    ),
    "depth": (
        "known",
        "measured",
        "completed",
        "assumed",
        "unknown",
        "alignment_error",
        "reprojection_difference",
    ),
}
"""Figures of each stage in the table, if its record has them."""
STAGES_KEPT = "finished stages are kept, the same command resumes with the one that was running"
NOT_FIT = "is a scene directory, but not one that a fit would do well on"


@dataclass(frozen=True)
class CheckConfig:
    """Check a scene directory."""

    check: Path
    """Scene directory to check; all of its files are read."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if any(argument.split("=")[0] == "--check" for argument in argv):
        return run(_check, parse(CheckConfig, argv, PROG, "Check a scene directory."))
    if any(argument.split("=")[0] == "--from" for argument in argv):
        config = parse(DycheckConfig, argv, PROG, "Import a sequence of DyCheck.")
        return run(_from_dycheck, config, interrupted=STAGES_KEPT)
    return run(
        _preprocess, parse(PreprocessConfig, argv, PROG, DESCRIPTION), interrupted=STAGES_KEPT
    )


def _preprocess(config: PreprocessConfig) -> int:
    """Preprocess a video, and print the table of its stages and what does not fit.

    Returns:
        3 where a fit would not do well, unless that is accepted, else 0.
    """
    logging.basicConfig(format="%(message)s")
    try:
        scene = preprocess_video(config)
    except PoorInputError:
        _print_table(Scene(config.directory))
        raise
    _print_table(scene)
    if not set(STAGES) <= set(scene.info.stages):
        return 0
    fitness = measure_fitness(scene)
    _print_reasons(fitness)
    if judge_scene(scene, fitness).grade == "poor" and not config.accept_poor:
        print(f"{config.directory} {NOT_FIT}; all the same: msdyn-fit {config.directory}")
        return 3
    print(f"next: msdyn-fit {config.directory}")
    return 0


def _from_dycheck(config: DycheckConfig) -> None:
    """Import a sequence of DyCheck, and print the table of its stages."""
    logging.basicConfig(format="%(message)s")
    _print_table(preprocess_dycheck(config))
    print(f"next: msdyn-fit {config.directory}, msdyn-eval --protocol dycheck {config.directory}")


def _check(config: CheckConfig) -> int:
    """Check a scene directory; return 3 where a fit would not do well, else 0."""
    scene = Scene(config.check)
    report = check_scene(scene)
    for name, fact in report.facts.items():
        print(f"{name:<14} {fact}")
    for warning in report.warnings:
        print(f"warning: {warning}")
    fitness = measure_fitness(scene)
    for figure in fitness:
        print(f"{figure.name:<14} {figure.value}: {figure.verdict.grade}")
    _print_reasons(fitness)
    verdict = judge_scene(scene, fitness)
    if verdict.grade == "poor":
        print(f"poor: {verdict.reason}")
        print(f"{config.check} {NOT_FIT}")
        return 3
    print(f"{config.check} is a scene directory that msdyn-fit can take")
    return 0


def _print_reasons(fitness: list[Fitness]) -> None:
    """Print why parts of a scene do not fit one another."""
    for verdict in (figure.verdict for figure in fitness if figure.verdict.grade != "good"):
        print(f"{verdict.grade}: {verdict.reason}; {verdict.cure}")


def _print_table(scene: Scene) -> None:
    """Print a line for each finished stage, then licences, reasons and warnings."""
    for stage in STAGES:
        record = scene.info.stages.get(stage)
        if record is None:
            continue
        values = record["options"] | record["quality"]
        figures = ", ".join(
            f"{key.replace('_', ' ')} {_short(values[key])}"
            for key in FIGURES[stage]
            if key in values
        )
        print(f"{stage:<8} {record['backend']:<7} {record['seconds']:7.1f} s  {figures}")
    for stage, record in scene.info.stages.items():
        if record["model"]:
            print(f"note: {stage} by {record['model']} (licence: {record['licence']})")
        if record["options"].get("why"):
            print(f"note: {stage} by {record['backend']}: {record['options']['why']}")
    for stage, verdict in judge_stages(scene.info.stages).items():
        if verdict.grade != "good":
            print(f"warning: {stage} {verdict.grade}: {verdict.reason}; {verdict.cure}")
    print(f"report: {scene.directory / REPORT}")


def _short(value: Any) -> str:
    """Return a JSON value as text, numbers with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
