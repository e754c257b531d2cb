"""The demo: a synthetic clip with known truth, from mp4 to novel views, on a CPU in minutes.

It renders a clip with the cameras and depth that a phone with a depth sensor would record,
preprocesses and fits it, evaluates the result against the truth, and writes a folder with a video,
images and figures. Two baselines, the same fit with its motion frozen and a fit with rigid objects
only, show the gain of the motion hierarchy.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from msdyn.demo.config import DemoConfig
from msdyn.demo.pictures import save_comparison_sheet
from msdyn.evaluate import Variant, evaluate_tracks, evaluate_views
from msdyn.fit import FitConfig, fit_scene, preset
from msdyn.io import write_video
from msdyn.preprocess import PreprocessConfig, preprocess_video
from msdyn.progress import stage, track
from msdyn.reading import read_json_as
from msdyn.render import auto_path, render_images
from msdyn.scene import Scene
from msdyn.sequence import GaussianSequence
from msdyn.synthetic import make_scene, render_truth, write_clip
from msdyn.version import __version__
from msdyn.view import write_report
from msdyn.writing import without_nan, write_json, writing_to

__all__ = ["DemoConfig", "run_demo"]


class _MadeWith(TypedDict):
    options: dict[str, Any]
    seconds: float


def run_demo(config: DemoConfig) -> dict[str, Any]:
    """Run the demo and return the content of `metrics.json`.

    The figures with the recording's depth and cameras are under "recording"; with `bare`, they are
    reused from an earlier run if there is one, and those of the mp4 alone are under "bare". Figures
    that a short clip does not have are None.
    """
    config = config.sized()
    with writing_to(config.out):
        return _run(config)


def _run(config: DemoConfig) -> dict[str, Any]:
    """Run the demo in its folder, which is locked."""
    clip = _clip(config)
    metrics_path = config.out / "metrics.json"
    options = {
        k: v for k, v in asdict(config).items() if k not in {"out", "bare", "device", "quick"}
    }
    metrics: dict[str, Any] = {}
    if metrics_path.is_file():
        metrics = read_json_as(metrics_path, dict)
    if metrics.get("options") != options:
        metrics = {"options": options, "msdyn": __version__}
    if "recording" not in metrics or not config.bare:
        metrics["recording"] = without_nan(_reconstruct(config, clip, config.out, bare=False))
        write_json(metrics_path, metrics)
    if config.bare:
        metrics["bare"] = without_nan(_reconstruct(config, clip, config.out / "bare", bare=True))
        write_json(metrics_path, metrics)
    return metrics


def _clip(config: DemoConfig) -> Path:
    """Render the clip, unless it exists, and return its folder."""
    folder = config.out / "clip"
    record = folder / "made_with.json"
    options = {"frames": config.frames, "width": config.width, "seed": config.seed}
    if record.is_file() and read_json_as(record, _MadeWith)["options"] == options:
        return folder
    started = time.perf_counter()
    spec = make_scene(
        "demo",
        frames=config.frames,
        width=config.width,
        height=config.width * 3 // 4,
        seed=config.seed,
    )
    with stage("make the clip", always=True):
        write_clip(render_truth(spec, progress=True), folder)
    write_json(record, {"options": options, "seconds": time.perf_counter() - started})
    return folder


def _reconstruct(config: DemoConfig, clip: Path, out: Path, *, bare: bool) -> dict[str, Any]:
    """Preprocess, fit, render and evaluate; return the figures."""
    timer = _Timer(read_json_as(clip / "made_with.json", _MadeWith)["seconds"])
    options = PreprocessConfig(
        video=clip / "clip.mp4",
        out=out / "scene",
        accept_poor=bare,
        preset="offline",  # nothing is fetched: a demo needs no network
        tracks="flow",
        masks="motion",
        cameras="sfm",
        depth="fused",
    )
    if not bare:
        options = replace(
            options,
            cameras="files",
            cameras_path=clip / "recording" / "cameras.json",
            depth="files",
            depth_path=clip / "recording" / "depth",
            world_units="metric",
        )
    with timer.stage("preprocess"):
        scene = preprocess_video(options)
    with timer.stage("fit"):
        sequence = fit_scene(scene, _fit_config(config, scene, levels=3, out=out / "scene" / "fit"))
    rigid_config = _fit_config(config, scene, levels=1, out=out / "scene" / "fit_levels_1")
    with timer.stage("fit with --levels 1"):
        rigid = fit_scene(scene, rigid_config)
    truth = Scene(clip / "truth")
    with timer.stage("report"):
        write_report(scene, out / "scene" / "fit", sequence=sequence)
    with timer.stage("render"):
        novel = _save_video(sequence, out / "novel.mp4")
        save_comparison_sheet(out / "comparison.png", scene, sequence, truth, align=bare)
    with timer.stage("evaluate"):
        figures = {
            "full": _evaluate(sequence, truth, Variant(), align=bare),
            "frozen": _evaluate(sequence, truth, Variant(frozen=True), align=bare),
            "levels_1": _evaluate(rigid, truth, Variant(), align=bare),
        }
    return {
        **figures,
        "gain_over_frozen_db": figures["full"]["mpsnr"] - figures["frozen"]["mpsnr"],
        "gain_over_levels_1_db": figures["full"]["mpsnr"] - figures["levels_1"]["mpsnr"],
        "novel_view": novel,
        "seconds": timer.seconds,
    }


def _fit_config(config: DemoConfig, scene: Scene, *, levels: Literal[1, 3], out: Path) -> FitConfig:
    base = preset("quick")
    return replace(
        base,
        scene=scene.directory,
        out=out,
        motion=replace(base.motion, levels=levels),
        epochs=config.epochs or base.epochs,
        seed=config.seed,
        device=config.device,
    )


def _evaluate(
    sequence: GaussianSequence, truth: Scene, variant: Variant, *, align: bool
) -> dict[str, Any]:
    views = evaluate_views(sequence, truth, align=align, variant=variant)
    figures = {key: views[key] for key in ("mpsnr", "mssim", "ssim", "covisible", "images")}
    figures["views"] = {name: view["mpsnr"] for name, view in views["views"].items()}
    if not variant.frozen:
        figures["tracks"] = evaluate_tracks(sequence, truth, align=align, variant=variant)
    return figures


def _save_video(sequence: GaussianSequence, path: Path) -> dict[str, Any]:
    """Save a video of the clip at half speed along the path `auto`, and return its description."""
    count = 2 * len(sequence.timeline)
    times = np.linspace(0, 1, count)
    chosen = auto_path(sequence, times)
    images = render_images(sequence, chosen.cameras, times)
    pictures = (image.rgb8 for image in track(images, f"render {path.name}", count))
    write_video(path, pictures, sequence.timeline.fps)
    return {"path": str(chosen), **chosen.record()}


class _Timer:
    """Measures the seconds of each stage."""

    def __init__(self, clip: float) -> None:
        self.seconds = {"make the clip": round(clip, 1)}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        with stage(name, always=True):
            yield
        self.seconds[name] = round(time.perf_counter() - started, 1)
