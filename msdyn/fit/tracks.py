"""Sampling of the tracks that supervise a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from msdyn.devices import upload
from msdyn.fit.data import FitData
from msdyn.geometry import CameraTensors, depth_in_camera

__all__ = ["TrackBatch", "TrackSampler"]

# Maximum number of tracks per frame and step.
_TRACKS = 512


@dataclass(frozen=True)
class TrackBatch:
    """Tracks of B source frames, with one target frame per source frame.

    Attributes:
        frames: the target frames, indices of the clip, on the host.
        target: [B] frame indices of the clip, as floats.
        source_xy, target_xy: [B, P, 2] px.
        target_depth: [B, P] z-depth, world of the fit.
        weights: [B, P] confidence, 0 for padding.
        cameras: of the target frames.
    """

    frames: Int[np.ndarray, " frames"]
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
        # Of each observation, on the device: x, y, depth and confidence. The last row is padding.
        observed = np.zeros((len(tracks.track) + 1, 4), np.float32)
        observed[:-1, :2], observed[:-1, 3] = tracks.xy, tracks.confidence
        for number, pose in enumerate(poses):
            own = tracks.at(number)
            observed[own, 2] = depth_in_camera(pose, tracks.xyz[own])
        self._observed = upload(observed, data.device)

    def sample(self, frames: Int[np.ndarray, " frames"], step: int) -> TrackBatch:
        """Return tracks for source frames given by their indices in the clip.

        The sample is a function of the seed and the step, so that a fit resumes exactly.
        """
        rng = np.random.default_rng([self.seed, step, 1])
        tracks, data = self.data.tracks, self.data
        count = len(frames)
        observed = np.full((2, count, _TRACKS), len(tracks.track))  # at the sources and targets
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
            observed[:, i, : len(chosen)] = at_source[chosen], at_target[chosen]
        clip = data.frames[targets]
        index = upload(clip, data.device)
        rows = upload(observed.reshape(-1), data.device)
        at_source, at_target = self._observed.index_select(0, rows).view(*observed.shape, 4)
        return TrackBatch(
            clip,
            index.float(),
            at_source[..., :2],
            at_target[..., :2],
            at_target[..., 2],
            at_target[..., 3],
            data.on_device[index],
        )
