"""The contents of a report: figures of a fit from its folder, its scene and its renders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import numpy as np
from jaxtyping import Float

from msdyn.errors import InputError
from msdyn.indices import evenly_spaced
from msdyn.reading import as_schema, decode_json, read_json_as, read_lines
from msdyn.render import RenderedImage, render_image
from msdyn.scene import Scene
from msdyn.sequence import GaussianSequence
from msdyn.sequence.levels import motion_by_level

__all__ = ["Facts", "Warning", "gather"]

_MAX_FRAMES = 60
"""Maximum number of frames rendered for a report."""
_MIN_TRACKS = 8
_BAD_FRAME_DB = 3.0
_MIN_PSNR = 22.0
_MIN_DEPTH = 0.5
_MIN_MOTION = 0.005
"""Motion of an object, relative to the median depth, below which it may be background."""


class LogRow(TypedDict):
    """What is shown of a line of `metrics.jsonl`."""

    step: int
    static: int
    moving: int
    seconds: float
    loss: float
    psnr: float


class _Options(TypedDict, total=False):
    holdout_every: Annotated[int, msgspec.Meta(ge=0)]


class _Config(TypedDict, total=False):
    options: _Options


class Figures(TypedDict, total=False):
    """What is shown of images that an evaluation compared."""

    images: int
    mpsnr: float | None
    mssim: float | None
    mlpips: float | None
    ssim: float | None
    kept_out_of_the_fit: bool


class Views(TypedDict, total=False):
    """Figures of the held-out cameras, by name."""

    views: dict[str, Figures]


class TrackFigures(TypedDict, total=False):
    """What is shown of compared 3D tracks."""

    epe3d_moving: float | None


class Evaluation(TypedDict, total=False):
    """What is shown of `eval.json`."""

    frames: Figures | None
    views: Views | None
    tracks: TrackFigures | None


@dataclass(frozen=True)
class Warning:
    """A possible problem, and advice on it."""

    text: str
    cure: str


@dataclass(frozen=True)
class Facts:
    """Figures of a fit.

    Attributes:
        scene, sequence: the input of the fit, and its result.
        frames: indices of the rendered frames.
        images: render of each.
        psnr: dB of each.
        held_out: frames held out from the fit.
        log: rows of `metrics.jsonl`.
        options: content of `config.json`.
        evaluation: content of `eval.json`; None without one.
        levels: by object, displacement by each motion level at each frame, scene units.
        tracks: by object, mean number of visible tracks per frame.
        warnings: possible problems.
    """

    scene: Scene
    sequence: GaussianSequence
    frames: list[int]
    images: list[RenderedImage]
    psnr: list[float]
    held_out: list[int]
    log: list[LogRow]
    options: dict[str, Any]
    evaluation: Evaluation | None
    levels: dict[int, Float[np.ndarray, "levels frames"]]
    tracks: dict[int, float]
    warnings: list[Warning]


def gather(scene: Scene, sequence: GaussianSequence, fit: Path) -> Facts:
    """Return the figures of a fit in a folder; those of missing files are left empty.

    Raises:
        InputError: the sequence is not of the scene's clip.
    """
    if len(scene) != len(sequence.timeline):
        raise InputError(
            f"{scene.directory}: expected the {len(sequence.timeline)} frames of the fit, "
            f"got {len(scene)}"
        )
    count = min(len(scene), _MAX_FRAMES)
    frames = evenly_spaced(len(scene), count).tolist()
    images, psnr = [], []
    for frame in frames:
        time = sequence.timeline.time_of_frame(frame)
        image = render_image(sequence, sequence.cameras[frame], time, exposure=True)
        truth = scene.image(frame).astype(np.float64)
        error = ((image.rgb8 - truth) ** 2).mean() / 255**2
        images.append(image)
        psnr.append(float(-10 * np.log10(max(error, 1e-10))))
    options, every = _options(fit / "config.json")
    held_out = list(range(every - 1, len(scene) - 1, every)) if every else []
    tracks = _tracks(scene)
    levels = motion_by_level(sequence)
    facts = Facts(
        scene, sequence, frames, images, psnr, held_out, _log(fit / "metrics.jsonl"), options,
        _evaluation(fit), levels, tracks, [],
    )  # fmt: skip
    facts.warnings.extend(_warnings(facts))
    return facts


def _options(path: Path) -> tuple[dict[str, Any], int]:
    """Return the options of a fit and every which frame it held out; none without the file."""
    if not path.is_file():
        return {}, 0
    content = read_json_as(path, dict)
    return content, as_schema(content, _Config, str(path)).get("options", {}).get(
        "holdout_every", 0
    )


def _evaluation(fit: Path) -> Evaluation | None:
    """Return the evaluation of this fit; None if it is older than the fit."""
    path, result = fit / "eval.json", fit / "sequence.safetensors"
    if path.is_file() and result.is_file() and path.stat().st_mtime < result.stat().st_mtime:
        return None
    return read_json_as(path, Evaluation) if path.is_file() else None


def _log(path: Path) -> list[LogRow]:
    if not path.is_file():
        return []
    rows = []
    for number, line in read_lines(path):
        try:
            row = decode_json(line, f"{path}: line {number}")
        except InputError:  # the last line, of an interrupted fit
            break
        rows.append(as_schema(row, LogRow, f"{path}: line {number}"))
    return rows


def _tracks(scene: Scene) -> dict[int, float]:
    """Return the mean number of visible tracks per frame of each object."""
    if not (scene.directory / "tracks.npz").is_file():
        return {}
    tracks = scene.tracks
    labels = np.unique(tracks.object[tracks.object > 0])
    lifetimes, frames = tracks.lifetimes, tracks.num_frames
    return {int(k): float(lifetimes[tracks.object == k].sum() / frames) for k in labels}


def _warnings(facts: Facts) -> list[Warning]:
    from msdyn.preprocess.report.fitness import judge_scene
    from msdyn.preprocess.report.quality import judge_stages

    found = []
    verdict = judge_scene(facts.scene)
    if verdict.grade == "poor":
        found.append(Warning(f"the input is poor: {verdict.reason}", verdict.cure))
    stages = facts.scene.info.stages
    for name, verdict in judge_stages(stages).items():
        if verdict.grade == "usable":
            found.append(Warning(f"{name}: {verdict.reason}", verdict.cure))
    for name, record in stages.items():
        quality = record.get("quality") or {}
        known = quality.get("known")
        if name == "depth" and isinstance(known, float) and known < _MIN_DEPTH:
            found.append(Warning(
                f"depth is known for {known:.0%} of the pixels",
                "provide depth of a sensor or a model: msdyn-preprocess --depth files",
            ))  # fmt: skip
    for label, number in facts.tracks.items():
        if number < _MIN_TRACKS:
            found.append(Warning(
                f"object {label} has {number:.1f} visible tracks per frame: "
                "its motion is poorly constrained",
                "use a larger or sharper video, or denser tracks (msdyn-preprocess --tracks)",
            ))  # fmt: skip
    median = float(np.median(facts.psnr))
    bad = [f for f, p in zip(facts.frames, facts.psnr, strict=True) if p < median - _BAD_FRAME_DB]
    if bad:
        listed = ", ".join(map(str, bad[:12])) + (", ..." if len(bad) > 12 else "")
        which = f"frame {listed} fits" if len(bad) == 1 else f"frames {listed} fit"
        found.append(Warning(
            f"{which} badly, {_BAD_FRAME_DB:.0f} dB or more below the median "
            f"{median:.1f} dB",
            "check their masks and cameras, and whether they are blurred",
        ))  # fmt: skip
    if median < _MIN_PSNR:
        found.append(Warning(
            f"the median PSNR is {median:.1f} dB: the fit is coarse",
            "fit longer (--epochs), with more Gaussians (--preset default), or check the cameras",
        ))  # fmt: skip
    distance = _distance(facts)
    for label, rows in facts.levels.items():
        if rows.sum(0).max() < _MIN_MOTION * distance:
            found.append(Warning(
                f"object {label} hardly moves", "it may be background: check its mask"
            ))  # fmt: skip
    return found


def _distance(facts: Facts) -> float:
    """Return the median depth of the first frame, or 1 where nothing is rendered."""
    depths = np.concatenate([image.depth[image.depth > 0] for image in facts.images[:1]])
    return float(np.median(depths)) if depths.size else 1.0
