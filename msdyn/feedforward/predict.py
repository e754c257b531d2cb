"""Predicting a Gaussian sequence for a scene directory: the work of `msdyn-predict`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from msdyn.devices import choose_device
from msdyn.estimates import announce
from msdyn.feedforward.assemble import assemble
from msdyn.feedforward.estimate import estimate_prediction, smaller_predictions
from msdyn.feedforward.inference import input_size, predict_windows
from msdyn.feedforward.model import Movies
from msdyn.feedforward.options import PredictConfig
from msdyn.feedforward.pretrained import find_model
from msdyn.feedforward.windows import choose_windows, default_overlap
from msdyn.memory import limited_memory
from msdyn.progress import stage, track
from msdyn.scene import Scene
from msdyn.sequence import GaussianSequence, save_sequence
from msdyn.version import __version__
from msdyn.writing import write_json, writing_to

__all__ = ["PredictConfig", "predict_scene"]


def predict_scene(scene: Scene, config: PredictConfig | None = None) -> GaussianSequence:
    """Predict a Gaussian sequence for a scene directory, writing into its `predict/`.

    Args:
        scene: frames and cameras; depth maps set the scale and masks name the objects, if the
            scene has them.
        config: options; the defaults if None.

    Returns:
        The sequence, in the world and units of the scene's cameras, on the CPU.

    Raises:
        FileNotFoundError: no frames, no cameras, or no file of weights.
        InputError: an invalid scene, option or file of weights.
        ResourceError: the disk is full, or more memory is needed than `config.max_memory`.

    Reference: MoVieS (paper, 3).
    """
    config = config or PredictConfig(scene=scene.directory)
    inside = scene.directory if config.out is None else None
    with writing_to(config.out or scene.directory / "predict", inside=inside) as folder:
        return _predict(scene, config, folder)


def _predict(scene: Scene, config: PredictConfig, folder: Path) -> GaussianSequence:
    """Predict into a folder, which is locked."""
    begin = time.perf_counter()
    device = choose_device(config.device)
    found = find_model(config.model)
    with stage("loading the network"):
        model = found.load().to(device)
    if config.compiled:
        model.encoder.compile()
        model.aggregator.compile()
    started = time.perf_counter()
    size = input_size(
        scene.info.width,
        scene.info.height,
        config.long_side or found.long_side,
        model.config.patch,
    )
    frames = config.frames or found.frames
    overlap = default_overlap(frames) if config.overlap is None else config.overlap
    chosen = choose_windows(len(scene), frames, config.every, overlap)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    announce(
        "prediction",
        estimate_prediction(chosen, size, parameters),
        config.max_memory,
        smaller_predictions(chosen, size, parameters),
    )
    with limited_memory(config.max_memory):
        windows, residuals = predict_windows(
            model,
            scene,
            chosen,
            size=size,
            scale=config.scale,
            device=device,
            precision=config.precision,
        )

        def progress(frames: Iterable[int]) -> Iterable[int]:
            return track(frames, "join")

        sequence, counts = assemble(
            scene, windows, moving=model.config.moving, pruning=config.prune, progress=progress
        )
        save_sequence(sequence, folder / "sequence.safetensors")
    seconds = {"load": started - begin, "predict": time.perf_counter() - started}
    facts = {"size": list(size), "windows": chosen, "joins": residuals, "gaussians": counts}
    write_json(
        folder / "config.json", _record(config, model, found.about) | facts | {"seconds": seconds}
    )
    return sequence


def _record(config: PredictConfig, model: Movies, about: dict[str, Any]) -> dict[str, Any]:
    """Return the options, the network and the versions."""
    # What a fit has too: no frame is held out, and nothing is random.
    options = json.loads(json.dumps(asdict(config), default=str)) | {"holdout_every": 0, "seed": 0}
    return {
        "options": options,
        "network": {"config": model.config.to_json(), "about": about},
        "msdyn": __version__,
        "torch": torch.__version__,
    }
