"""Fitting the motion to the lifted tracks, before the optimisation by rendering.

The patterns of a hierarchy are initialised by one Procrustes alignment per cluster and frame. Here
the motion is refined jointly with the canonical positions of the tracks, under the regularisers of
the main fit, which interpolate occluded frames smoothly.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import trange

from msdyn.fit.config import LossConfig
from msdyn.geometry import Cameras
from msdyn.motion import Motion, MotionLearningRates, TrackedMotion
from msdyn.scene import LiftedTracks

__all__ = ["prefit_motion"]

# Weight of errors along the viewing ray: depth is less accurate than image position.
_ALONG_RAY = 0.25
# Frames per step.
_FRAMES = 12
# Learning rates; all decay to a twentieth.
_LEARNING_RATES = MotionLearningRates(gaussian=1e-2, rotations=5e-3, translations=2e-3)
_POINTS_LR = 5e-4


def prefit_motion(
    tracked: TrackedMotion,
    tracks: LiftedTracks,
    cameras: Cameras,
    loss: LossConfig,
    *,
    steps: int,
    seed: int,
) -> TrackedMotion:
    """Refine a motion on lifted tracks by Adam; its parameters are changed in place.

    Args:
        tracked: initialised from `tracks`, on the CPU.
        tracks: at the key frames of the motion.
        cameras: of the key frames.
        loss: weights of the regularisers.
        steps: of Adam; with 0 the motion is returned unchanged.
        seed: of the sampling of frames.

    Returns:
        The motion, with refined canonical positions.
    """
    if not (len(tracked.points) and steps):
        return tracked
    observed = torch.from_numpy(tracks.xyz).float()  # [N, T, 3]
    rays = torch.nn.functional.normalize(
        observed - torch.from_numpy(cameras.centres).float(), dim=-1
    )
    points = _optimise(
        tracked.motion, tracked.points, observed, tracked.weights, rays, loss, steps, seed
    )
    return replace(tracked, points=points)


def _optimise(
    motion: Motion,
    points: Float[Tensor, "tracks 3"],
    observed: Float[Tensor, "tracks frames 3"],
    weights: Float[Tensor, "tracks frames"],
    rays: Float[Tensor, "tracks frames 3"],
    loss: LossConfig,
    steps: int,
    seed: int,
) -> Float[Tensor, "tracks 3"]:
    """Optimise a motion in place and return canonical positions."""
    generator = torch.Generator().manual_seed(seed)
    points = points.clone().requires_grad_()
    lrs = motion.learning_rates(_LEARNING_RATES)
    values = motion.shared_parameters() | motion.gaussian_parameters()
    groups = [{"params": [value], "lr": lrs[name]} for name, value in values.items()]
    optimiser = torch.optim.Adam([*groups, {"params": [points], "lr": _POINTS_LR}])
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.05 ** (1 / steps))
    keys = motion.key_frames
    # Scale of the robust loss: the median error of the initialisation.
    with torch.no_grad():
        start = _distance(motion.positions(points, keys).transpose(0, 1), observed, rays)
        scale = start[weights > 0].median().clamp_min(1e-6)
    progress = trange(steps, desc="motion on tracks", leave=False)
    for _ in progress:
        chosen = torch.randperm(len(keys), generator=generator)[:_FRAMES]
        moved = motion.positions(points, keys[chosen])
        distance = _distance(moved.transpose(0, 1), observed[:, chosen], rays[:, chosen])
        weight = weights[:, chosen]
        # Charbonnier: quadratic, then linear, which bounds the influence of outliers.
        robust = ((distance / scale) ** 2 + 1).sqrt() - 1
        data = scale * (robust * weight).sum() / weight.sum().clamp_min(1e-6)
        terms = [loss.weight_of(name, 1.0) * value for name, value in motion.regularisers().items()]
        total = torch.stack([data, *terms]).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        schedule.step()
        progress.set_postfix(error=f"{float(data.detach()):.4f}", refresh=False)
    optimiser.zero_grad()  # the parameters are next optimised by another optimiser
    return points.detach()


def _distance(
    moved: Float[Tensor, "tracks frames 3"],
    observed: Float[Tensor, "tracks frames 3"],
    rays: Float[Tensor, "tracks frames 3"],
) -> Float[Tensor, "tracks frames"]:
    """Return distances in which errors along the viewing ray are weighted down."""
    offset = moved - observed
    along = (offset * rays).sum(-1, keepdim=True)
    across = offset - along * rays
    squared = (across**2).sum(-1) + (_ALONG_RAY * along[..., 0]) ** 2
    return (squared + 1e-16).sqrt()
