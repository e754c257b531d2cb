"""`preprocess_report.html`: results of preprocessing, how far to trust them, and what to improve.

One file that opens from disk, without a network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from msdyn import html
from msdyn.colours import object_palette
from msdyn.html import Markup, element
from msdyn.preprocess.contracts import STAGES, SparsePoints, Verdict
from msdyn.preprocess.report.fitness import measure_fitness
from msdyn.preprocess.report.pictures import WIDTH, contact_sheet
from msdyn.preprocess.report.quality import judge_stages
from msdyn.scene import Scene
from msdyn.writing import atomic_path

__all__ = ["REPORT", "write_report"]

REPORT = "preprocess_report.html"
MAX_POINTS = 1500
HIDDEN = {
    "verdict",
    "source_frames",
    "source_names",
    "source_digest",
    "preset",
    "why",
    "path",
}
AXIS = 0.04
"""Length of the drawn optical axes as a fraction of the extent of cameras and points."""


def write_report(scene: Scene, points: SparsePoints | None = None) -> Path:
    """Write the report of a scene directory, which may lack stages, and return its path.

    Args:
        scene: the scene.
        points: static points, drawn with the camera path.
    """
    stages = scene.info.stages
    parts = [_head(scene), _verdicts(scene)]
    if "depth" in stages and set(STAGES) <= set(stages):
        parts.append(_fitness(scene))
    parts.append(_sheet(scene))
    if "cameras" in stages:
        parts.append(_cameras(scene, points))
    parts.append(_figures(scene))
    path = scene.directory / REPORT
    with atomic_path(path) as temporary:
        text = html.page(f"{scene.directory.resolve().name}: preprocessing", *parts)
        temporary.write_text(text, encoding="utf-8")
    return path


def _head(scene: Scene) -> Markup:
    """Return title and size of the clip."""
    info = scene.info
    source = info.stages.get("frames", {}).get("options", {}).get("source", "")
    seconds = info.timeline.seconds[-1] - info.timeline.seconds[0]
    total = sum(record["seconds"] for record in info.stages.values())
    size = (
        f"{len(scene)} frames of {info.width}x{info.height}, {seconds:.2f} s; preprocessed in "
        f"{total:.0f} s ({total / len(scene):.2f} s per frame); world units: {info.world_units}"
    )
    return element("h1", source or scene.directory.name) + element("p", size)


def _row(name: str, value: str, verdict: Verdict) -> list[str]:
    """Return a row of a table of verdicts."""
    advice = element("span", verdict.reason)
    if verdict.cure:
        advice += element("p", verdict.cure, class_="soft")
    return [name, value, element("span", verdict.grade, class_=f"grade {verdict.grade}"), advice]


def _verdicts(scene: Scene) -> Markup:
    """Return the table of the stages."""
    rows, verdicts = [], judge_stages(scene.info.stages)
    for stage in STAGES:
        record = scene.info.stages.get(stage)
        if record is None:
            rows.append([stage, "not done", "", ""])
            continue
        method = record["backend"]
        if record["model"]:
            method += f" ({record['model']}, licence: {record['licence']})"
        if record["options"].get("why"):
            method += f"; chosen by --preset: {record['options']['why']}"
        rows.append(_row(stage, method, verdicts[stage]))
    return html.section("Verdicts", _table(["stage", "method"], rows))


def _fitness(scene: Scene) -> Markup:
    """Return the table of figures across stages."""
    rows = [_row(figure.name, figure.value, figure.verdict) for figure in measure_fitness(scene)]
    return html.section("How the parts fit one another", _table(["figure", "measured"], rows))


def _table(head: list[str], rows: Iterable[list[str]]) -> Markup:
    return html.table([*head, "verdict", "why, and what to do"], rows, numbers=False)


def _sheet(scene: Scene) -> Markup:
    """Return rows of pictures."""
    rows = [
        html.row([html.picture(image, f"{name}, {t}", longest=WIDTH) for t, image in pictures])
        for name, pictures in contact_sheet(scene).items()
    ]
    legend = "Depth: near is red, far is blue, unknown is black, as in the report of the fit."
    names = [_named(scene)] if scene.object_names else []
    soft = element("p", legend, class_="soft")
    return html.section("Frames, masks, depth, tracks", *rows, *names, soft)


def _named(scene: Scene) -> Markup:
    """Return the names of the objects, in the colours of the masks."""
    palette, line = object_palette(), element("span", "Objects: ")
    for label, name in scene.object_names.items():
        red, green, blue = palette[label].tolist()
        line += element("span", "\N{BLACK SQUARE} ", style=f"color: rgb({red},{green},{blue})")
        line += element("span", f"{label} {name}  ")
    return element("p", line)


def _cameras(scene: Scene, points: SparsePoints | None) -> Markup:
    """Return the camera path with optical axes and static points, in 3D."""
    cameras = scene.cameras
    xyz = np.zeros((0, 3)) if points is None else points.xyz
    if len(xyz):
        distance = np.linalg.norm(xyz - np.median(xyz, axis=0), axis=1)
        xyz = xyz[distance < 4 * np.median(distance) + 1e-9]
    xyz = xyz[:: max(1, len(xyz) // MAX_POINTS)]
    centres, count = cameras.centres, len(cameras)
    everything = np.concatenate([centres, xyz])
    reach = AXIS * float(np.linalg.norm(np.ptp(everything, axis=0)))
    tips = centres + reach * cameras.cam_from_world[:, 2, :3]
    paths = []
    for i in range(count):
        start = max(i - 1, 0)
        line = np.stack([centres[start], centres[i], tips[i]])
        name = "first" if i == 0 else "last" if i == count - 1 else ""
        paths.append(html.Path3D(line, _hue(i / max(count - 1, 1)), name))
    length = float(np.linalg.norm(np.diff(centres, axis=0), axis=1).sum())
    return html.section(
        "Camera path",
        html.paths_3d(paths, xyz, cameras.cam_from_world[count // 2, :3, :3]),
        element(
            "p",
            f"{count} cameras, a path of {length:.3g}, {len(xyz)} static points; drag to rotate, "
            "wheel to zoom. Ticks are optical axes, from green (first) to red (last).",
            class_="soft",
        ),
    )


def _hue(share: float) -> str:
    """Return the colour of a camera at a share of the clip."""
    return f"rgb({60 + 160 * share:.0f},{160 - 120 * share:.0f},60)"


def _figures(scene: Scene) -> Markup:
    """Return a table of all figures per stage, folded."""
    parts = []
    for stage in STAGES:
        record = scene.info.stages.get(stage)
        if record is None:
            continue
        values = {"seconds": record["seconds"], **record["options"], **record["quality"]}
        rows = [
            [key.replace("_", " "), _plain(value)]
            for key, value in values.items()
            if key not in HIDDEN and value is not None
        ]
        parts.append(html.details(stage, html.table(["figure", "value"], rows, numbers=False)))
    return html.section("All figures", *parts)


def _plain(value: object) -> str:
    """Return a JSON value as text."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
