"""Predicting a Gaussian sequence for a scene directory: the work of `msdyn-predict`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from tqdm import tqdm

from msdyn.devices import DeviceName, choose_device
from msdyn.errors import InputError
from msdyn.feedforward.assemble import Pruning, assemble
from msdyn.feedforward.inference import Precision, input_size, predict_windows
from msdyn.feedforward.model import Movies
from msdyn.feedforward.pretrained import DEFAULT_MODEL, find_model
from msdyn.feedforward.windows import choose_windows, default_overlap
from msdyn.files import write_json
from msdyn.locks import writing_to
from msdyn.scene import Scene
from msdyn.sequence import GaussianSequence, save_sequence
from msdyn.version import __version__

__all__ = ["PredictConfig", "predict_scene"]


@dataclass(frozen=True)
class PredictConfig:
    """Predict a Gaussian sequence with the feed-forward network."""

    scene: tyro.conf.Positional[Path] = Path()
    """Scene directory with frames and cameras; the current directory by default."""
    model: str = DEFAULT_MODEL
    """File of weights (ours, or the released MoVieS checkpoint), or the name of a network that
    comes with msdyn."""
    frames: int | None = None
    """Input frames of a window, which the network sees at once; by default as many as in its
    training."""
    every: int | None = None
    """Distance of the input frames; by default as one window needs to span the clip, at most 4."""
    overlap: int | None = None
    """Input frames that neighbouring windows share; a quarter of them by default."""
    long_side: int | None = None
    """Longer side of the network's images, px; that of its training by default."""
    scale: float | None = None
    """Mean distance of the scene's points to the first camera, scene units. By default it is that
    of the depth maps, or, without these, the one that agrees with what is predicted."""
    prune: Annotated[Pruning, tyro.conf.arg(name="prune")] = field(default_factory=Pruning)
    out: Path | None = None
    """Folder to write; `predict` in the scene directory by default."""
    precision: Precision = "auto"
    """Precision of the network's tokens: bfloat16 on a GPU and for large networks by default."""
    compiled: Annotated[bool, tyro.conf.arg(name="compile")] = False
    """Compile encoder and aggregator with torch.compile first; pays off for many windows of a large
    network."""
    device: DeviceName = "auto"
    """Device to predict on; auto takes a GPU if there is one."""

    def __post_init__(self) -> None:
        for name, least in (("frames", 2), ("overlap", 1), ("every", 1), ("long_side", 16)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name}: expected at least {least}, got {value}")
        if self.scale is not None and not 0 < self.scale < float("inf"):
            raise InputError(f"scale: expected a positive number, got {self.scale}")
        for name, value in (("opacity", self.prune.opacity), ("voxel", self.prune.voxel)):
            if not 0 <= value < float("inf"):
                raise InputError(f"prune.{name}: expected at least 0, got {value}")


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
        return tqdm(frames, desc="join", unit="frame", disable=len(chosen) == 1)

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
