"""The losses of Eq. 12 and regularisers of the Gaussians. Lengths are in the world of the fit.

The public functions take tensors; those at the end of the file register them as losses of a step.
Regularisers of the motion are methods of the motion model.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from msdyn.fit.step import Step, register_loss

__all__ = [
    "depth_loss",
    "mask_loss",
    "rgb_loss",
    "rigidity_loss",
    "scale_loss",
    "ssim",
    "track_loss",
]

_C1, _C2 = 0.01**2, 0.03**2


def rgb_loss(
    image: Float[Tensor, "frames height width 3"],
    truth: Float[Tensor, "frames height width 3"],
    certain: Float[Tensor, "frames height width"] | None = None,
) -> Float[Tensor, ""]:
    """Return 0.8 L1 + 0.2 (1 - SSIM).

    Pixels whose `certain` is 0, those to ignore, have no error and no gradient.

    In float32 on the CPU a compiled kernel computes it, without a gradient for `truth`.

    Reference: Kerbl et al. 2023.
    """
    if certain is not None:  # of all images alike: asking whether it is all 1 would stop a GPU
        seen = certain[..., None] > 0
        truth = torch.where(seen, truth, image.detach())
        image = torch.where(seen, image, image.detach())
    if _compiled(image):
        return 0.2 + _Photometric.apply(image, truth, 0.8, -0.2)  # pyright: ignore
    return 0.8 * (image - truth).abs().mean() + 0.2 * (1 - ssim(image, truth))


def ssim(
    image: Float[Tensor, "frames height width channels"],
    truth: Float[Tensor, "frames height width channels"],
) -> Float[Tensor, ""]:
    """Return the mean structural similarity: 11-tap Gaussian window, sigma 1.5, zero padding.

    In float32 on the CPU a compiled kernel computes it, without a gradient for `truth`.

    Reference: Wang et al. 2004.
    """
    if _compiled(image):
        return _Photometric.apply(image, truth, 0.0, 1.0)  # pyright: ignore[reportReturnType]
    return _ssim(image, truth)


def _compiled(values: Float[Tensor, "*_"]) -> bool:
    """Return whether a compiled kernel computes the loss."""
    return values.dtype == torch.float32 and not values.is_cuda


class _Photometric(torch.autograd.Function):
    """l1 * L1 + similarity * SSIM."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Float[Tensor, "frames height width channels"],
        truth: Float[Tensor, "frames height width channels"],
        l1: float,
        similarity: float,
    ) -> Float[Tensor, ""]:
        from msdyn.fit.numba_photometric import photometric_and_gradient

        total, gradients = 0.0, []
        for a, b in zip(image.detach().contiguous(), truth.detach().contiguous(), strict=True):
            *parts, gradient = photometric_and_gradient(a.numpy(), b.numpy(), l1, similarity)
            total += l1 * parts[0] + similarity * parts[1]
            gradients.append(torch.from_numpy(gradient))
        ctx.save_for_backward(torch.stack(gradients) if len(gradients) > 1 else gradients[0][None])
        return image.new_tensor(total / len(gradients))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream[0] / len(gradient) * gradient, None, None, None


def _ssim(
    image: Float[Tensor, "frames height width channels"],
    truth: Float[Tensor, "frames height width channels"],
) -> Float[Tensor, ""]:
    a, b = image.movedim(-1, 1), truth.movedim(-1, 1)  # [B, C, H, W]
    channels = a.shape[1]
    maps = torch.cat([a, b, a * a, b * b, a * b], dim=1)
    offset = torch.arange(11, device=a.device, dtype=a.dtype) - 5
    kernel = torch.exp(-0.5 * (offset / 1.5) ** 2)
    kernel = (kernel / kernel.sum()).expand(5 * channels, 1, 11)
    maps = F.conv2d(maps, kernel.unsqueeze(-1), padding=(5, 0), groups=5 * channels)
    maps = F.conv2d(maps, kernel.unsqueeze(-2), padding=(0, 5), groups=5 * channels)
    mean_a, mean_b, square_a, square_b, product = maps.split(channels, dim=1)
    var_a = square_a - mean_a * mean_a
    var_b = square_b - mean_b * mean_b
    covariance = product - mean_a * mean_b
    value = ((2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)) / (
        (mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2)
    )
    return value.mean()


def mask_loss(
    moving: Float[Tensor, "frames height width"],
    truth: Float[Tensor, "frames height width"],
    certain: Float[Tensor, "frames height width"],
) -> Float[Tensor, ""]:
    """Return the mean absolute error of the rendered mask of moving Gaussians.

    Args:
        moving: blended weight of moving Gaussians, in [0, 1].
        truth: 1 on moving objects, 0 elsewhere.
        certain: weight of each pixel, 0 where the true mask is unknown.
    """
    return ((moving - truth).abs() * certain).sum() / certain.sum().clamp_min(1)


def depth_loss(
    depth: Float[Tensor, "frames height width"],
    alpha: Float[Tensor, "frames height width"],
    truth: Float[Tensor, "frames height width"],
    confidence: Float[Tensor, "frames height width"],
) -> Float[Tensor, ""]:
    """Return the mean absolute error of inverse depth, in units where the median depth is one.

    Args:
        depth: blended depth, not divided by alpha.
        alpha: accumulated opacity; pixels below 0.5 are ignored.
        truth: 0 = unknown.
        confidence: weight of each pixel.
    """
    known = ((truth > 0) & (alpha > 0.5)) * confidence
    inverse = alpha / depth.clamp_min(1e-3)
    error = (inverse - 1 / truth.clamp_min(1e-3)).abs() * known
    # Clamped, so that pixels on the wrong side of a silhouette do not dominate.
    return error.clamp_max(0.5).sum() / known.sum().clamp_min(1)


def track_loss(
    positions: Float[Tensor, "frames height width 3"],
    alpha: Float[Tensor, "frames height width"],
    source_xy: Float[Tensor, "frames points 2"],
    target_xy: Float[Tensor, "frames points 2"],
    target_depth: Float[Tensor, "frames points"],
    weights: Float[Tensor, "frames points"],
    intrinsics: Float[Tensor, "frames 3 3"],
    cam_from_world: Float[Tensor, "frames 4 4"],
) -> Float[Tensor, ""]:
    """Return the error of the rendered target position of the surface at each track's pixel.

    Args:
        positions: world positions at the target times, blended in the source frames; not divided
            by alpha.
        alpha: accumulated opacity of the source frames.
        source_xy: px in the source frames.
        target_xy: px in the target frames.
        target_depth: z-depth in the target frames; 0 = unknown.
        weights: confidence, 0 for padding.
        intrinsics, cam_from_world: of the target frames.

    Returns:
        Weighted mean of the 2D error, as a fraction of the longer image side, plus a tenth of the
        error of inverse_error depth.
    """
    height, width = alpha.shape[1:]
    x, y = (2 * source_xy).unbind(-1)
    grid = torch.stack([x / width - 1, y / height - 1], dim=-1).unsqueeze(1)  # [B, 1, P, 2]
    stacked = torch.cat([positions, alpha.unsqueeze(-1)], dim=-1).movedim(-1, 1)
    sampled = F.grid_sample(stacked, grid, align_corners=False, padding_mode="border")
    sampled = sampled[:, :, 0].mT  # [B, P, 4]
    source_alpha = sampled[..., 3:]
    world = sampled[..., :3] / source_alpha.clamp_min(1e-3)
    camera = world @ cam_from_world[:, :3, :3].mT + cam_from_world[:, None, :3, 3]
    depth = camera[..., 2].clamp_min(1e-2)
    homogeneous = camera @ intrinsics.mT
    xy = homogeneous[..., :2] / depth.unsqueeze(-1)
    valid = weights * (source_alpha[..., 0] > 0.3) * (camera[..., 2] > 1e-2)
    error = (((xy - target_xy) / max(width, height)).square().sum(-1) + 1e-12).sqrt()
    error = error.clamp_max(0.2)  # no gradient for outlier tracks
    known = target_depth > 0
    inverse_error = (1 / depth - 1 / target_depth.clamp_min(1e-3)).abs().clamp_max(0.5) * known
    return (valid * (error + 0.1 * inverse_error)).sum() / valid.sum().clamp_min(1e-6)


def rigidity_loss(
    canonical: Float[Tensor, "gaussians 3"],
    moved: Float[Tensor, "frames gaussians 3"],
    rotations: Float[Tensor, "frames gaussians 3 3"],
    chosen: Int[Tensor, " chosen"],
    neighbours: Int[Tensor, "chosen near"],
    weights: Float[Tensor, "chosen near"],
) -> Float[Tensor, ""]:
    """Penalise changes of relative position and rotation between neighbouring Gaussians.

    Args:
        canonical: canonical positions.
        moved: positions at the frames.
        rotations: relative to the canonical frame.
        chosen: indices of a sample of the Gaussians.
        neighbours: of each of them, in the canonical frame.
        weights: of each pair, decreasing with distance, 0 for pairs of different objects.

    Returns:
        Weighted mean of |x_j' - x_i' - R_i (x_j - x_i)| as a fraction of the mean distance of
        neighbours, plus the Frobenius norm of the difference of their rotations. In float32 on the
        CPU a compiled kernel computes it.

    Reference: the local rigidity term of Eq. 12, whose form the paper does not specify;
    as-rigid-as-possible energy, Sorkine and Alexa 2007.
    """
    if not len(chosen):
        return moved.sum() * 0
    if _compiled(moved):
        from msdyn.fit.numba_rigidity import rigidity_cpu

        return rigidity_cpu(canonical, moved, rotations, chosen, neighbours, weights)
    edge = _take(canonical, 0, neighbours) - _take(canonical, 0, chosen)[:, None]  # [n, k, 3]
    spacing = (weights * edge.norm(dim=-1)).sum() / weights.sum().clamp_min(1e-6)
    rotation = _take(rotations, 1, chosen)
    rotated = torch.einsum("bnij,nkj->bnki", rotation, edge)
    moved_edge = _take(moved, 1, neighbours) - _take(moved, 1, chosen)[:, :, None]
    strain = ((moved_edge - rotated) ** 2).sum(-1).add(1e-12).sqrt()
    strain = strain / spacing.detach().clamp_min(1e-6)
    twist = (_take(rotations, 1, neighbours) - rotation[:, :, None]).square().sum((-1, -2))
    twist = (twist + 1e-12).sqrt()
    total = (strain + twist) * weights
    return total.sum() / (weights.sum().clamp_min(1e-6) * len(moved))


def _take(
    values: Float[Tensor, "*_"], dim: int, index: Int[Tensor, "*index"]
) -> Float[Tensor, "*_"]:
    """Index one dimension. Unlike that of `values[index]`, the gradient is deterministic."""
    return values.index_select(dim, index.reshape(-1)).unflatten(dim, index.shape)


def scale_loss(log_scales: Float[Tensor, "gaussians 3"]) -> Float[Tensor, ""]:
    """Return the mean variance of the two larger log scales of each Gaussian; zero for discs."""
    if not len(log_scales):
        return log_scales.sum()
    x, y, z = log_scales.unbind(-1)
    # By pairs: torch's reduction over three is slow.
    largest = torch.maximum(torch.maximum(x, y), z)
    middle = torch.maximum(torch.minimum(x, y), torch.minimum(torch.maximum(x, y), z))
    return (largest - middle).square().mean() / 4


# Losses are summed and logged in the order of registration.


@register_loss("rgb")
def _rgb(step: Step) -> Float[Tensor, ""]:
    return rgb_loss(step.rgb, step.truth.rgb, step.truth.certain)


@register_loss("mask")
def _mask(step: Step) -> Float[Tensor, ""]:
    return mask_loss(step.moving, step.truth.moving, step.truth.certain)


@register_loss("depth")
def _depth(step: Step) -> Float[Tensor, ""]:
    return depth_loss(step.depth, step.alpha, step.truth.depth, step.truth.confidence)


@register_loss("track")
def _track(step: Step) -> Float[Tensor, ""] | None:
    tracks = step.tracks
    if tracks is None or step.positions is None:
        return None
    return track_loss(
        step.positions,
        step.alpha,
        tracks.source_xy,
        tracks.target_xy,
        tracks.target_depth,
        tracks.weights,
        tracks.cameras.intrinsics,
        tracks.cameras.cam_from_world,
    )


@register_loss("scale")
def _scale(step: Step) -> Float[Tensor, ""]:
    sequence = step.sequence
    return scale_loss(sequence.static.log_scales) + scale_loss(sequence.moving.log_scales)


@register_loss("rigidity")
def _rigidity(step: Step) -> Float[Tensor, ""] | None:
    means = step.sequence.moving.means
    if not len(means):
        return None
    pairs = step.neighbours.sample(means, step.sequence.labels, step.number)
    moved = step.posed.means[:, step.posed.num_static :]
    return rigidity_loss(means, moved, step.posed.rotations, *pairs)
