"""`report.html`: one self-contained page about a fit and its quality."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from msdyn.colours import colour_depth, depth_range, error_image, object_palette
from msdyn.html import (
    Markup,
    Path3D,
    bars,
    curve,
    details,
    element,
    page,
    paths_3d,
    picture,
    row,
    section,
    table,
    video,
)
from msdyn.indices import evenly_spaced
from msdyn.io import write_video
from msdyn.scene import Scene
from msdyn.sequence import Exposure, GaussianSequence, load_sequence, object_poses
from msdyn.view.facts import Facts, gather
from msdyn.view.novel_view import novel_view
from msdyn.writing import atomic_path, scratch_folder

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
        scene: the input of the fit.
        fit: folder of the fit; `fit` in the scene directory by default.
        sequence: the fit; read from the folder by default.
        out: file to write; `report.html` in the folder by default.

    Raises:
        FileNotFoundError: there is no fit.
        InputError: the fit is of another clip.
    """
    fit = fit or scene.directory / "fit"
    sequence = load_sequence(fit) if sequence is None else sequence
    facts = gather(scene, sequence, fit)
    name = scene.directory.resolve().name
    text = page(
        f"msdyn: {name}",
        _title(name, facts),
        novel_view(sequence),
        _summary(facts),
        section("Reconstruction", _strip(facts)),
        _warnings(facts),
        section("Input, render, error, depth", *_samples(facts)),
        section("Training curves", _curves(facts)),
        _evaluation(facts),
        _motion(facts),
        _costs(facts),
        _configuration(facts),
    )
    path = out or fit / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _units(facts: Facts) -> str:
    return "m" if facts.sequence.world_units == "metric" else "scene units"


def _soft(text: str) -> Markup:
    return element("p", text, class_="soft")


def _title(name: str, facts: Facts) -> Markup:
    scene, sequence = facts.scene, facts.sequence
    seconds = float(scene.info.timeline.seconds[-1] - scene.info.timeline.seconds[0])
    size = (
        f"{len(scene)} frames of {scene.info.width}x{scene.info.height}, {seconds:.1f} s; world in "
        f"{_units(facts)}; canonical frame {sequence.canonical_frame}"
    )
    return element("h1", name) + _soft(size)


def _summary(facts: Facts) -> Markup:
    sequence = facts.sequence
    psnr = float(np.mean(facts.psnr))
    figures = [
        (f"{psnr:.1f} dB", "PSNR over the clip"),
        (f"{len(sequence.static):,}", "static Gaussians"),
        (f"{len(sequence.moving):,}", "dynamic Gaussians"),
        (f"{len(facts.levels)}", "moving objects"),
        (f"{sequence.num_levels}", "motion levels"),
        (_clock(facts.log[-1]["seconds"]) if facts.log else "-", "fit"),
    ]
    boxes = [element("div", element("b", v), element("span", k)) for v, k in figures]
    return element("div", *boxes, class_="figures")


def _strip(facts: Facts) -> Markup:
    """Return input and render side by side, as a short video."""
    height, width = facts.scene.size
    step = max(1, -(-max(height, width) // _STRIP_SIDE))

    def frames() -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        for frame, image in zip(facts.frames, facts.images, strict=True):
            pair = np.concatenate([facts.scene.image(frame), image.rgb8], axis=1)
            yield pair[::step, ::step]

    fps = facts.scene.info.timeline.fps * len(facts.frames) / len(facts.scene)
    with scratch_folder() as folder:
        path = folder / "strip.mp4"
        write_video(path, frames(), fps, crf=26)
        caption = "left the input, right the reconstruction"
        return video(path, caption) + _soft(caption)


def _warnings(facts: Facts) -> Markup:
    if not facts.warnings:
        return element("p", "No check of this report found a problem.", class_="fine")
    rows = [
        element("div", element("b", w.text), Markup("<br>"), f"Try: {w.cure}", class_="warning")
        for w in facts.warnings
    ]
    return section("Possible problems", *rows)


def _samples(facts: Facts) -> Iterator[Markup]:
    """Yield rows of pictures, one row per frame."""
    chosen = evenly_spaced(len(facts.frames), _TIMES)
    near, far = _depth_range(facts)
    depth = (
        f"depth, as in the report of preprocessing: {near:.3g} (red) to {far:.3g} {_units(facts)}"
    )
    for index in chosen.tolist():
        frame, image = facts.frames[index], facts.images[index]
        truth = facts.scene.image(frame)
        held_out = ", held out from the fit" if frame in facts.held_out else ""
        yield row(
            [
                picture(truth, f"frame {frame}{held_out}"),
                picture(image.rgb8, f"render, {facts.psnr[index]:.1f} dB"),
                picture(error_image(image.rgb8, truth), "error (white: a quarter of the range)"),
                picture(colour_depth(image.depth, near, far), depth),
            ]
        )


def _depth_range(facts: Facts) -> tuple[float, float]:
    """Return the colour scale of depth: that of the report of preprocessing, if there is depth."""
    from msdyn.preprocess.report.pictures import sampled_frames

    scene = facts.scene
    if (scene.directory / "depth").is_dir():
        return depth_range(scene.depth(frame) for frame in sampled_frames(scene))
    return depth_range(image.depth for image in facts.images[:1])


def _curves(facts: Facts) -> Markup:
    steps = [entry["step"] for entry in facts.log]
    number = [entry["static"] + entry["moving"] for entry in facts.log]
    held_out = [frame in facts.held_out for frame in facts.frames]
    exposure = facts.sequence.exposure
    gains = [] if exposure is None else [*_gains(exposure)]
    title = "PSNR per frame (dB)" + (", held-out frames in orange" if any(held_out) else "")
    return element(
        "div",
        curve("loss", steps, [entry["loss"] for entry in facts.log], "step", log=True),
        curve("PSNR per step (dB)", steps, [entry["psnr"] for entry in facts.log], "step"),
        bars(title, facts.psnr, held_out, "frame"),
        curve("Gaussians", steps, number, "step"),
        *gains,
        class_="plots",
    )


def _gains(exposure: Exposure) -> Iterator[Markup]:
    """Yield plots of exposure and white balance over the frames of the clip."""
    frames, log_gains = range(len(exposure)), exposure.log_gains
    stops = exposure.stops.tolist()
    yield curve("exposure of the input (stops of light)", frames, stops, "frame")
    for name, channel in (("red", 0), ("blue", 2)):
        ratio = np.exp(log_gains[:, channel] - log_gains[:, 1]).tolist()
        yield curve(f"white balance of the input: {name} / green", frames, ratio, "frame")


def _evaluation(facts: Facts) -> Markup:
    if facts.evaluation is None:
        return _soft("No frame was held out, so nothing was measured on unseen frames. ") + element(
            "p",
            element("code", "msdyn-fit --holdout-every 8"),
            " and then ",
            element("code", "msdyn-eval"),
            " do that.",
            class_="soft",
        )
    frames = facts.evaluation.get("frames") or {}
    kind = "held-out frames" if frames.get("kept_out_of_the_fit") else "frames of the fit"
    rows = [(kind, frames)]
    for name, view in ((facts.evaluation.get("views") or {}).get("views") or {}).items():
        rows.append((f"held-out camera {name}", view))
    keys = (("mpsnr", 2), ("mssim", 3), ("mlpips", 3), ("ssim", 3))
    cells = [
        [name, str(values.get("images", "-")), *(_figure(values.get(k), d) for k, d in keys)]
        for name, values in rows
    ]
    parts = [table(["measured", "images", "mPSNR (dB)", "mSSIM", "mLPIPS", "SSIM"], cells)]
    tracks = facts.evaluation.get("tracks")
    if tracks:
        error = f"{_figure(tracks.get('epe3d_moving'), 4)} {_units(facts)}"
        parts.append(element("p", f"3D tracks: mean error of dynamic points {error}"))
    return section("Measured", *parts)


def _motion(facts: Facts) -> Markup:
    if not facts.levels:
        return section("Motion", element("p", "No moving objects."))
    rows = []
    for label, shares in sorted(facts.levels.items()):
        number = int((facts.sequence.labels == label).sum())
        rows.append(
            [f"object {label}", f"{number:,}", f"{facts.tracks.get(label, float('nan')):.0f}"]
            + [f"{value:.4g}" for value in shares.mean(1)]
        )
    head = ["", "Gaussians", "tracks per frame", *facts.sequence.motion.level_names]
    return section(
        "Motion explained by each level",
        _soft(
            "How far a level carries the Gaussians beyond the levels above it, root mean square "
            f"over the clip, in {_units(facts)}."
        ),
        table(head, rows),
    ) + section(
        "Paths of the objects",
        _soft(
            "Centres of the objects in colour, the camera in grey; a dot marks the end of each. "
            "Drag to rotate."
        ),
        _paths(facts),
    )


def _paths(facts: Facts) -> Markup:
    """Return the canvas with the paths of objects and camera."""
    frames = np.arange(len(facts.sequence.timeline))
    colours = object_palette()
    poses = sorted(object_poses(facts.sequence, frames).items())
    paths = [
        Path3D(pose[:, :3, 3], "rgb({},{},{})".format(*colours[label].tolist()), f"object {label}")
        for label, pose in poses
    ]
    cameras = facts.sequence.cameras
    paths.append(Path3D(cameras.centres, "#8a93a0", "camera"))
    return paths_3d(paths, np.zeros((0, 3)), cameras.cam_from_world[len(cameras) // 2, :3, :3])


def _costs(facts: Facts) -> Markup:
    rows = [
        [name, str(record.get("backend", "-")), _clock(float(record.get("seconds") or 0))]
        for name, record in facts.scene.info.stages.items()
    ]
    if facts.log:
        levels = f"{facts.sequence.num_levels} levels"
        rows.append(["fit", levels, _clock(facts.log[-1]["seconds"])])
    return section("Time", table(["stage", "backend", "time"], rows))


def _configuration(facts: Facts) -> Markup:
    options = element("pre", json.dumps(facts.options, indent=1))
    return section("Configuration", details("all options", options))


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
