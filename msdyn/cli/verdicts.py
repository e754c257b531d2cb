"""What `msdyn-preprocess` prints of a scene directory: its stages, and each verdict once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msdyn.errors import printable
from msdyn.preprocess.contracts import Verdict
from msdyn.preprocess.report.fitness import Fitness
from msdyn.preprocess.report.page import REPORT
from msdyn.preprocess.report.quality import judge_stages
from msdyn.preprocess.stages import STAGES
from msdyn.scene import Scene

__all__ = ["NOT_FIT", "print_reasons", "print_stages", "print_table"]

NOT_FIT = "is a scene directory, but not one that a fit would do well on"
FIGURES = {
    "frames": ("source_frame_count", "timestamps"),
    "tracks": ("tracks", "mean_life_frames", "forward_backward_px"),
    "masks": ("objects", "moving_share", "object_share", "tracks_on_objects"),
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


def print_table(scene: Scene, *, besides: str = "") -> None:
    """Print a line for each finished stage, then licences, reasons and warnings.

    Args:
        scene: the scene.
        besides: stage whose verdict is printed elsewhere.
    """
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
        line = f"{stage:<8} {record['backend']:<7} {record['seconds']:7.1f} s  {figures}"
        print(printable(line))
    for stage, record in scene.info.stages.items():
        if record["model"]:
            print(printable(f"note: {stage} by {record['model']} (licence: {record['licence']})"))
        if record["options"].get("why"):
            print(printable(f"note: {stage} by {record['backend']}: {record['options']['why']}"))
    if names := scene.object_names:
        named = ", ".join(f"{label} {name}" for label, name in names.items())
        print(printable(f"note: objects: {named}", 1000))
    print_stages(scene, besides=besides)
    print(f"report: {scene.directory / REPORT}")


def print_stages(scene: Scene, *, besides: str = "") -> None:
    """Print why stages are not good, but for one of them."""
    for stage, verdict in judge_stages(scene.info.stages).items():
        if verdict.grade != "good" and stage != besides:
            _print_verdict(stage, verdict)


def print_reasons(scene: Scene, fitness: Sequence[Fitness]) -> None:
    """Print why parts of a scene do not fit one another, but for what `print_stages` says."""
    stages = judge_stages(scene.info.stages)
    said = {verdict.reason for verdict in stages.values()}
    for figure in fitness:
        verdict = figure.verdict
        # The agreement of depth is measured again, and may differ in the last digit.
        if figure.name in stages and stages[figure.name].grade == verdict.grade:
            continue
        if verdict.grade != "good" and verdict.reason not in said:
            said.add(verdict.reason)
            _print_verdict(figure.name, verdict)


def _print_verdict(name: str, verdict: Verdict) -> None:
    print(printable(f"warning: {name} {verdict.grade}: {verdict.reason}; {verdict.cure}", 1000))


def _short(value: Any) -> str:
    """Return a JSON value as text, numbers with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
