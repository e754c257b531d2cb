"""Tracks by networks that follow given points through a whole video, occlusions and all.

Grids of points are started in evenly spaced frames, followed forward and backward; clips longer
than a network can hold are cut into overlapping spans.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msdyn.preprocess.progress import progress

from msdyn.scene import Scene, Tracks

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
            parts.append(_placed(found, first, len(scene)))
        tracks = _joined(parts, scene, self.min_life)
        life = tracks.visible.sum(1)
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


def _placed(tracks: Tracks, first: int, frames: int) -> Tracks:
    """Return tracks of a span that begins at frame `first` as tracks of the clip."""
    last = first + tracks.num_frames
    xy = np.zeros((len(tracks), frames, 2), np.float32)
    visible = np.zeros((len(tracks), frames), bool)
    confidence = np.zeros((len(tracks), frames), np.float32)
    xy[:, first:last], visible[:, first:last] = tracks.xy, tracks.visible
    confidence[:, first:last] = tracks.confidence
    return Tracks(xy, visible, confidence, tracks.object, tracks.query_frame + first)


def _joined(parts: list[Tracks], scene: Scene, min_life: int) -> Tracks:
    """Return all tracks, without what lies outside of the image or lives too short."""
    xy = np.concatenate([part.xy for part in parts])
    inside = ((xy >= 0) & (xy <= [scene.info.width, scene.info.height])).all(-1)
    visible = np.concatenate([part.visible for part in parts]) & inside
    confidence = np.concatenate([part.confidence for part in parts])
    kept = visible.sum(1) >= min_life
    visible = visible[kept]
    return Tracks(
        np.where(visible[..., None], xy[kept], 0),
        visible,
        np.where(visible, confidence[kept], 0),
        np.full(len(visible), -1),
        visible.argmax(1) if len(visible) else np.zeros(0, int),
    )
