"""Choosing which tracks supervise a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.fit.data import FitData
from msdyn.geometry import CameraTensors, depth_in_camera

__all__ = ["TrackBatch", "TrackSampler"]

# Tracks of a frame in a step.
_TRACKS = 512


@dataclass(frozen=True)
class TrackBatch:
    """Tracks of B source frames, each with a target frame of its own.

    Attributes:
        target: [B] frame indices of the clip, float.
        source_xy, target_xy: [B, P, 2] px.
        target_depth: [B, P] z-depth, world of the fit.
        weights: [B, P] confidence, 0 for padding.
        cameras: of the target frames.
    """

    target: Float[Tensor, " frames"]
    source_xy: Float[Tensor, "frames points 2"]
    target_xy: Float[Tensor, "frames points 2"]
    target_depth: Float[Tensor, "frames points"]
    weights: Float[Tensor, "frames points"]
    cameras: CameraTensors


class TrackSampler:
    """Samples target frames by the number of tracks they share with the source frame."""

    def __init__(self, data: FitData, seed: int) -> None:
        self.data = data
        self.seed = seed
        tracks = data.tracks
        visible = tracks.visible.astype(np.float32)
        shared = visible.T @ visible  # [F, F] tracks visible in both frames
        np.fill_diagonal(shared, 0)
        # The square root favours distant frames, which share few tracks.
        self.chance = np.sqrt(shared)
        cameras = data.cameras[data.frames]
        depth = depth_in_camera(cameras.cam_from_world, tracks.xyz.swapaxes(0, 1))
        self.depth = depth.T.astype(np.float32)  # [N, F]

    def sample(self, frames: np.ndarray, step: int) -> TrackBatch:
        """Return tracks for source frames given by their indices in the clip.

        The draw depends on the seed and the step alone, so that a resumed fit draws the same.
        """
        rng = np.random.default_rng([self.seed, step, 1])
        tracks, data = self.data.tracks, self.data
        count = len(frames)
        source_xy = np.zeros((count, _TRACKS, 2), np.float32)
        target_xy = np.zeros((count, _TRACKS, 2), np.float32)
        depth = np.zeros((count, _TRACKS), np.float32)
        weights = np.zeros((count, _TRACKS), np.float32)
        targets = np.zeros(count, int)
        for i, frame in enumerate(frames):
            source = int(np.searchsorted(data.frames, frame))
            chance = self.chance[source]
            if not chance.any():
                targets[i] = source
                continue
            target = int(rng.choice(len(chance), p=chance / chance.sum()))
            targets[i] = target
            both = np.flatnonzero(tracks.visible[:, source] & tracks.visible[:, target])
            both = rng.choice(both, min(_TRACKS, len(both)), replace=False)
            places = slice(0, len(both))
            source_xy[i, places] = tracks.xy[both, source]
            target_xy[i, places] = tracks.xy[both, target]
            depth[i, places] = self.depth[both, target]
            weights[i, places] = tracks.confidence[both, target]
        clip = data.frames[targets]
        device = data.device

        def tensor(array: np.ndarray) -> Tensor:
            return torch.as_tensor(array, dtype=torch.float32, device=device)

        return TrackBatch(
            tensor(clip),
            tensor(source_xy),
            tensor(target_xy),
            tensor(depth),
            tensor(weights),
            data.on_device[torch.as_tensor(clip, device=device)],
        )
