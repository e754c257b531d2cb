"""Sampling of the tracks that supervise a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Real
from scipy.sparse import csr_array
from torch import Tensor

from msdyn.fit.data import FitData
from msdyn.geometry import CameraTensors, depth_in_camera

__all__ = ["TrackBatch", "TrackSampler"]

# Maximum number of tracks per frame and step.
_TRACKS = 512


@dataclass(frozen=True)
class TrackBatch:
    """Tracks of B source frames, with one target frame per source frame.

    Attributes:
        target: [B] frame indices of the clip, as floats.
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
    """Samples target frames with a probability that depends on the number of common tracks."""

    def __init__(self, data: FitData, seed: int) -> None:
        self.data = data
        self.seed = seed
        tracks = data.tracks
        ones = np.ones(len(tracks.track), np.float32)
        shape = (len(tracks), tracks.num_frames)
        visible = csr_array((ones, (tracks.track, tracks.frame)), shape=shape)
        shared = (visible.T @ visible).toarray()  # [F, F] tracks visible in both frames
        np.fill_diagonal(shared, 0)
        # The square root increases the probability of distant frames, which share few tracks.
        self.affinity = np.sqrt(shared)
        poses = data.cameras.cam_from_world[data.frames]
        self.depth = np.zeros(len(tracks.track), np.float32)  # of each observation
        for number, pose in enumerate(poses):
            own = tracks.at(number)
            self.depth[own] = depth_in_camera(pose, tracks.xyz[own])

    def sample(self, frames: Int[np.ndarray, " frames"], step: int) -> TrackBatch:
        """Return tracks for source frames given by their indices in the clip.

        The sample is a function of the seed and the step, so that a fit resumes exactly.
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
            affinity = self.affinity[source]
            if not affinity.any():
                targets[i] = source
                continue
            target = int(rng.choice(len(affinity), p=affinity / affinity.sum()))
            targets[i] = target
            at_source, at_target = tracks.between(source, target)
            chosen = rng.choice(len(at_source), min(_TRACKS, len(at_source)), replace=False)
            at_source, at_target = at_source[chosen], at_target[chosen]
            slots = slice(0, len(chosen))
            source_xy[i, slots] = tracks.xy[at_source]
            target_xy[i, slots] = tracks.xy[at_target]
            depth[i, slots] = self.depth[at_target]
            weights[i, slots] = tracks.confidence[at_target]
        clip = data.frames[targets]
        device = data.device

        def tensor(array: Real[np.ndarray, "*shape"]) -> Float[Tensor, "*shape"]:
            return torch.as_tensor(array, dtype=torch.float32, device=device)

        return TrackBatch(
            tensor(clip),
            tensor(source_xy),
            tensor(target_xy),
            tensor(depth),
            tensor(weights),
            data.on_device[torch.as_tensor(clip, device=device)],
        )
