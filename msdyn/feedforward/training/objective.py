"""The weighted losses of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from msdyn.devices import numbers_like
from msdyn.errors import InputError
from msdyn.feedforward.batches import TrainingBatch, inverse_affine, true_matches
from msdyn.feedforward.correlation import Correlation
from msdyn.feedforward.model import Movies, StaticPixels
from msdyn.feedforward.splats import SplatterPixels
from msdyn.feedforward.training.losses import (
    balanced_log_depth_loss,
    balanced_motion_loss,
    depth_loss,
    distribution_loss,
    match_loss,
    plain_motion_loss,
    rendering_loss,
)
from msdyn.options import Options, Weight
from msdyn.raster import rasterize

__all__ = ["LossWeights", "Objective", "PerceptualLoss", "draw", "losses"]

_DISTRIBUTION_PIXELS = 1024
_MOVING_SHARE = 0.4


PerceptualLoss = Callable[
    [Float[Tensor, "images 3 height width"], Float[Tensor, "images 3 height width"]],
    Float[Tensor, " images"],
]
"""A perceptual distance of images in [0, 1]."""


@dataclass(frozen=True)
class LossWeights(Options):
    """Weights of the losses; a loss of weight 0 is not computed."""

    depth: Weight = 1.0
    """Of squared error and gradient term."""
    log_depth: Weight = 0.0
    """Of the absolute error of the logarithm of depth, over moving and static pixels."""
    match: Weight = 0.3
    """Of the matches between frames, if the network computes them. With weight 0 the matching
    network is fixed, and its matches are computed once per batch."""
    motion: Weight = 10.0
    """Of the displacements."""
    motion_error: Literal["l1", "squared", "distance"] = "distance"
    """How displacements are compared."""
    balanced: bool = True
    """Average displacements over moving and static pixels separately, and draw pixels of both for
    the distribution loss; else over all, as published."""
    distribution: Weight = 0.0
    """Of the inner products of displacements."""
    rendering: Weight = 0.0
    """Of images at the query times, squared error."""
    perceptual: Weight = 0.0
    """Of their LPIPS, relative to the squared error; published: 0.5."""


def losses(
    model: Movies,
    batch: TrainingBatch,
    queries: Sequence[int],
    weights: LossWeights,
    generator: torch.Generator,
    *,
    matches: Correlation | None = None,
    perceptual: PerceptualLoss | None = None,
    half: bool = False,
) -> dict[str, Float[Tensor, ""]]:
    """Return the losses of a batch at some of its query times, each times its weight.

    Each is the mean over the scenes of a loss of a scene alone, so that the mean of the losses of
    the parts of a batch, of equal size, is the loss of the whole.

    Args:
        model: the network.
        batch: with ground truth.
        queries: indices of query times, over which losses of motion and rendering are averaged.
        weights: of the losses.
        generator: for the draw of pixels of the distribution loss.
        matches: between the frames, if they have been computed before.
        perceptual: LPIPS, for its loss.
        half: compute the network in bfloat16; losses and rendering are float32.
    """
    network = torch.autocast(batch.depth.device.type, torch.bfloat16, enabled=half)
    with network:
        features = model.encode(batch.clip, matches=matches)
    values: dict[str, Tensor] = {}
    if weights.match and features.correlation is not None:
        positions, visible = true_matches(batch, model.correlation_cue.cell)
        exact = batch.has_kind("poses") | batch.has_kind("static")
        values["match"] = (
            weights.match * exact * match_loss(features.correlation, positions, visible)
        )
    if not (weights.depth or weights.log_depth):
        return _means(values)
    with network:
        static = model.static(features, appearance=weights.rendering > 0)
    values |= _depth_losses(static, batch, weights)
    for query in queries:
        motion = None
        moves = weights.motion or weights.distribution
        if model.config.motion and (moves or weights.rendering):
            times = batch.query_times[:, query]
            with network:
                motion = model.move(features, static, times, appearance=weights.rendering > 0)
        own: dict[str, Tensor] = {}
        if motion is not None and moves:
            own |= _motion_losses(motion.displacement, batch, query, weights, generator)
        if weights.rendering:
            gaussians = model.gaussians(features, static, motion)
            own |= _rendering_losses(gaussians, batch, query, weights, perceptual)
        for name, value in own.items():
            values[name] = values.get(name, 0.0) + value / len(queries)
    return _means(values)


def _depth_losses(
    static: StaticPixels, batch: TrainingBatch, weights: LossWeights
) -> dict[str, Float[Tensor, " scenes"]]:
    scale = 1.0 if batch.depth_weight is None else batch.depth_weight
    valid = torch.ones_like(batch.moving) if batch.valid is None else batch.valid
    values = {}
    if weights.depth:
        squared, gradient = _by_scene(depth_loss, static.depth, batch.depth, valid)
        values["depth"] = weights.depth * scale * (squared + gradient)
    if weights.log_depth:
        values["log_depth"] = (
            weights.log_depth
            * scale
            * _by_scene(balanced_log_depth_loss, static.depth, batch.depth, batch.moving, valid)
        )
    return values


def _rendering_losses(
    gaussians: SplatterPixels,
    batch: TrainingBatch,
    query: int,
    weights: LossWeights,
    perceptual: PerceptualLoss | None,
) -> dict[str, Float[Tensor, " scenes"]]:
    if batch.target_images is None:
        raise InputError("rendering: expected a batch with target images")
    rendered, targets = draw(gaussians, batch, query), batch.target_images[:, query]
    values = {"rendering": weights.rendering * _by_scene(rendering_loss, rendered, targets)}
    if weights.perceptual and perceptual is not None:
        distances = perceptual(rendered.movedim(-1, 1), targets)
        values["perceptual"] = weights.rendering * weights.perceptual * distances
    return values


class Objective(nn.Module):
    """`losses` as a module, so that processes can average the gradients of what it calls."""

    def __init__(self, model: Movies) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        batch: TrainingBatch,
        queries: Sequence[int],
        weights: LossWeights,
        generator: torch.Generator,
        **options: Any,
    ) -> dict[str, Float[Tensor, ""]]:
        return losses(self.model, batch, queries, weights, generator, **options)


def _motion_losses(
    displacement: Float[Tensor, "scenes frames height width 3"],
    batch: TrainingBatch,
    query: int,
    weights: LossWeights,
    generator: torch.Generator,
) -> dict[str, Float[Tensor, " scenes"]]:
    scale = 1.0 if batch.motion_weight is None else batch.motion_weight
    true, known = batch.motion(query), batch.known(query)
    values = {}
    if weights.motion:
        compare = balanced_motion_loss if weights.balanced else plain_motion_loss
        compare = partial(compare, kind=weights.motion_error)
        error = _by_scene(compare, displacement, true, batch.moving, known)
        if not weights.balanced:
            # Released code: of scenes in which nothing moves, the length of displacements.
            length = displacement.norm(dim=-1).mean(dim=(1, 2, 3))
            error = torch.where(batch.has_kind("static"), length, error)
        values["motion"] = weights.motion * scale * error
    if weights.distribution:
        draw_pixels = partial(_drawn_distribution, balanced=weights.balanced, generator=generator)
        values["distribution"] = (
            weights.distribution
            * scale
            * _by_scene(draw_pixels, displacement, true, batch.moving, known)
        )
    return values


def _by_scene(function: Callable[..., Any], *tensors: Shaped[Tensor, "scenes ..."]) -> Any:
    """Return what a function gives for each scene alone, stacked; for a pair, a pair."""
    results = [function(*own) for own in zip(*tensors, strict=True)]
    if isinstance(results[0], tuple):
        return tuple(torch.stack(part) for part in zip(*results, strict=True))
    return torch.stack(results)


def _means(values: dict[str, Float[Tensor, " scenes"]]) -> dict[str, Float[Tensor, ""]]:
    return {name: value.mean() for name, value in values.items()}


def draw(
    gaussians: SplatterPixels, batch: TrainingBatch, query: int
) -> Float[Tensor, "scenes height width 3"]:
    """Return what the second cameras see of Gaussians at a query time."""
    height, width = batch.clip.size
    sides = numbers_like([width, height], batch.clip.intrinsics)
    images = []
    for scene in range(len(batch.query_times)):
        own = gaussians.of_scene(scene)
        focal, centre = batch.target_intrinsics[scene, query].split(2)
        intrinsics = torch.diag(torch.cat([focal * sides, sides.new_ones(1)]))[None]
        intrinsics[0, :2, 2] = centre * sides
        cam_from_world = inverse_affine(batch.target_world_from_cam[scene, query])[None]
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


def _drawn_distribution(
    predicted: Float[Tensor, "frames height width 3"],
    true: Float[Tensor, "frames height width 3"],
    moving: Bool[Tensor, "frames height width"],
    known: Bool[Tensor, "frames height width"],
    *,
    balanced: bool,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Return the distribution loss of a draw of pixels of a scene, if balanced 40 % moving.

    The number of known pixels stays on a GPU: where there are too few, the rest of the draw is
    zero, which adds nothing to the sum over pairs.
    """
    known, moving = known.flatten(), moving.flatten()
    weights = known.float()
    if balanced:
        share = (moving & known).sum() / known.sum().clamp_min(1)
        share = share.clamp(0.01, 0.99)
        weights = weights * torch.where(
            moving, _MOVING_SHARE / share, (1 - _MOVING_SHARE) / (1 - share)
        )
    # As `torch.multinomial` draws, which waits for a GPU to check the weights.
    order = weights / torch.empty_like(weights).exponential_(1, generator=generator)
    chosen = order.topk(min(_DISTRIBUTION_PIXELS, len(order))).indices
    used = known[chosen]
    predicted, true = (
        torch.where(used[:, None], values.flatten(0, 2)[chosen], 0.0)
        for values in (predicted, true)
    )
    return distribution_loss(predicted, true) * (len(used) / used.sum().clamp_min(1)) ** 2
