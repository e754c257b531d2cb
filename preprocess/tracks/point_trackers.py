"""Tracks by networks that follow given points through a whole video, occlusions and all.

Grids of points are started in evenly spaced frames, followed forward and backward; clips longer
than a network can hold are cut into overlapping spans.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from msdyn.preprocess.progress import progress
from msdyn.scene import Observations, Scene, Tracks

__all__ = ["GridTracks"]


@dataclass(frozen=True, kw_only=True)
class GridTracks(abc.ABC):
    """What the networks have in common; each loads itself and follows points through a span."""

    grid: int = 40
    """Points along the longer side of the image, in each of the frames that start points."""
    every: int = 12
    """Points are started in every this many frames, and in the middle of shorter clips."""
    span: int = 80
    """Frames that go through at once; longer clips are cut into overlapping spans."""
    min_life: int = 3
    """Tracks seen in fewer frames are dropped."""
    offline: bool = field(default=False, metadata={"option": False})

    @abc.abstractmethod
    def _load(self) -> Any:
        """Return the network, a torch module on the CPU."""

    @abc.abstractmethod
    def _follow(self, network: Any, images: np.ndarray, queries: np.ndarray, device: str) -> Tracks:
        """Return the tracks of a span.

        Args:
            network: on the device, for inference.
            images: [T, H, W, 3] uint8 RGB.
            queries: [N, 3] float32, frame of the span, x and y px.
            device: "cpu" or "cuda".
        """

    def track(self, scene: Scene) -> tuple[Tracks, dict[str, Any]]:
        """Return tracks through the whole clip (object -1) and quality figures.

        Raises:
            InputError: the network cannot be had.
        """
        import torch

        network = self._load()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = network.to(device).eval()
        parts = []
        for first, last in progress(cut_spans(len(scene), self.span), "tracks"):
            images = np.stack([scene.image(frame) for frame in range(first, last)])
            starts = [f - first for f in range(first, last) if f % self.every == self.every // 2]
            queries = _queries(scene.size, self.grid, starts or [(last - first) // 2])
            with torch.inference_mode():
                found = self._follow(network, images, queries, device)
            parts.append((first, found))
        tracks = _joined(parts, scene, self.min_life)
        life = tracks.lifetimes
        return tracks, {
            "tracks": len(tracks),
            "mean_life_frames": round(float(life.mean()), 2) if len(tracks) else 0.0,
            "device": device,
        }


def cut_spans(frames: int, length: int) -> list[tuple[int, int]]:
    """Return [first, last) of spans that cover the frames, neighbours overlapping by half."""
    if frames <= length:
        return [(0, frames)]
    starts = list(range(0, frames - length, length // 2)) + [frames - length]
    return [(start, start + length) for start in starts]


def _queries(size: tuple[int, int], along: int, frames: list[int]) -> np.ndarray:
    """Return queries [N, 3] float32 (frame, x, y px)."""
    step = max(size) / along
    rows, columns = (np.arange(step / 2, side - 1e-3, step) for side in size)
    xy = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
    parts = [np.concatenate([np.full((len(xy), 1), f), xy], 1) for f in frames]
    return np.concatenate(parts).astype(np.float32)


def _joined(parts: list[tuple[int, Tracks]], scene: Scene, min_life: int) -> Tracks:
    """Return all tracks, without what lies outside of the image or lives too short.

    Args:
        parts: the first frame of each span, and its tracks.
        scene: the clip.
        min_life: the least number of frames that see a track.
    """
    columns, count = [], 0
    for first, tracks in parts:
        track, frame, xy, confidence = tracks.observations()
        inside = ((xy >= 0) & (xy <= [scene.info.width, scene.info.height])).all(1)
        columns.append(
            (count + track[inside], first + frame[inside], xy[inside], confidence[inside])
        )
        count += len(tracks)
    seen = Observations(*(np.concatenate(column) for column in zip(*columns, strict=True)))
    tracks = Tracks.from_observations(len(scene), seen, np.full(count, -1), np.zeros(count))
    tracks = tracks.select(tracks.lifetimes >= min_life)
    return replace(tracks, query_frame=tracks.start)
