"""Evaluating a fitted scene directory, with pictures. What `msdyn-eval` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

import msdyn
from msdyn.errors import InputError
from msdyn.evaluate.pictures import save_comparison
from msdyn.evaluate.protocol import Variant, evaluate_frames, evaluate_tracks, evaluate_views
from msdyn.files import read_json, write_json
from msdyn.render import RenderedImage
from msdyn.scene import Scene, View
from msdyn.sequence import load_sequence

__all__ = ["EvaluateConfig", "evaluate_scene"]


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure a fitted scene."""

    scene: tyro.conf.Positional[Path] = Path()
    """Scene directory with a fit; the current directory by default."""
    fit: Path | None = None
    """Folder of the fit; `fit` in the scene directory by default."""
    truth: Path | None = None
    """Scene directory with held-out views and true tracks; the scene's own views by default."""
    align: bool = False
    """Find the similarity between the truth's world and the fit's from their input cameras: for
    cameras estimated from the video alone."""
    levels: int | None = None
    """Use only the first so many motion levels."""
    frozen: bool = False
    """Draw every time as the canonical frame, to see what the motion is worth."""
    pictures: bool = True
    """Save input, render and error side by side."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to render."""


def evaluate_scene(config: EvaluateConfig) -> dict[str, Any]:
    """Measure a fit on held-out views, true tracks and frames of the clip; write `eval.json`.

    Frames of the clip are those kept out of the fit, where some were, and otherwise every eighth
    frame of the fit (marked as such).

    Raises:
        FileNotFoundError: no scene, no fit.
        InputError: the truth does not go with the scene.
    """
    scene = Scene(config.scene)
    fit = config.fit or scene.directory / "fit"
    sequence = load_sequence(config.fit or scene.directory, config.device)
    truth = Scene(config.truth) if config.truth else scene
    variant = Variant(config.levels, config.frozen)
    folder = fit / "eval"
    options = _fit_options(fit / "config.json")
    every = options["holdout_every"]
    held_out = list(range(every - 1, len(scene) - 1, every)) if every else []
    frames = held_out or list(range(0, len(scene), 8))

    def keep_frame(frame: int, image: RenderedImage) -> None:
        if config.pictures:
            save_comparison(folder / f"frame_{frame:05d}.png", scene.image(frame), image.rgb8)

    def keep_view(view: View, frame: int, image: RenderedImage) -> None:
        chosen = np.unique(np.linspace(0, len(view.frames) - 1, 5).round().astype(int))
        if config.pictures and frame in np.asarray(view.frames)[chosen]:
            path = folder / f"{view.name}_{frame:05d}.png"
            save_comparison(path, view.image(frame), image.rgb8, view.covisible(frame))

    result: dict[str, Any] = {
        "protocol": {
            "scene": scene.directory.resolve().name,
            "resolution": [sequence.cameras.width, sequence.cameras.height],
            "cameras": "aligned by a similarity" if config.align else "world of the input",
            "masks": "covisibility",
            "test_time_optimisation": "none",
            "variant": {"levels": config.levels, "frozen": config.frozen},
            "seed": options["seed"],
            "msdyn": msdyn.__version__,
        },
        "frames": {
            "kept_out_of_the_fit": bool(held_out),
            **evaluate_frames(sequence, scene, frames, variant=variant, keep=keep_frame),
        },
    }
    if truth.views:
        result["views"] = evaluate_views(
            sequence, truth, align=config.align, variant=variant, keep=keep_view
        )
        result["tracks"] = evaluate_tracks(sequence, truth, align=config.align, variant=variant)
    write_json(fit / "eval.json", _plain(result))
    return result


def _fit_options(path: Path) -> dict[str, Any]:
    """Return the options that a fit was made with."""
    content = read_json(path)
    options = content.get("options") if isinstance(content, dict) else None
    for key in ("holdout_every", "seed"):
        if not isinstance(options, dict) or not isinstance(options.get(key), int):
            raise InputError(f"{path}: options: {key}: expected an integer; msdyn-fit writes it")
    return options


def _plain(value: Any) -> Any:
    """Replace numbers that JSON does not know (infinity, NaN) by null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
