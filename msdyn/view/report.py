"""`report.html`: one self-contained page that says what was reconstructed, and how well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from msdyn.files import atomic_path
from msdyn.render import colour_depth, error_image, object_palette
from msdyn.scene import Scene
from msdyn.sequence import GaussianSequence, load_sequence, object_poses
from msdyn.view.facts import Facts, gather
from msdyn.view.html import bars, curve, page, picture, table, video

__all__ = ["write_report"]

_TIMES = 5
_STRIP_SIDE = 360


def write_report(
    scene: Scene,
    fit: Path | None = None,
    *,
    sequence: GaussianSequence | None = None,
    out: Path | None = None,
) -> Path:
    """Write the report of a fit and return its file.

    Args:
        scene: what was fitted to.
        fit: folder of the fit; `fit` in the scene directory by default.
        sequence: the fit, if it is at hand; otherwise it is read from the folder.
        out: file to write; `report.html` in the folder by default.

    Raises:
        FileNotFoundError: there is no fit.
        InputError: the fit is of another clip.
    """
    fit = fit or scene.directory / "fit"
    sequence = load_sequence(fit) if sequence is None else sequence
    facts = gather(scene, sequence, fit)
    name = scene.directory.resolve().name
    body = "\n".join(
        [
            _head(name, facts),
            f"<h2>What was reconstructed</h2>{_strip(facts)}",
            _warnings(facts),
            f"<h2>Input, render, error, depth</h2>{_samples(facts)}",
            f"<h2>How the fit went</h2>{_curves(facts)}",
            _evaluation(facts),
            _motion(facts),
            _costs(facts),
            _configuration(facts),
        ]
    )
    script = files("msdyn.view").joinpath("paths.js").read_text(encoding="utf-8")
    script = script.replace("@PATHS@", json.dumps(_paths(facts)))
    path = out or fit / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page(f"msdyn: {name}", body, script), encoding="utf-8")
    return path


def _units(facts: Facts) -> str:
    return "m" if facts.sequence.world_units == "metric" else "scene units"


def _head(name: str, facts: Facts) -> str:
    scene, sequence = facts.scene, facts.sequence
    seconds = float(scene.info.timeline.seconds[-1] - scene.info.timeline.seconds[0])
    psnr = float(np.mean(facts.psnr))
    figures = [
        (f"{psnr:.1f} dB", "PSNR over the clip"),
        (f"{len(sequence.static):,}", "Gaussians that stand still"),
        (f"{len(sequence.moving):,}", "Gaussians that move"),
        (f"{len(facts.levels)}", "moving objects"),
        (f"{sequence.num_levels}", "motion levels"),
        (_clock(facts.log[-1]["seconds"]) if facts.log else "-", "fit"),
    ]
    boxes = "".join(f"<div><b>{escape(v)}</b><span>{escape(k)}</span></div>" for v, k in figures)
    return (
        f"<h1>{escape(name)}</h1><p class='soft'>{len(scene)} frames of {scene.info.width}x"
        f"{scene.info.height}, {seconds:.1f} s; world in {_units(facts)}; canonical frame "
        f"{sequence.canonical_frame}</p><div class='figures'>{boxes}</div>"
    )


def _strip(facts: Facts) -> str:
    """Input and render side by side, as a short video."""
    height, width = facts.scene.size
    step = max(1, -(-max(height, width) // _STRIP_SIDE))

    def frames() -> Iterator[np.ndarray]:
        for frame, image in zip(facts.frames, facts.images, strict=True):
            pair = np.concatenate([facts.scene.image(frame), image.rgb8], axis=1)
            yield pair[::step, ::step]

    fps = facts.scene.info.timeline.fps * len(facts.frames) / len(facts.scene)
    return video(frames(), fps) + "<p class='soft'>left the input, right the reconstruction</p>"


def _warnings(facts: Facts) -> str:
    if not facts.warnings:
        return "<p class='fine'>Nothing found that looks wrong.</p>"
    rows = "".join(
        f"<div class='warning'><b>{escape(w.text)}</b><br>Try: {escape(w.cure)}</div>"
        for w in facts.warnings
    )
    return f"<h2>Look at this</h2>{rows}"


def _samples(facts: Facts) -> str:
    chosen = np.unique(np.linspace(0, len(facts.frames) - 1, _TIMES).round().astype(int))
    known = np.concatenate([i.depth[i.depth > 0] for i in facts.images[:: len(facts.images)]])
    near, far = np.percentile(known, [1, 99]) if known.size else (1.0, 2.0)
    rows = []
    for index in chosen.tolist():
        frame, image = facts.frames[index], facts.images[index]
        truth = facts.scene.image(frame)
        kept_out = ", kept out of the fit" if frame in facts.held_out else ""
        rows.append(
            "<div class='row'>"
            + picture(truth, f"frame {frame}{kept_out}")
            + picture(image.rgb8, f"render, {facts.psnr[index]:.1f} dB")
            + picture(error_image(image.rgb8, truth), "error (white: a quarter of the range)")
            + picture(colour_depth(image.depth, 0.9 * near, 1.1 * far), "depth (near is warm)")
            + "</div>"
        )
    return "".join(rows)


def _curves(facts: Facts) -> str:
    steps = [row["step"] for row in facts.log]
    plots = [
        curve("loss", steps, [row["loss"] for row in facts.log], "step", log=True),
        curve("PSNR of the step's frames (dB)", steps, [row["psnr"] for row in facts.log], "step"),
        bars(
            "PSNR of every frame (dB)" + (", kept out of the fit in orange" * bool(facts.held_out)),
            facts.psnr,
            [frame in facts.held_out for frame in facts.frames],
            "frame",
        ),
        curve("Gaussians", steps, [row["static"] + row["moving"] for row in facts.log], "step"),
    ]
    return f"<div class='plots'>{''.join(plots)}</div>"


def _evaluation(facts: Facts) -> str:
    if facts.evaluation is None:
        return (
            "<p class='soft'>Not measured on anything kept out of the fit. "
            "<code>msdyn-fit --holdout-every 8</code> and <code>msdyn-eval</code> do that.</p>"
        )
    rows = []
    frames = facts.evaluation.get("frames") or {}
    kind = "frames kept out" if frames.get("kept_out_of_the_fit") else "frames of the fit"
    rows.append((kind, frames))
    for name, view in ((facts.evaluation.get("views") or {}).get("views") or {}).items():
        rows.append((f"held-out camera {name}", view))
    keys = (("mpsnr", 2), ("mssim", 3), ("mlpips", 3), ("ssim", 3))
    cells = [
        [name, str(row.get("images", "-")), *(_figure(row.get(k), d) for k, d in keys)]
        for name, row in rows
    ]
    text = table(["measured", "images", "mPSNR (dB)", "mSSIM", "mLPIPS", "SSIM"], cells)
    tracks = facts.evaluation.get("tracks")
    if tracks:
        text += (
            f"<p>3D tracks: {_figure(tracks.get('epe3d_moving'), 4)} {_units(facts)} off on "
            f"moving points</p>"
        )
    return f"<h2>Measured</h2>{text}"


def _motion(facts: Facts) -> str:
    if not facts.levels:
        return "<h2>Motion</h2><p>Nothing moves in this scene.</p>"
    names = facts.sequence.motion.level_names
    rows = []
    for label, shares in sorted(facts.levels.items()):
        mean = shares.mean(1)
        number = int((facts.sequence.labels == label).sum())
        rows.append(
            [f"object {label}", f"{number:,}", f"{facts.tracks.get(label, float('nan')):.0f}"]
            + [f"{value:.4g}" for value in mean]
        )
    head = ["", "Gaussians", "tracks a frame", *names]
    return (
        "<h2>Motion explained by each level</h2>"
        f"<p class='soft'>How far a level carries the Gaussians beyond the levels above it, "
        f"root mean square over the clip, in {_units(facts)}.</p>{table(head, rows)}"
        "<h2>Paths of the objects</h2><p class='soft'>Centres of the objects in colour, the camera "
        "in grey; a dot is where each ends. Drag to turn.</p><canvas id='paths'></canvas>"
    )


def _paths(facts: Facts) -> dict:
    """Return what the canvas draws: polylines in world coordinates, and which way is up."""
    frames = np.arange(len(facts.sequence.timeline))
    colours = object_palette()
    lines = [
        {
            "name": f"object {label}",
            "colour": "rgb({},{},{})".format(*colours[label].tolist()),
            "points": pose[:, :3, 3].round(6).tolist(),
        }
        for label, pose in sorted(object_poses(facts.sequence, frames).items())
    ]
    cameras = facts.sequence.cameras
    lines.append(
        {"name": "camera", "colour": "#8a93a0", "points": cameras.centres.round(6).tolist()}
    )
    middle = cameras.cam_from_world[len(cameras) // 2, :3, :3]
    return {"lines": lines, "turn": middle.round(9).tolist()}


def _costs(facts: Facts) -> str:
    rows = [
        [name, str(record.get("backend", "-")), _clock(float(record.get("seconds") or 0))]
        for name, record in facts.scene.info.stages.items()
    ]
    if facts.log:
        rows.append(["fit", str(facts.sequence.num_levels) + " levels",
                     _clock(facts.log[-1]["seconds"])])  # fmt: skip
    return f"<h2>Time</h2>{table(['stage', 'backend', 'time'], rows)}"


def _configuration(facts: Facts) -> str:
    text = escape(json.dumps(facts.options, indent=1))
    return (
        f"<h2>Configuration</h2><details><summary>all options</summary><pre>{text}</pre></details>"
    )


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
