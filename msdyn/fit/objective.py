"""The total loss of a step (Eq. 12): one rendering, all terms and their weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from msdyn.fit.config import FitConfig
from msdyn.fit.data import FitData
from msdyn.fit.losses import (
    depth_loss,
    mask_loss,
    pattern_acceleration,
    pattern_size,
    residual_size,
    rgb_loss,
    rigidity_loss,
    scale_loss,
    track_loss,
)
from msdyn.fit.neighbours import Neighbours
from msdyn.fit.tracks import TrackBatch, TrackSampler
from msdyn.render import draw
from msdyn.sequence import GaussianSequence

__all__ = ["Objective"]

Terms = dict[str, tuple[float, Tensor]]


class Objective:
    """Renders frames of a sequence and compares them with everything known about the clip."""

    def __init__(self, data: FitData, config: FitConfig) -> None:
        self.data = data
        self.weights = config.loss
        self.colour_alone = config.losses == "rgb"
        self.tracks = TrackSampler(data, seed=config.seed)
        self.neighbours = Neighbours(seed=config.seed)

    def __call__(
        self, sequence: GaussianSequence, frames: np.ndarray, step: int
    ) -> tuple[Terms, dict[str, Any], Tensor]:
        """Compute the losses of a step.

        Args:
            sequence: in the world of the fit.
            frames: [B] indices of the clip's frames.
            step: its number decides which tracks and neighbours have their turn.

        Returns:
            By name, each term's weight and value; what the rasterizer says for density control; and
            the mean PSNR.
        """
        batch, weights = self.data.batch(frames), self.weights
        tracked = len(sequence.moving) > 0 and weights.track > 0 and not self.colour_alone
        sample = self.tracks.sample(frames, step) if tracked else None
        times = batch.index if sample is None else torch.cat([batch.index, sample.target])
        both = sequence.posed(times)  # source frames, then target frames
        posed = both.select(slice(len(frames)))
        extra = (posed.objects > 0).float()[:, None].expand(len(frames), -1, 1)
        if sample is not None:
            extra = torch.cat([extra, both.means[len(frames) :]], dim=-1)
        height, width = batch.depth.shape[1:]
        image = draw(
            posed, batch.intrinsics, batch.cam_from_world, width, height, extra=extra, depth=True
        )
        assert image.depth is not None
        # Parts of one split have one gradient put together; slices would have one each, all zeros.
        rgb, share, *positions = image.features.split([3, 1] + [3] * (sample is not None), dim=-1)
        terms: Terms = {"rgb": (weights.rgb, rgb_loss(rgb, batch.rgb))}
        if not self.colour_alone:
            terms["mask"] = (weights.mask, mask_loss(share[..., 0], batch.moving, batch.certain))
            terms["depth"] = (weights.depth, depth_loss(image.depth, image.alpha, batch.depth))
            if sample is not None:
                terms["track"] = (weights.track, _track(positions[0], image.alpha, sample))
            terms |= self._regularisers(sequence)
            if len(sequence.moving):
                pairs = self.neighbours.of(sequence.moving.means, sequence.instances, step)
                there = posed.means[:, posed.num_static :]
                value = rigidity_loss(sequence.moving.means, there, posed.rotations, *pairs)
                terms["rigidity"] = (weights.rigidity, value)
        with torch.no_grad():
            psnr = -10 * (rgb - batch.rgb).square().mean().clamp_min(1e-10).log10()
        return terms, image.info, psnr

    def _regularisers(self, sequence: GaussianSequence) -> Terms:
        """Return the terms that no observation enters."""
        weights = self.weights
        scale = scale_loss(sequence.static.log_scales) + scale_loss(sequence.moving.log_scales)
        terms: Terms = {"scale": (weights.scale, scale)}
        if len(sequence.moving):
            terms["smooth"] = (weights.smooth, pattern_acceleration(sequence.motion))
            size = pattern_size(sequence.motion)
            if sequence.residual is not None:
                size = size + residual_size(sequence.residual)
            terms["residual"] = (weights.residual, size)
        return terms


def _track(positions: Tensor, alpha: Tensor, sample: TrackBatch) -> Tensor:
    return track_loss(
        positions,
        alpha,
        sample.source_xy,
        sample.target_xy,
        sample.target_depth,
        sample.weights,
        sample.intrinsics,
        sample.cam_from_world,
    )
