"""The reference implementation of the rasterizer: dense torch in float64, gradients by autograd.

Every Gaussian is evaluated at every pixel of every camera. It is written from the rules of gsplat
1.5.3 and shares no code with the kernels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ALPHA_CUT, MAX_ALPHA, MIN_TRANSMITTANCE, MAX_EXTENT = 1 / 255, 0.999, 1e-4, 3.33


class Dense(NamedTuple):
    """Images [C, H, W, ...] and projected Gaussians [C, G, ...]."""

    features: Tensor
    alpha: Tensor
    depth: Tensor
    means2d: Tensor
    radii: Tensor
    # [C, H, W] pixels where a decision (alpha cut, alpha cap or stop) depends on float32 rounding.
    ambiguous: Tensor


def rotations(quats_wxyz: Tensor) -> Tensor:
    """Return rotation matrices [..., 3, 3] of quaternions [..., 4] of any norm."""
    w, x, y, z = (quats_wxyz / quats_wxyz.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        torch.stack([w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z], -1),
    ]
    return torch.stack(rows, -2)


def project(means, quats_wxyz, scales, opacities, intrinsics, cam_from_world, size, limits):
    """Return means2d, conics, depths and radii (zero for culled Gaussians) in one camera."""
    (width, height), (near, far, eps2d) = size, limits
    points = means @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
    x, y, z = points.unbind(-1)
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    u = torch.minimum(torch.maximum(x / z, -(cx + 0.15 * width) / fx), (1.15 * width - cx) / fx)
    v = torch.minimum(torch.maximum(y / z, -(cy + 0.15 * height) / fy), (1.15 * height - cy) / fy)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([fx / z, zero, -fx * u / z], -1),
            torch.stack([zero, fy / z, -fy * v / z], -1),
        ],
        -2,
    )
    root = rotations(quats_wxyz) * scales[:, None, :]
    root = jacobian @ cam_from_world[:3, :3] @ root
    covariance = root @ root.mT + eps2d * torch.eye(2, dtype=z.dtype)
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    extent = (2 * (opacities / ALPHA_CUT).log()).clamp(min=0).sqrt().clamp(max=MAX_EXTENT)
    radii = (extent[:, None] * covariance.diagonal(dim1=-2, dim2=-1).sqrt()).ceil()
    inside = (means2d + radii > 0) & (means2d - radii < torch.tensor([width, height]))
    visible = (z >= near) & (z <= far) & (opacities >= ALPHA_CUT) & inside.all(-1)
    visible = visible & (radii > 0).all(-1)
    return means2d, covariance.inverse(), z, torch.where(visible[:, None], radii, 0.0)


def render(
    means,
    quats_wxyz,
    scales,
    opacities,
    features,
    intrinsics,
    cam_from_world,
    width,
    height,
    *,
    background=None,
    order=None,
    near=0.01,
    far=1e10,
    eps2d=0.3,
    margin=1e-3,
) -> Dense:
    """Render in float64; arguments as in `msdyn.raster.rasterize`.

    `margin` is the relative distance of alpha or transmittance to a threshold, below which a pixel
    is ambiguous; for the cap of alpha a tenth of it, absolute.
    """
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([xs, ys], -1).reshape(-1, 1, 2).double() + 0.5  # [P, 1, 2]
    cameras = len(cam_from_world)
    means, quats_wxyz, features = (
        value.expand(cameras, *value.shape[-2:]) for value in (means, quats_wxyz, features)
    )
    opacities = opacities.expand(cameras, opacities.shape[-1])
    images = []
    for c in range(cameras):
        means2d, conics, z, radii = project(
            means[c],
            quats_wxyz[c],
            scales,
            opacities[c],
            intrinsics[c],
            cam_from_world[c],
            (width, height),
            (near, far, eps2d),
        )
        visible = torch.where(radii[:, 0] > 0)[0]
        keys = z if order is None else order[c]
        ranks = visible[keys[visible].detach().float().sort(stable=True).indices]
        delta = means2d[ranks] - pixels  # [P, N, 2]
        sigma = 0.5 * torch.einsum("pni,nij,pnj->pn", delta, conics[ranks], delta)
        raw = opacities[c][ranks] * torch.exp(-sigma)
        alpha = torch.where(raw >= ALPHA_CUT, raw.clamp(max=MAX_ALPHA), 0.0)
        after = torch.cumprod(1 - alpha, 1)
        alpha = torch.where(after > MIN_TRANSMITTANCE, alpha, 0.0)
        through = torch.cumprod(1 - alpha, 1)
        before = torch.cat([torch.ones(len(pixels), 1), through], 1)  # [P, N + 1]
        weights = alpha * before[:, :-1]
        ambiguous = ((raw / ALPHA_CUT).log().abs() < margin) | (
            (raw - MAX_ALPHA).abs() < margin / 10
        )
        ambiguous = ambiguous | ((after / MIN_TRANSMITTANCE).log().abs() < margin)
        image = weights @ features[c][ranks]
        if background is not None:
            image = image + before[:, -1:] * background
        images.append(
            (
                image.reshape(height, width, -1),
                1 - before[:, -1].reshape(height, width),
                (weights @ z[ranks]).reshape(height, width),
                means2d,
                radii,
                ambiguous.any(1).reshape(height, width),
            )
        )
    return Dense(*(torch.stack(values) for values in zip(*images, strict=True)))
