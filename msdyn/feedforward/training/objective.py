"""The weighted losses of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.errors import InputError
from msdyn.feedforward.correlation import Correlation
from msdyn.feedforward.model import Movies
from msdyn.feedforward.splats import SplatterPixels
from msdyn.feedforward.training.batches import TrainingBatch, true_matches
from msdyn.feedforward.training.losses import (
    balanced_log_depth_loss,
    balanced_motion_loss,
    depth_loss,
    distribution_loss,
    match_loss,
    rendering_loss,
)
from msdyn.raster import rasterize

__all__ = ["LossWeights", "draw", "losses"]

_DISTRIBUTION_PIXELS = 1024
_MOVING_SHARE = 0.4


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; a loss of weight 0 is not computed."""

    depth: float = 1.0
    """Of squared error and gradient term."""
    log_depth: float = 0.0
    """Of the absolute error of the logarithm of depth, over moving and static pixels."""
    match: float = 0.3
    """Of the matches between frames, if the network computes them. With weight 0 the matching
    network is fixed, and its matches are computed once per batch."""
    motion: float = 10.0
    """Of the displacements, over moving and static pixels."""
    motion_error: Literal["l1", "squared", "distance"] = "distance"
    """How displacements are compared."""
    distribution: float = 0.0
    """Of the inner products of displacements."""
    rendering: float = 0.0
    """Of images at the query times, from the second camera."""


def losses(
    model: Movies,
    batch: TrainingBatch,
    query: int,
    weights: LossWeights,
    generator: torch.Generator,
    *,
    matches: Correlation | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Return the losses of a batch at one of its query times, each times its weight.

    Args:
        model: the network.
        batch: with ground truth.
        query: index of the query time.
        weights: of the losses.
        generator: for the draw of pixels of the distribution loss.
        matches: between the frames, if they have been computed before.
    """
    features = model.encode(batch.clip, matches=matches)
    values: dict[str, Tensor] = {}
    if weights.match and features.correlation is not None:
        positions, visible = true_matches(batch, model.correlation_cue.cell)
        values["match"] = weights.match * match_loss(features.correlation, positions, visible)
    if not (weights.depth or weights.log_depth):
        return values
    static = model.static(features, appearance=weights.rendering > 0)
    if weights.depth:
        valid = torch.ones_like(batch.moving).flatten(0, 1)
        squared, gradient = depth_loss(static.depth.flatten(0, 1), batch.depth.flatten(0, 1), valid)
        values["depth"] = weights.depth * (squared + gradient)
    if weights.log_depth:
        values["log_depth"] = weights.log_depth * balanced_log_depth_loss(
            static.depth, batch.depth, batch.moving
        )
    motion = None
    if weights.motion:
        motion = model.move(
            features, static, batch.query_times[:, query], appearance=weights.rendering > 0
        )
        true = batch.motion(query)
        values["motion"] = weights.motion * balanced_motion_loss(
            motion.displacement, true, batch.moving, kind=weights.motion_error
        )
        if weights.distribution:
            values["distribution"] = weights.distribution * _distribution(
                motion.displacement, true, batch.moving, generator
            )
    if weights.rendering:
        if batch.target_images is None:
            raise InputError("rendering: expected a batch with target images")
        gaussians = model.gaussians(features, static, motion)
        rendered = draw(gaussians, batch, query)
        values["rendering"] = weights.rendering * rendering_loss(
            rendered, batch.target_images[:, query]
        )
    return values


def draw(
    gaussians: SplatterPixels, batch: TrainingBatch, query: int
) -> Float[Tensor, "scenes height width 3"]:
    """Return what the second cameras see of Gaussians at a query time."""
    height, width = batch.clip.size
    sides = batch.clip.intrinsics.new_tensor([width, height])
    images = []
    for scene in range(len(batch.query_times)):
        own = gaussians.of_scene(scene)
        focal, centre = batch.clip.intrinsics[scene, 0].split(2)
        intrinsics = torch.diag(torch.cat([focal * sides, sides.new_ones(1)]))[None]
        intrinsics[0, :2, 2] = centre * sides
        cam_from_world = torch.linalg.inv(batch.target_world_from_cam[scene, query])[None]
        rendering = rasterize(
            own.means,
            own.quats_wxyz,
            own.scales,
            own.opacities,
            own.colours,
            intrinsics,
            cam_from_world,
            width,
            height,
        )
        images.append(rendering.features[0])
    return torch.stack(images)


def _distribution(
    predicted: Float[Tensor, "scenes frames height width 3"],
    true: Float[Tensor, "scenes frames height width 3"],
    moving: Tensor,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Return the distribution loss of a draw of pixels of each scene, 40 % of them moving."""
    parts = []
    for own_predicted, own_true, own_moving in zip(
        predicted.flatten(1, 3), true.flatten(1, 3), moving.flatten(1), strict=True
    ):
        share = own_moving.float().mean().clamp(0.01, 0.99)
        weights = torch.where(own_moving, _MOVING_SHARE / share, (1 - _MOVING_SHARE) / (1 - share))
        chosen = torch.multinomial(
            weights, min(_DISTRIBUTION_PIXELS, len(weights)), generator=generator
        )
        parts.append(distribution_loss(own_predicted[chosen], own_true[chosen]))
    return torch.stack(parts).mean()
