"""Fitting the motion to the lifted tracks, before the optimisation by rendering.

The patterns of a hierarchy are initialised by one Procrustes alignment per cluster and frame. Here
the motion is refined jointly with the canonical positions of the tracks, under the regularisers of
the main fit, which interpolate occluded frames smoothly. The depth of the objects is corrected with
it: parts move rigidly, so that their sizes in the image determine the scale of their depth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from msdyn.fit.config import LossConfig
from msdyn.fit.object_depth import ObjectDepth, ObjectDepthModel
from msdyn.geometry import Cameras
from msdyn.motion import Motion, MotionLearningRates, TrackedMotion
from msdyn.progress import track
from msdyn.reading import row_slices
from msdyn.scene import LiftedTracks

__all__ = ["prefit_motion"]

# Weight of errors along the viewing ray: depth is less accurate than image position.
_ALONG_RAY = 0.25
# Frames per step.
_FRAMES = 12
# Learning rates; all decay to a twentieth.
_LEARNING_RATES = MotionLearningRates(gaussian=1e-2, rotations=5e-3, translations=2e-3)
_POINTS_LR = 5e-4
# Of the corrections of depth, in multiples of their prior standard deviations.
_DEPTH_LR = 1e-1


def prefit_motion(
    tracked: TrackedMotion,
    tracks: LiftedTracks,
    cameras: Cameras,
    loss: LossConfig,
    *,
    correct_depth: bool,
    steps: int,
    seed: int,
) -> tuple[TrackedMotion, ObjectDepth]:
    """Refine a motion on lifted tracks by Adam; its parameters are changed in place.

    Args:
        tracked: initialised from `tracks`, on the CPU.
        tracks: at the key frames of the motion.
        cameras: of the key frames.
        loss: weights of the regularisers.
        correct_depth: whether to estimate corrections of the objects' depth.
        steps: of Adam; with 0 nothing is changed.
        seed: of the sampling of frames.

    Returns:
        The motion, with refined canonical positions, and the corrections of the objects' depth.
    """
    if not (len(tracked.points) and steps):
        return tracked, ObjectDepth.none(tracks)
    centres = torch.from_numpy(cameras.centres).float()
    relative = torch.from_numpy(tracks.xyz).float()
    relative -= centres
    distances = relative.norm(dim=-1)
    exact = np.empty(tracks.visible.shape)
    for rows in row_slices(tracks.xyz.shape, tracks.xyz.dtype):
        exact[rows] = np.linalg.norm(tracks.xyz[rows] - cameras.centres, axis=-1)
    depth = ObjectDepthModel(tracks, exact)
    target = _Target(
        centres,
        torch.nn.functional.normalize(relative, dim=-1, out=relative),
        distances,
        tracked.weights,
        depth if correct_depth else None,
    )
    points = _optimise(tracked.motion, tracked.points, target, loss, steps, seed)
    return replace(tracked, points=points), depth.result()


@dataclass(frozen=True)
class _Target:
    """Observed positions of N tracks in T frames.

    Attributes:
        centres: of the cameras.
        rays: unit vectors from the cameras to the positions.
        distances: along the rays.
        weights: confidence, zero where not visible.
        depth: corrections of the distances that are optimised too.
    """

    centres: Float[Tensor, "frames 3"]
    rays: Float[Tensor, "tracks frames 3"]
    distances: Float[Tensor, "tracks frames"]
    weights: Float[Tensor, "tracks frames"]
    depth: ObjectDepthModel | None

    def errors(
        self, moved: Float[Tensor, "chosen tracks 3"], frames: Int[Tensor, " chosen"]
    ) -> Float[Tensor, "tracks chosen"]:
        """Return distances in which errors along the viewing ray are weighted down."""
        rays, distances = self.rays[:, frames], self.distances[:, frames]
        if self.depth is not None:
            distances = distances * self.depth.scales(frames)
        relative = moved.transpose(0, 1) - self.centres[frames]
        along = (relative * rays).sum(-1)
        across = relative - along[..., None] * rays
        squared = (across**2).sum(-1) + (_ALONG_RAY * (along - distances)) ** 2
        return (squared + 1e-16).sqrt()


def _optimise(
    motion: Motion,
    points: Float[Tensor, "tracks 3"],
    target: _Target,
    loss: LossConfig,
    steps: int,
    seed: int,
) -> Float[Tensor, "tracks 3"]:
    """Optimise a motion in place, and corrections of depth; return canonical positions."""
    generator = torch.Generator().manual_seed(seed)
    points = points.clone().requires_grad_()
    lrs = motion.learning_rates(_LEARNING_RATES)
    values = motion.shared_parameters() | motion.gaussian_parameters()
    groups = [{"params": [value], "lr": lrs[name]} for name, value in values.items()]
    groups.append({"params": [points], "lr": _POINTS_LR})
    if target.depth is not None:
        groups.append({"params": [target.depth.parameter], "lr": _DEPTH_LR})
    optimiser = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.05 ** (1 / steps))
    keys = motion.key_frames
    # Scale of the robust loss: the median error of the initialisation.
    with torch.no_grad():
        start = torch.cat(
            [
                target.errors(motion.positions(points, keys[chosen]), chosen)
                for chosen in torch.arange(len(keys)).split(_FRAMES)
            ],
            dim=1,
        )
        scale = start[target.weights > 0].median().clamp_min(1e-6)
    for _ in track(range(steps), "motion on tracks", unit="step"):
        chosen = torch.randperm(len(keys), generator=generator)[:_FRAMES]
        error = target.errors(motion.positions(points, keys[chosen]), chosen)
        weight = target.weights[:, chosen]
        # Charbonnier: quadratic, then linear, which bounds the influence of outliers.
        robust = ((error / scale) ** 2 + 1).sqrt() - 1
        penalty = (robust * weight).sum()
        if target.depth is not None:
            penalty = penalty + target.depth.negative_log_prior(chosen)
        data = scale * penalty / weight.sum().clamp_min(1e-6)
        terms = [loss.weight_of(name, 1.0) * value for name, value in motion.regularisers().items()]
        total = torch.stack([data, *terms]).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        schedule.step()
    optimiser.zero_grad()  # the parameters are next optimised by another optimiser
    return points.detach()
