"""What a fit is expected to take, from the size of its scene and its options.

The constants were fitted to fits of synthetic clips on a CPU, by `tools/calibrate_estimates.py fit`
(12 to 100 frames, 96x72 to 384x288 px, 1500 to 25,000 static Gaussians), which also says how far
the estimates are off. On a GPU the images and Gaussians are in its memory, which is not estimated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from msdyn.estimates import Estimate, announce
from msdyn.fit.config import FitConfig
from msdyn.fit.coverage import MOST_LIVES
from msdyn.fit.motion_tracks import MOST_ENTRIES
from msdyn.indices import evenly_spaced
from msdyn.scene import IGNORE, Scene

__all__ = ["FitSize", "announce_fit", "estimate_fit", "smaller_fits"]


@dataclass(frozen=True)
class _Bytes:
    """Bytes of memory and of disk."""

    process: float = 405e6
    """Python, its packages and compiled kernels."""
    pixel: float = 1400
    """Per pixel of a frame: images and maps of the parts of the initialisation."""
    track_of_frame: float = 150
    """Per track and frame, of the tracks from which the motion is initialised."""
    candidate_of_frame: float = 4
    """Per candidate for a moving Gaussian and frame, while its life span is sought."""
    candidate_at_a_time: float = 50
    """The same, of those that are compared at a time."""
    gaussian: float = 1000
    """Per Gaussian: parameters, gradients, Adam's moments, the copy to go back to, rendering."""
    motion_float: float = 24
    """Per number of a moving Gaussian's own trajectory or weights, in the same copies."""
    pixel_of_batch: float = 100
    """Per pixel of the frames of a step."""
    stored_static: float = 240
    """On the disk per static Gaussian: checkpoint and sequence."""
    stored_moving: float = 660
    """The same per moving Gaussian."""
    stored_float: float = 16
    """The same per number of its own trajectory."""
    stored_pixel_of_clip: float = 13
    """On the disk, while the fit runs, per pixel of all frames at its size: images, masks, depth.

    They are in files without a name, which end with the fit.
    """
    stored_pixel_of_scene: float = 5
    """The same while it starts, at the size of the scene."""
    preview_pixel: float = 25
    """Per pixel of a frame: previews."""
    report: float = 400e3
    """On the disk: report, log and the shared patterns of the motion."""


@dataclass(frozen=True)
class _Seconds:
    """Seconds on two cores that do nothing else."""

    start: float = 10
    """Loading, compiled kernels from their cache, and the report."""
    pixel_of_clip: float = 3e-6
    track_of_frame: float = 1e-5
    refined_track_of_frame: float = 1.5e-4
    candidate_of_frame: float = 4e-6
    prefit_step: float = 0.01
    step: float = 0.012
    gaussian_of_step: float = 1.4e-6
    pixel_of_step: float = 3e-7


_BYTES, _SECONDS = _Bytes(), _Seconds()
_CANDIDATES = 8
"""Most candidates per moving Gaussian (`initialize.py`)."""
_STATIC_CANDIDATES, _STATIC_FRAMES = 3, 60
"""Candidates per static Gaussian, and frames with which they are compared (`initial_static.py`)."""
_AT_A_TIME = 1_500_000
"""Candidates times frames that are compared at a time (`initial_lives.py`)."""
_SAMPLED_FRAMES = 64
"""Frames from which candidates are sampled."""
_KEPT = 0.35
"""Share of the candidates that is kept where there are few."""
_MASKS = 8
"""Masks that are read for the share of moving pixels."""
_GROWTH = 1.11
"""Factor of the number of Gaussians at a densification, on twenty real clips."""
_GROWTH_OF_LIVES = 1.3
"""The same of moving Gaussians with life spans, on three real clips."""
_LIVES = 1.6
"""Moving Gaussians with life spans for each that was asked for, on the same clips."""
_WEIGHTS = 26
"""Blend weights of a Gaussian, over all levels."""


@dataclass(frozen=True)
class FitSize:
    """The size of a scene.

    Attributes:
        frames: of the clip.
        width, height: of its images, px.
        tracks: on objects.
        moving: share of the pixels on objects.
    """

    frames: int
    width: int
    height: int
    tracks: int
    moving: float = 0.1

    @classmethod
    def of(cls, scene: Scene) -> FitSize:
        """Return the size of a scene directory, of which the tracks and some masks are read.

        Raises:
            FileNotFoundError: a file is missing.
            InputError: a file is invalid.
        """
        height, width = scene.size
        frames = evenly_spaced(len(scene), _MASKS)
        masks = [scene.mask(frame) for frame in frames.tolist()]
        moving = [float(((mask > 0) & (mask != IGNORE)).mean()) for mask in masks]
        tracks = int(np.count_nonzero(scene.tracks.object > 0))
        return cls(len(scene), width, height, tracks, float(np.mean(moving)))


def announce_fit(scene: Scene, config: FitConfig) -> None:
    """Say what a fit is expected to take.

    Raises:
        ResourceError: more memory than is allowed.
    """
    size = FitSize.of(scene)
    announce("fit", estimate_fit(size, config), config.max_memory, smaller_fits(size, config))


def estimate_fit(size: FitSize, config: FitConfig) -> Estimate:
    """Return what a fit takes: the most memory and disk at a time, and its time on a CPU."""
    frames, pixels = size.frames, size.width * size.height
    factor = min(1.0, (config.long_side or math.inf) / max(size.width, size.height))
    fitted = pixels * factor**2
    steps = config.epochs * math.ceil(frames / config.batch)
    start, end = _gaussian_counts(size, fitted, config, steps)
    candidates = min(_CANDIDATES * config.moving_gaussians, _sampled_pixels(size, fitted))
    static_candidates = _STATIC_CANDIDATES * config.static_gaussians
    if config.life_spans == "off":
        candidates = static_candidates = 0
    resting = static_candidates * min(frames, _STATIC_FRAMES)
    own = _own_numbers(config, frames)
    b, batch = _BYTES, min(config.batch, frames)
    common = b.process + b.pixel * fitted
    entries = min(size.tracks * frames, MOST_ENTRIES)
    common += b.track_of_frame * entries
    compared = max(candidates * frames, resting)
    initialising = b.candidate_of_frame * compared + b.motion_float * start.moving * own
    initialising += b.candidate_at_a_time * min(_AT_A_TIME, compared)
    stepping = b.gaussian * end.all + b.motion_float * end.moving * own
    stepping += b.pixel_of_batch * batch * fitted
    disk = b.stored_static * end.static + (b.stored_moving + b.stored_float * own) * end.moving
    disk += frames * (b.stored_pixel_of_clip * fitted + b.stored_pixel_of_scene * pixels)
    disk += b.preview_pixel * pixels + b.report
    s = _SECONDS
    seconds = s.start + s.pixel_of_clip * frames * pixels + s.track_of_frame * entries
    seconds += s.candidate_of_frame * (candidates * frames + resting)
    if config.motion.model == "hierarchy" and config.motion.joint_refinement == "on":
        seconds += s.refined_track_of_frame * entries
    seconds += s.prefit_step * config.motion.prefit_steps
    middle = (start.all + end.all) / 2
    seconds += steps * (s.step + batch * (s.gaussian_of_step * middle + s.pixel_of_step * fitted))
    return Estimate(common + max(initialising, stepping), disk, seconds)


def smaller_fits(size: FitSize, config: FitConfig) -> Iterator[tuple[str, Estimate]]:
    """Yield options with which a fit takes less memory, each with its estimate."""
    now = min(config.long_side or max(size.width, size.height), max(size.width, size.height))
    sides = [side for side in (1280, 960, 768, 640, 480, 384, 320, 256, 192, 160) if side < now]
    for side in sides:
        yield f"--long-side {side}", estimate_fit(size, replace(config, long_side=side))
    if config.batch > 1:
        yield "--batch 1", estimate_fit(size, replace(config, batch=1))
    for divisor in (2, 4, 8):
        fewer = _with_fewer(config, divisor)
        options = f"--static-gaussians {fewer.static_gaussians}"
        options += f" --moving-gaussians {fewer.moving_gaussians}"
        options += f" --density.max-static {fewer.density.max_static}"
        options += f" --density.max-moving {fewer.density.max_moving}"
        yield options, estimate_fit(size, fewer)
    for divisor in (2, 4, 8):
        frames = max(2, size.frames // divisor)
        fewer = replace(size, frames=frames)
        yield (
            f"a clip of {frames} frames (msdyn-preprocess --max-frames)",
            estimate_fit(fewer, config),
        )


@dataclass(frozen=True)
class _Counts:
    """Numbers of Gaussians."""

    static: float
    moving: float

    @property
    def all(self) -> float:
        return self.static + self.moving


def _sampled_pixels(size: FitSize, fitted: float) -> float:
    """Return how many pixels of objects there are in the frames that are sampled."""
    return size.moving * fitted * min(size.frames, _SAMPLED_FRAMES)


def _gaussian_counts(
    size: FitSize, fitted: float, config: FitConfig, steps: int
) -> tuple[_Counts, _Counts]:
    """Return how many Gaussians there are at the start and at the end."""
    density = config.density
    static = float(config.static_gaussians)
    lives = _LIVES if config.life_spans == "on" else 1.0
    moving = min(lives * config.moving_gaussians, _KEPT * _sampled_pixels(size, fitted))
    times = max(0, int((density.stop - density.start) * steps / density.every))
    growth, moving_growth, most = _GROWTH ** min(times, 100), _GROWTH, density.max_moving
    if config.life_spans == "on":
        moving_growth, most = _GROWTH_OF_LIVES, MOST_LIVES * most
    return _Counts(static, moving), _Counts(
        max(static, min(growth * static, density.max_static)),
        max(moving, min(moving_growth ** min(times, 100) * moving, most)),
    )


def _own_numbers(config: FitConfig, frames: int) -> float:
    """Return how many numbers per frame a moving Gaussian has of its own, times the frames."""
    motion = config.motion
    trajectory = 3 * frames if motion.levels == 4 or motion.model == "displacements" else 0
    return trajectory + (_WEIGHTS * frames if motion.weights == "time-varying" else 0)


def _with_fewer(config: FitConfig, divisor: int) -> FitConfig:
    """Return the options with so many times fewer Gaussians."""

    def fewer(count: int) -> int:
        return max(1, count // divisor)

    density = config.density
    return replace(
        config,
        static_gaussians=fewer(config.static_gaussians),
        moving_gaussians=fewer(config.moving_gaussians),
        density=replace(
            density, max_static=fewer(density.max_static), max_moving=fewer(density.max_moving)
        ),
    )
