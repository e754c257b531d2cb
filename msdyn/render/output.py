"""Rendering to files: one image, or a video along a camera path. What `msdyn-render` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import imageio.v3 as iio
import numpy as np
import tyro
from tqdm import tqdm

from msdyn.errors import InputError
from msdyn.files import atomic_path
from msdyn.geometry import Cameras, make_path
from msdyn.io import write_video
from msdyn.render.render import render_image, render_images
from msdyn.scene import read_cameras
from msdyn.sequence import GaussianSequence, load_sequence

__all__ = ["RenderConfig", "render_to_file"]


@dataclass(frozen=True)
class RenderConfig:
    """Render a fitted scene: one image, or a video with --path."""

    scene: tyro.conf.Positional[Path] = Path()
    """Scene directory with a fit, or a sequence.safetensors; the current directory by default."""
    time: float | None = None
    """When, from 0 (first frame) to 1 (last frame). With --path, time stands still there."""
    frame: int | None = None
    """When, as a frame number."""
    seconds: float | None = None
    """When, in seconds after the first frame."""
    camera: Path | None = None
    """From where: a camera file in the form of cameras.json; several cameras make a video.
    The input camera of that time by default."""
    path: Literal["input", "orbit", "away"] | None = None
    """From where, as a video: along the input cameras, about the scene, or away from the input."""
    out: Path | None = None
    """File to write, .png or .mp4; render.png or <path>.mp4 by default."""
    frames: int | None = None
    """Frames of the video; as many as the clip by default."""
    fps: float | None = None
    """Frames a second of the video; the clip's by default."""
    levels: int | None = None
    """Use only the first so many motion levels."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to render."""


def render_to_file(config: RenderConfig) -> Path:
    """Render as the options say and return the file written.

    Raises:
        FileNotFoundError: there is no fit, or no camera file.
        InputError: options that do not go together, a time outside the clip, or a camera file of
            another form.
    """
    time = None
    sequence = load_sequence(config.scene, device=_device(config.device))
    given = [n for n in ("time", "frame", "seconds") if getattr(config, n) is not None]
    if len(given) > 1:
        raise InputError(f"render: expected one of --time, --frame, --seconds, got {given}")
    if given:
        time = _time(sequence, config)
    if config.camera is not None and config.path is not None:
        raise InputError("render: expected --camera or --path, got both")
    if config.path is not None:
        count = config.frames or len(sequence.timeline)
        cameras = make_path(config.path, sequence.cameras, count)
        return _video(sequence, cameras, time, config, f"{config.path}.mp4")
    if config.camera is not None:
        cameras = read_cameras(config.camera)
        if len(cameras) > 1:
            return _video(sequence, cameras, time, config, f"{config.camera.stem}.mp4")
    else:
        nearest = round(sequence.timeline.frame_position(time or 0.0))
        cameras = sequence.cameras[nearest]
    out = config.out or Path("render.png")
    if out.suffix.lower() != ".png":
        raise InputError(f"--out: expected a .png for one image, got {out}")
    image = render_image(sequence, cameras, time or 0.0, levels=config.levels)
    with atomic_path(out) as temporary:
        iio.imwrite(temporary, image.rgb8)
    return out


def _video(
    sequence: GaussianSequence,
    cameras: Cameras,
    time: float | None,
    config: RenderConfig,
    name: str,
) -> Path:
    out = config.out or Path(name)
    if out.suffix.lower() != ".mp4":
        raise InputError(f"--out: expected a .mp4 for a video, got {out}")
    count = len(cameras)
    times = np.linspace(0, 1, count) if time is None else np.full(count, time)
    seconds = sequence.timeline.seconds
    fps = config.fps or (len(seconds) - 1) / (seconds[-1] - seconds[0])
    images = render_images(sequence, cameras, times, levels=config.levels)
    progress = tqdm(images, desc=f"render {out.name}", total=count, unit="frame")
    write_video(out, (image.rgb8 for image in progress), float(fps))
    return out


def _time(sequence: GaussianSequence, config: RenderConfig) -> float:
    timeline = sequence.timeline
    if config.frame is not None:
        return timeline.time_of_frame(config.frame)
    if config.seconds is not None:
        return timeline.time_of_seconds(config.seconds)
    assert config.time is not None
    timeline.frame_position(config.time)  # refuses times outside the clip
    return config.time


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device: cuda asked for, but torch finds no CUDA device; use cpu")
    return name
