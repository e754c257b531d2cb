"""Fitting the motion to the lifted tracks alone, before any rendering.

The hierarchy's patterns come from one Procrustes a cluster and frame. Here they are refined jointly
with the blend weights and canonical positions of the tracks, under the regularisers of the main
fit, so that occluded steps are bridged smoothly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import trange

from msdyn.fit.config import LossConfig
from msdyn.fit.losses import pattern_acceleration, pattern_size
from msdyn.geometry import Cameras
from msdyn.motion import Blend, MotionField, MotionHierarchy, blends_from_votes
from msdyn.scene import LiftedTracks

__all__ = ["PrefitTracks", "prefit_motion"]

# Depth is less certain than place in the image: errors along the ray count this much.
_ALONG_RAY = 0.25
# Frames of a step.
_FRAMES = 12


@dataclass(frozen=True)
class PrefitTracks:
    """What the main fit takes over from the tracks.

    Attributes:
        points: [N, 3] canonical positions.
        objects: [N] mask index.
        votes: for each level [N, K_l], the weight of each pattern.
        error: [N] mean distance to the observations, scene units.
        places: on each level, the number of patterns that a point may share.
    """

    points: np.ndarray
    objects: np.ndarray
    votes: list[Tensor]
    error: np.ndarray
    places: tuple[int, ...]


def prefit_motion(
    field: MotionField,
    hierarchy: MotionHierarchy,
    tracks: LiftedTracks,
    cameras: Cameras,
    loss: LossConfig,
    *,
    steps: int,
    seed: int,
) -> PrefitTracks:
    """Refine a field in place on lifted tracks, by Adam.

    Args:
        field: made from `hierarchy`, on the CPU.
        hierarchy: built from `tracks`, all of them visible somewhere.
        tracks: at the key frames of the field.
        cameras: of the key frames.
        loss: weights of the regularisers.
        steps: of Adam; 0 leaves everything as it is.
        seed: of the choice of frames.
    """
    votes = [torch.eye(len(level))[torch.from_numpy(level.labels)] for level in hierarchy.levels]
    points = torch.from_numpy(hierarchy.points).float()
    blends = blends_from_votes(field, votes, hierarchy.places)
    observed = torch.from_numpy(tracks.xyz).float()  # [N, T, 3]
    weights = torch.from_numpy(hierarchy.weights).float()
    rays = torch.nn.functional.normalize(
        observed - torch.from_numpy(cameras.centres).float(), dim=-1
    )
    if len(points) and steps:
        points, blends = _optimise(
            field, points, blends, observed, weights, rays, loss, steps=steps, seed=seed
        )
    with torch.no_grad():
        error = torch.zeros(len(points))
        if len(points):
            _, moved = field(points, blends, field.key_frames)
            distance = (moved.transpose(0, 1) - observed).norm(dim=-1)
            error = (distance * weights).sum(1) / weights.sum(1).clamp_min(1e-6)
        dense = [
            torch.zeros(len(points), field.num_patterns(level)).scatter_add_(
                1, blend.index, blend.weights
            )
            for level, blend in enumerate(blends)
        ]
    return PrefitTracks(points.numpy(), tracks.object, dense, error.numpy(), hierarchy.places)


def _optimise(
    field: MotionField,
    points: Tensor,
    blends: list[Blend],
    observed: Tensor,
    weights: Tensor,
    rays: Tensor,
    loss: LossConfig,
    *,
    steps: int,
    seed: int,
) -> tuple[Tensor, list[Blend]]:
    generator = torch.Generator().manual_seed(seed)
    points = points.clone().requires_grad_()
    logits = [b.logits.clone().requires_grad_() for b in blends]
    optimiser = torch.optim.Adam(
        [
            {"params": list(field.sixd), "lr": 5e-3},
            {"params": list(field.translations), "lr": 2e-3},
            {"params": logits, "lr": 1e-2},
            {"params": [points], "lr": 5e-4},
        ]
    )
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.05 ** (1 / steps))
    frames = len(field.key_frames)
    # One scale of error for the robust loss, from where the builder left it.
    with torch.no_grad():
        _, moved = field(points, blends, field.key_frames)
        start = _distance(moved.transpose(0, 1), observed, rays)
        scale = start[weights > 0].median().clamp_min(1e-6)
    progress = trange(steps, desc="motion on tracks", leave=False)
    for _ in progress:
        chosen = torch.randperm(frames, generator=generator)[:_FRAMES]
        current = [Blend(b.index, v) for b, v in zip(blends, logits, strict=True)]
        _, moved = field(points, current, field.key_frames[chosen])
        distance = _distance(moved.transpose(0, 1), observed[:, chosen], rays[:, chosen])
        weight = weights[:, chosen]
        # Charbonnier, then linear: outliers pull no harder than their neighbours.
        robust = ((distance / scale) ** 2 + 1).sqrt() - 1
        data = scale * (robust * weight).sum() / weight.sum().clamp_min(1e-6)
        total = (
            data + loss.smooth * pattern_acceleration(field) + loss.residual * pattern_size(field)
        )
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        schedule.step()
        progress.set_postfix(error=f"{float(data.detach()):.4f}", refresh=False)
    optimiser.zero_grad()  # the field goes on to another optimiser, which would find them
    return points.detach(), [
        Blend(b.index, v.detach()) for b, v in zip(blends, logits, strict=True)
    ]


def _distance(moved: Tensor, observed: Tensor, rays: Tensor) -> Tensor:
    """Return distances [N, T] in which errors along the viewing ray count less."""
    offset = moved - observed
    along = (offset * rays).sum(-1, keepdim=True)
    across = offset - along * rays
    squared = (across**2).sum(-1) + (_ALONG_RAY * along[..., 0]) ** 2
    return (squared + 1e-16).sqrt()
