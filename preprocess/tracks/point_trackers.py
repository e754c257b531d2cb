"""Tracks by networks that follow given points through a whole video, through occlusions too.

Grids of points are started in evenly spaced frames and followed forward and backward; clips longer
than a network can take are cut into overlapping spans.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import nn

from msdyn.devices import choose_device
from msdyn.preprocess.contracts import Backend, BackendOptions, TrackResult
from msdyn.preprocess.frames.footage import Footage
from msdyn.preprocess.progress import progress
from msdyn.scene import Observations, Scene, Tracks

__all__ = ["GridTracks", "cut_spans"]

MAX_STEPS = 4
"""Most steps from one frame of the scene to the next: a span covers at least 20 of them."""

AnyTracker = TypeVar("AnyTracker", bound="GridTracks")


@dataclass(frozen=True, kw_only=True)
class GridTracks(Backend, abc.ABC):
    """Base of the networks: each loads itself, and follows points through a span of frames."""

    grid: int = 40
    """Points along the longer side of the image, in each of the frames that start points."""
    every: int = 12
    """Points are started in every this many frames, and in the middle of shorter clips."""
    span: int = 80
    """Frames per call of the network; longer clips are cut into overlapping spans."""
    min_life: int = 3
    """Tracks visible in fewer frames are dropped."""
    offline: bool = field(default=False, metadata={"option": False})
    device: str = field(default="auto", metadata={"option": False})

    @classmethod
    def from_options(cls: type[AnyTracker], options: BackendOptions) -> AnyTracker:
        """Return the network of a checkpoint."""
        offline, device = options.offline, options.device
        return cls(model=options.model, offline=offline, device=device)  # pyright: ignore[reportCallIssue]

    @abc.abstractmethod
    def _load(self) -> nn.Module:
        """Return the network, on the CPU."""

    @abc.abstractmethod
    def _follow(
        self,
        network: Callable[..., Any],
        images: UInt8[np.ndarray, "frames height width 3"],
        queries: Float32[np.ndarray, "points 3"],
        device: str,
    ) -> Tracks:
        """Return the tracks of a span.

        Args:
            network: on the device, in evaluation mode.
            images: [T, H, W, 3] RGB.
            queries: [N, 3] frame of the span, x and y px.
            device: "cpu", "cuda" or "cuda:N".
        """

    def track(self, scene: Scene, footage: Footage | None = None) -> TrackResult:
        """Return tracks through the whole clip.

        The figures: `tracks`, their number; `mean_life_frames`; `device`.

        Raises:
            InputError: the network cannot be loaded.
        """
        footage = (footage or Footage.of_scene(scene)).coarser(MAX_STEPS)
        device = str(choose_device(self.device))
        network = self._load().to(device).eval()
        spans = []
        for first, images in _read_spans(footage, self.span):
            kept = footage.kept[(footage.kept >= first) & (footage.kept < first + len(images))]
            number = np.searchsorted(footage.kept, kept)  # of the frames in the scene
            starts = kept[number % self.every == self.every // 2]
            if not len(starts):
                starts = kept[len(kept) // 2 : len(kept) // 2 + 1]
            queries = _queries(scene.size, self.grid, (starts - first).tolist())
            with torch.inference_mode():
                tracks = self._follow(network, images, queries, device)
            spans.append(_in_scene(tracks, footage, first))
        tracks = _merged(spans, scene, self.min_life)
        life = tracks.lifetimes
        figures = {
            "tracks": len(tracks),
            "mean_life_frames": round(float(life.mean()), 2) if len(tracks) else 0.0,
            "device": device,
        }
        return TrackResult(tracks, figures)


def cut_spans(frames: int, length: int) -> list[tuple[int, int]]:
    """Return [first, last) of spans that cover the frames, neighbours overlapping by half."""
    if frames <= length:
        return [(0, frames)]
    starts = list(range(0, frames - length, length // 2)) + [frames - length]
    return [(start, start + length) for start in starts]


def _queries(
    size: tuple[int, int], along: int, frames: list[int]
) -> Float32[np.ndarray, "points 3"]:
    """Return queries [N, 3] (frame, x, y px): a grid of points in each of the frames.

    Args:
        size: (height, width) of the images.
        along: points along the longer side.
        frames: of the span.
    """
    step = max(size) / along
    rows, columns = (np.arange(step / 2, side - 1e-3, step) for side in size)
    xy = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
    parts = [np.concatenate([np.full((len(xy), 1), f), xy], 1) for f in frames]
    return np.concatenate(parts).astype(np.float32)


def _read_spans(
    footage: Footage, length: int
) -> Iterator[tuple[int, UInt8[np.ndarray, "frames height width 3"]]]:
    """Yield the first frame and the images of each span, holding two spans in memory."""
    frames = iter(progress(footage.images(), "tracks", total=len(footage)))
    held: list[np.ndarray] = []
    start = 0
    for first, last in cut_spans(len(footage), length):
        held = held[first - start :]
        held += islice(frames, last - first - len(held))
        start = first
        yield first, np.stack(held)


def _in_scene(tracks: Tracks, footage: Footage, first: int) -> Tracks:
    """Return the tracks of a span that starts at `first`, in the frames of the scene alone."""
    track, frame, xy, confidence = tracks.observations()
    number = np.searchsorted(footage.kept, first + frame)
    own = footage.kept[np.minimum(number, len(footage.kept) - 1)] == first + frame
    observations = Observations(track[own], number[own], xy[own], confidence[own])
    unknown = np.full(len(tracks), -1)
    return Tracks.from_observations(len(footage.kept), observations, unknown, 0 * unknown)


def _merged(spans: list[Tracks], scene: Scene, min_life: int) -> Tracks:
    """Return the tracks of all spans, without positions outside of the image and short tracks.

    Args:
        spans: the tracks of each span, in the frames of the scene.
        scene: the clip.
        min_life: least number of frames in which a track is visible.
    """
    columns, count = [], 0
    for tracks in spans:
        track, frame, xy, confidence = tracks.observations()
        inside = ((xy >= 0) & (xy <= [scene.info.width, scene.info.height])).all(1)
        columns.append((count + track[inside], frame[inside], xy[inside], confidence[inside]))
        count += len(tracks)
    merged = Observations(*(np.concatenate(column) for column in zip(*columns, strict=True)))
    tracks = Tracks.from_observations(len(scene), merged, np.full(count, -1), np.zeros(count))
    tracks = tracks.select(tracks.lifetimes >= min_life)
    return replace(tracks, query_frame=tracks.start)
