"""`preprocess_report.html`: results of preprocessing, how far to trust them, and what to improve.

One file that opens from disk, without a network.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import numpy as np

from msdyn.files import atomic_path
from msdyn.preprocess.contracts import STAGES, SparsePoints, Verdict
from msdyn.preprocess.report.pictures import contact_sheet
from msdyn.preprocess.report.quality import judge_stage, measure_fitness
from msdyn.preprocess.report.text import PAGE, SCRIPT
from msdyn.scene import Scene

__all__ = ["REPORT", "write_report"]

REPORT = "preprocess_report.html"
MAX_POINTS = 1500
HIDDEN = {"verdict", "source_frames", "source_names", "preset", "why", "path"}


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
        page = PAGE.format(title=html.escape(scene.directory.resolve().name), body="\n".join(parts))
        temporary.write_text(page, encoding="utf-8")
    return path


def _head(scene: Scene) -> str:
    """Return title and size of the clip."""
    info = scene.info
    source = info.stages.get("frames", {}).get("options", {}).get("source", "")
    seconds = info.timeline.seconds[-1] - info.timeline.seconds[0]
    total = sum(record["seconds"] for record in info.stages.values())
    return (
        f"<h1>{html.escape(source or scene.directory.name)}</h1>"
        f"<p>{len(scene)} frames of {info.width}x{info.height}, {seconds:.2f} s; preprocessed in "
        f"{total:.0f} s ({total / len(scene):.2f} s a frame); world units: {info.world_units}</p>"
    )


def _row(name: str, what: str, verdict: Verdict) -> str:
    """Return a row of a table of verdicts."""
    advice = html.escape(verdict.reason)
    if verdict.cure:
        advice += f"<br><span class=cure>{html.escape(verdict.cure)}</span>"
    return (
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(what)}</td>"
        f"<td><span class='grade {verdict.grade}'>{verdict.grade}</span></td><td>{advice}</td></tr>"
    )


def _verdicts(scene: Scene) -> str:
    """Return the table of the stages."""
    rows = []
    for stage in STAGES:
        record = scene.info.stages.get(stage)
        if record is None:
            rows.append(f"<tr><td>{stage}</td><td>not done</td><td></td><td></td></tr>")
            continue
        how = record["backend"]
        if record["model"]:
            how += f" ({record['model']}, licence: {record['licence']})"
        if record["options"].get("why"):
            how += f"; chosen by --preset: {record['options']['why']}"
        rows.append(_row(stage, how, judge_stage(stage, record)))
    return (
        "<h2>Verdicts</h2><div class=wide><table><tr><th>stage</th><th>method</th><th>verdict</th>"
        f"<th>why, and what to do</th></tr>{''.join(rows)}</table></div>"
    )


def _fitness(scene: Scene) -> str:
    """Return the table of figures across stages."""
    rows = [_row(figure.name, figure.value, figure.verdict) for figure in measure_fitness(scene)]
    return (
        "<h2>How the parts fit one another</h2><div class=wide><table><tr><th>what</th>"
        "<th>measured</th><th>verdict</th><th>why, and what to do</th></tr>"
        f"{''.join(rows)}</table></div>"
    )


def _sheet(scene: Scene) -> str:
    """Return rows of pictures."""
    parts = ["<h2>Frames, masks, depth, tracks</h2>"]
    for name, pictures in contact_sheet(scene).items():
        cells = "".join(
            f"<figure><img src='{uri}' alt='{name} of frame {frame}'>"
            f"<figcaption>{name}, {frame}</figcaption></figure>"
            for frame, uri in pictures
        )
        parts.append(f"<div class=sheet>{cells}</div>")
    return "\n".join(parts)


def _cameras(scene: Scene, points: SparsePoints | None) -> str:
    """Return a canvas with the camera path and the static points, that can be rotated."""
    cameras = scene.cameras
    xyz = np.zeros((0, 3)) if points is None else points.xyz
    if len(xyz):
        centre = np.median(xyz, axis=0)
        distance = np.linalg.norm(xyz - centre, axis=1)
        xyz = xyz[distance < 4 * np.median(distance) + 1e-9]
    xyz = xyz[:: max(1, len(xyz) // MAX_POINTS)]
    data = {
        "centres": np.round(cameras.centres, 5).tolist(),
        "forward": np.round(cameras.cam_from_world[:, 2, :3], 5).tolist(),
        "points": np.round(xyz, 5).tolist(),
    }
    length = float(np.linalg.norm(np.diff(cameras.centres, axis=0), axis=1).sum())
    return (
        "<h2>Camera path</h2><canvas id=path width=900 height=480></canvas>"
        f"<p>{len(cameras)} cameras, a path of {length:.3g}, {len(xyz)} static points; "
        "drag to turn, wheel to come closer. The first camera is green, the last one red.</p>"
        f"<script>const scene = {json.dumps(data)};\n{SCRIPT}</script>"
    )


def _figures(scene: Scene) -> str:
    """Return a table of all figures per stage, folded."""
    parts = ["<h2>All figures</h2>"]
    for stage in STAGES:
        record = scene.info.stages.get(stage)
        if record is None:
            continue
        values: dict[str, Any] = {"seconds": record["seconds"]}
        values |= record["options"] | record["quality"]
        cells = "".join(
            f"<tr><td>{html.escape(key.replace('_', ' '))}</td>"
            f"<td>{html.escape(_plain(value))}</td></tr>"
            for key, value in values.items()
            if key not in HIDDEN and value is not None
        )
        parts.append(f"<details><summary>{stage}</summary><table>{cells}</table></details>")
    return "\n".join(parts)


def _plain(value: Any) -> str:
    """Return a JSON value as text."""
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
