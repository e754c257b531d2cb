"""Losses of the feed-forward network: depth, motion, matches and rendering.

Point-wise and distribution terms of the motion, and the depth loss, are those of the released
code; `balanced_motion_loss` is ours.

Reference: MoVieS, 3.3.2.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from msdyn.devices import numbers_like
from msdyn.feedforward.correlation import Correlation

__all__ = [
    "balanced_log_depth_loss",
    "balanced_motion_loss",
    "depth_loss",
    "distribution_loss",
    "match_loss",
    "motion_loss",
    "plain_motion_loss",
    "point_loss",
    "rendering_loss",
]

MotionError = Literal["l1", "squared", "distance"]

_GRADIENT_SCALES = 4
_DISTRIBUTION_WEIGHT = 10.0
_REACH = 1.5
"""Largest error, in cells, of a matched position that the refinement can correct."""


def depth_loss(
    predicted: Float[Tensor, "images height width"],
    true: Float[Tensor, "images height width"],
    valid: Bool[Tensor, "images height width"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the mean squared error over the valid pixels, and the gradient term.

    The gradient term is the mean, over strides 1, 2, 4, 8, of the absolute differences between
    neighbours of the error, summed over both axes and divided by the number of valid pixels; pairs
    of valid pixels only count.
    """
    error = torch.where(valid, predicted - true, 0.0)
    squared = error.square().sum() / valid.sum().clamp_min(1)
    gradient = error.new_zeros(())
    for scale in range(_GRADIENT_SCALES):
        step = 2**scale
        part, mask = error[:, ::step, ::step], valid[:, ::step, ::step]
        along_x = (part[..., 1:] - part[..., :-1]).abs() * (mask[..., 1:] & mask[..., :-1])
        along_y = (part[:, 1:] - part[:, :-1]).abs() * (mask[:, 1:] & mask[:, :-1])
        gradient = gradient + (along_x.sum() + along_y.sum()) / mask.sum().clamp_min(1)
    return squared, gradient / _GRADIENT_SCALES


def point_loss(
    predicted: Float[Tensor, "points 3"], true: Float[Tensor, "points 3"]
) -> Float[Tensor, ""]:
    """Return the mean absolute difference of displacements, over points and axes."""
    return (predicted - true).abs().mean()


def distribution_loss(
    predicted: Float[Tensor, "points 3"], true: Float[Tensor, "points 3"]
) -> Float[Tensor, ""]:
    """Return the mean absolute difference of the inner products of all pairs of displacements."""
    return (predicted @ predicted.mT - true @ true.mT).abs().mean()


def motion_loss(
    predicted: Float[Tensor, "points 3"], true: Float[Tensor, "points 3"]
) -> Float[Tensor, ""]:
    """Return the motion loss of the released code: point-wise plus 10 times distribution."""
    return point_loss(predicted, true) + _DISTRIBUTION_WEIGHT * distribution_loss(predicted, true)


def balanced_motion_loss(
    predicted: Float[Tensor, "*batch 3"],
    true: Float[Tensor, "*batch 3"],
    moving: Bool[Tensor, "*batch"],
    known: Bool[Tensor, "*batch"],
    *,
    kind: MotionError = "distance",
) -> Float[Tensor, ""]:
    """Return the error of displacements, averaged over moving and static pixels separately.

    Without balance the few moving pixels have little weight, and zero motion is nearly optimal.

    Args:
        predicted, true: displacements.
        moving: pixels of moving objects.
        known: pixels whose true displacement is known.
        kind: of the error: absolute per axis, squared distance, or distance.
    """
    values = _motion_errors(predicted, true, kind)
    return _mean(values, moving & known) + _mean(values, ~moving & known)


def plain_motion_loss(
    predicted: Float[Tensor, "*batch 3"],
    true: Float[Tensor, "*batch 3"],
    moving: Bool[Tensor, "*batch"],
    known: Bool[Tensor, "*batch"],
    *,
    kind: MotionError = "l1",
) -> Float[Tensor, ""]:
    """Return the mean error of all known displacements; arguments as `balanced_motion_loss`."""
    return _mean(_motion_errors(predicted, true, kind), known)


def _motion_errors(
    predicted: Float[Tensor, "*batch 3"], true: Float[Tensor, "*batch 3"], kind: MotionError
) -> Float[Tensor, "*batch"]:
    error = predicted - true
    if kind == "l1":
        return error.abs().mean(dim=-1)
    if kind == "squared":
        return error.square().sum(dim=-1)
    return (error.square().sum(dim=-1) + 1e-6).sqrt() - 1e-3


def balanced_log_depth_loss(
    predicted: Float[Tensor, "*batch"],
    true: Float[Tensor, "*batch"],
    moving: Bool[Tensor, "*batch"],
    valid: Bool[Tensor, "*batch"],
) -> Float[Tensor, ""]:
    """Return the mean absolute error of log depth, moving and static pixels with equal weight.

    Unlike a squared error of depth it cannot explode where the network predicts its logarithm. The
    depth of moving objects, which parallax does not show, matters most for the motion. Only valid
    pixels count.
    """
    values = (predicted.log() - torch.where(valid, true, 1.0).log()).abs()
    return (_mean(values, moving & valid) + _mean(values, ~moving & valid)) / 2


def _mean(values: Float[Tensor, "*batch"], chosen: Bool[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """Return the mean over the chosen pixels; 0 if there are none."""
    weights = chosen.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp_min(1)


def match_loss(
    correlation: Correlation,
    targets: Float[Tensor, "scenes frames frames cells 2"],
    visible: Bool[Tensor, "scenes frames frames cells"],
) -> Float[Tensor, " scenes"]:
    """Return the cross entropy of the matches between different frames, and the position error.

    Positions count where they are in reach of the true one, whose error is a distance in cells.

    Args:
        correlation: predicted matches.
        targets: true positions (column, row) in frame j of the cells of frame i, in cells; NaN
            where they are not known.
        visible: where the point is visible in frame j; elsewhere "no match" is correct.
    """
    rows, columns = correlation.grid
    known = targets.isfinite().all(dim=-1)
    targets = targets.nan_to_num()
    size = numbers_like([columns - 1, rows - 1], targets)
    position = targets.clamp_min(0).minimum(size)
    low = position.floor().minimum(size - 1)
    fraction = position - low
    nll = targets.new_zeros(targets.shape[:-1])
    for down in (0, 1):
        for right in (0, 1):
            index = ((low[..., 1] + down) * columns + low[..., 0] + right).long()
            weight = (fraction[..., 0] if right else 1 - fraction[..., 0]) * (
                fraction[..., 1] if down else 1 - fraction[..., 1]
            )
            chosen = correlation.log_probabilities.gather(-1, index[..., None])[..., 0]
            nll = nll - weight * chosen
    nll = torch.where(visible, nll, -correlation.log_probabilities[..., -1])
    frames = targets.shape[1]
    others = ~torch.eye(frames, dtype=torch.bool, device=targets.device)[..., None]
    error = ((correlation.positions - targets).square().sum(-1) + 1e-6).sqrt()
    in_reach = others & visible & known & (error.detach() < _REACH)
    error = torch.where(in_reach, error, 0.0).sum((1, 2, 3)) / in_reach.sum((1, 2, 3)).clamp_min(1)
    known = known & others
    nll = torch.where(known, nll, 0.0).sum((1, 2, 3)) / known.sum((1, 2, 3)).clamp_min(1)
    return nll + error


def rendering_loss(
    rendered: Float[Tensor, "height width 3"], image: Float[Tensor, "3 height width"]
) -> Float[Tensor, ""]:
    """Return the mean squared error of a rendered image."""
    return (rendered - image.movedim(0, -1)).square().mean()
