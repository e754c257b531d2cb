"""What preprocessing is expected to take, from the size of the clip and the chosen backends.

The constants were fitted to runs on synthetic clips with and without the network for salient
objects, by `tools/calibrate_estimates.py preprocess` (12 to 100 frames, 96x72 to 384x288 px), which
also says how far the estimates are off. Other networks take what their weights and images need on
top; that is not estimated, and said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from msdyn.errors import MsdynError
from msdyn.estimates import Estimate, announce
from msdyn.preprocess.config import PreprocessConfig
from msdyn.preprocess.frames.sources import IMAGE_SUFFIXES, source_files
from msdyn.preprocess.masks.saliency import saliency_availability
from msdyn.preprocess.stages import BACKEND_STAGES, network_names
from msdyn.reading import opened_image, opened_video

__all__ = [
    "ClipSize",
    "announce_preprocessing",
    "estimate_preprocessing",
    "expected_clip",
    "smaller_clips",
    "uses_saliency",
]


@dataclass(frozen=True)
class _Bytes:
    """Bytes of memory and of disk."""

    process: float = 280e6
    """Python, its packages, compiled kernels."""
    saliency: float = 340e6
    """The network for salient objects, where masks by motion use it."""
    frame: float = 0.9e6
    """Per frame: features, matches, tracks."""
    pixel: float = 2400
    """Per pixel of a frame: what a stage holds of a few frames, such as cost volumes."""
    pixel_of_clip: float = 8
    """Per pixel of all frames."""
    source_pixel: float = 40
    """Per pixel of a frame of the video."""
    stored: float = 6.5
    """On the disk per pixel of all frames: images, depth, masks, tracks."""
    report: float = 500e3
    """On the disk, of the report."""


@dataclass(frozen=True)
class _Seconds:
    """Seconds on two cores that do nothing else, without networks."""

    start: float = 12
    """Loading, compiled kernels from their cache, and the report."""
    source_pixel: float = 1e-8
    frame: float = 0.3
    pixel_of_clip: float = 1e-5


_BYTES, _SECONDS = _Bytes(), _Seconds()


@dataclass(frozen=True)
class ClipSize:
    """The size of a clip that is to be preprocessed.

    Attributes:
        frames: that are taken.
        width, height: of the scene's images, px.
        source_frames: of the video.
        source_pixels: of one of its frames.
    """

    frames: int
    width: int
    height: int
    source_frames: int
    source_pixels: int


def announce_preprocessing(config: PreprocessConfig) -> None:
    """Say what preprocessing is expected to take; nothing of a clip whose size is not declared.

    Args:
        config: with a backend for every stage.

    Raises:
        ResourceError: more memory than is allowed.
    """
    clip = expected_clip(config)
    if clip is None:
        return
    networks = [stage for stage in BACKEND_STAGES if _is_network(config, stage)]
    besides = f", and the networks for {' and '.join(networks)}" if networks else ""
    announce(
        "preprocessing",
        estimate_preprocessing(clip, saliency=uses_saliency(config)),
        config.max_memory,
        smaller_clips(clip, config),
        besides=besides,
    )


def uses_saliency(config: PreprocessConfig) -> bool:
    """Return whether the network for salient objects helps the masks, without loading it."""
    if config.masks not in (None, "motion") or config.saliency == "off":
        return False
    return bool(saliency_availability(offline=config.preset == "offline"))


def estimate_preprocessing(clip: ClipSize, *, saliency: bool) -> Estimate:
    """Return what preprocessing takes: the most memory, the disk, and its time on a CPU.

    Args:
        clip: its size.
        saliency: whether the network for salient objects is used.
    """
    pixels = clip.width * clip.height
    b, s = _BYTES, _SECONDS
    memory = (
        b.process + b.saliency * saliency + b.pixel * pixels + b.source_pixel * clip.source_pixels
    )
    memory += clip.frames * (b.frame + b.pixel_of_clip * pixels)
    disk = b.stored * clip.frames * pixels + b.report
    seconds = s.start + clip.frames * (s.frame + s.pixel_of_clip * pixels)
    seconds += s.source_pixel * clip.source_frames * clip.source_pixels
    return Estimate(memory, disk, seconds)


def smaller_clips(clip: ClipSize, config: PreprocessConfig) -> Iterator[tuple[str, Estimate]]:
    """Yield options with which preprocessing takes less memory, each with its estimate."""
    now = max(clip.width, clip.height)
    saliency = uses_saliency(config)

    def estimate(size: ClipSize) -> Estimate:
        return estimate_preprocessing(size, saliency=saliency)

    for side in (1280, 960, 768, 640, 480, 384, 320, 256, 192, 160):
        if side < now:
            yield f"--long-side {side}", estimate(_shrunk(clip, side))
    least = _shrunk(clip, 320)
    option = "" if least == clip else " --long-side 320"
    for count in (400, 200, 100, 50, 25):
        if count < clip.frames:
            fewer = replace(least, frames=count)
            yield f"--max-frames {count}{option}", estimate(fewer)


def expected_clip(config: PreprocessConfig) -> ClipSize | None:
    """Return the size of the clip, from what its files declare, without decoding it.

    None where they do not declare it, or cannot be read; reading them says why.
    """
    try:
        found = _declared(config)
    except (MsdynError, OSError):
        return None
    if found is None:
        return None
    seconds, frames, width, height = found
    rate = frames / seconds
    start = min(config.start or 0.0, seconds)
    taken = min(seconds if config.end is None else config.end, seconds) - start
    count = round(max(0.0, taken) * min(rate, config.fps or rate))
    count = max(2, min(count, config.max_frames or count))
    clip = ClipSize(count, width, height, frames, width * height)
    return _shrunk(clip, config.long_side) if config.long_side else clip


def _declared(config: PreprocessConfig) -> tuple[float, int, int, int] | None:
    """Return the seconds, the number of frames and the size that the files declare."""
    path = config.video
    if path.is_dir() or not path.is_file() or path.suffix.lower() in IMAGE_SUFFIXES:
        files = source_files(path)
        if not files:
            return None
        with opened_image(files[0]) as image:
            width, height = image.size
        return len(files) / config.folder_fps, len(files), width, height
    with opened_video(path) as (container, stream):
        width, height = stream.width, stream.height
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        seconds = float((stream.duration or 0) * (stream.time_base or 0))
        seconds = seconds or (container.duration or 0) / 1e6
        frames = stream.frames or round(seconds * rate)
    if min(width, height, frames) < 1:
        return None
    segment = config.frames.segment
    if segment is not None:
        return segment.end - segment.start, segment.frames, width, height
    return seconds or frames / (rate or 30.0), frames, width, height


def _shrunk(clip: ClipSize, side: int) -> ClipSize:
    factor = min(1.0, side / max(clip.width, clip.height))
    width, height = (max(1, round(factor * length)) for length in (clip.width, clip.height))
    return replace(clip, width=width, height=height)


def _is_network(config: Any, stage: Any) -> bool:
    return getattr(config, stage) in network_names(stage)
