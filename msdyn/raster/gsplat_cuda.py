"""The rasterizer on CUDA: gsplat's kernels, one call of each for a batch of cameras.

Cameras that share their Gaussians are gsplat's cameras; cameras with Gaussians of their own (each
at its own time) are a batch of one camera each. gsplat's steps are called one by one, not its
`rasterization`, so that the projected means can be [C, G, 2] in the graph in both cases, which is
the form that its densification strategies take.

Of gsplat 1.5.3's two forms of the projected Gaussians this is the dense one. The packed one keeps
only what a camera sees, for which the host must wait for a count and `info` would have to be
scattered back; a batch of 8 with 450 000 Gaussians takes half a gigabyte without it.
`tools/gpu_check.py` times both.

Two of its faults are gone round by appending Gaussians of no opacity, `_filled`:

- Its backward projection sums over the threads of a warp by camera and by Gaussian, but not by
  batch entry. Where a warp straddles two entries, the gradients of both their cameras go to one,
  and those of equal Gaussians too if there are fewer than 32.
- It divides by the number of Gaussians, also if there is none.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from msdyn.errors import InputError
from msdyn.raster.contract import Rendering

__all__ = ["rasterize_gsplat"]

_TILE = 16
# gsplat's own limit for one pass: beyond it a pixel's sums do not fit its registers.
_CHANNELS_A_PASS = 32
# Threads that gsplat sums over, one for each Gaussian.
_WARP = 32


def rasterize_gsplat(
    means: Tensor,
    quats_wxyz: Tensor,
    scales: Tensor,
    opacities: Tensor,
    features: Tensor,
    intrinsics: Tensor,
    cam_from_world: Tensor,
    width: int,
    height: int,
    *,
    depth: bool,
    background: Tensor | None,
    near: float,
    far: float,
    eps2d: float,
) -> Rendering:
    """Do what `rasterize` says, for tensors on CUDA; it has checked their shapes.

    Raises:
        InputError: tensors elsewhere, or intrinsics that require a gradient, which gsplat has not.
    """
    from gsplat import (
        fully_fused_projection,
        isect_offset_encode,
        isect_tiles,
        rasterize_to_pixels,
    )

    if not _usable(means):
        raise InputError(f"the gsplat backend: expected tensors on CUDA, got {means.device}")
    if intrinsics.requires_grad:
        raise InputError(
            "intrinsics: expected no gradient to be asked for on CUDA, where gsplat has none; "
            "detach them, or use backend='cpu' on CPU tensors"
        )
    cameras, count = len(cam_from_world), len(scales)
    means, quats_wxyz, scales, opacities, features, intrinsics, cam_from_world = (
        value.float()
        for value in (
            means,
            quats_wxyz,
            scales,
            opacities,
            features,
            intrinsics,
            cam_from_world,
        )
    )
    own = means.ndim == 3 or quats_wxyz.ndim == 3
    batch = (cameras,) if own else ()
    if own:  # [C, 1, ...], one camera a batch entry
        views, lenses = cam_from_world.unsqueeze(1), intrinsics.unsqueeze(1)
    else:
        views, lenses = cam_from_world, intrinsics
    straddles = own and (cam_from_world.requires_grad or count < _WARP)
    more = -count % _WARP if straddles else 0
    if count == 0:
        more = _WARP
    radii, means2d, depths, conics, _ = fully_fused_projection(
        _filled(means.expand(*batch, count, 3), more),
        None,
        _filled(quats_wxyz.expand(*batch, count, 4), more),
        _filled(scales.expand(*batch, count, 3), more),
        views,
        lenses,
        width,
        height,
        eps2d=eps2d,
        near_plane=near,
        far_plane=far,
        opacities=_filled(opacities.detach().expand(*batch, count)[..., None], more).squeeze(-1),
    )
    # [C, G, ...]; not drawn, they hold what was in memory before, but for the radii.
    radii, means2d, depths, conics = (
        value.reshape(cameras, count + more, -1)[:, :count]
        for value in (radii, means2d, depths, conics)
    )
    depths = depths.squeeze(-1)

    tiles_x, tiles_y = -(-width // _TILE), -(-height // _TILE)
    _, intersections, ids = isect_tiles(means2d, radii, depths, _TILE, tiles_x, tiles_y)
    offsets = isect_offset_encode(intersections, cameras, tiles_x, tiles_y)

    channels = features.expand(cameras, *features.shape[-2:])
    behind = None if background is None else background.float().expand(cameras, -1)
    if depth:
        channels = torch.cat([channels, depths.unsqueeze(-1)], dim=-1)
        behind = None if behind is None else pad(behind, (0, 1))
    images, alphas = [], []
    for start in range(0, channels.shape[-1], _CHANNELS_A_PASS):
        part = slice(start, start + _CHANNELS_A_PASS)
        image, alpha = rasterize_to_pixels(
            means2d,
            conics,
            channels[..., part],
            opacities.expand(cameras, count),
            width,
            height,
            _TILE,
            offsets,
            ids,
            backgrounds=None if behind is None else behind[..., part],
        )
        images.append(image)
        alphas.append(alpha)
    image = images[0] if len(images) == 1 else torch.cat(images, dim=-1)
    info = {
        "means2d": means2d,
        "radii": radii,
        "depths": depths,
        "width": width,
        "height": height,
        "n_cameras": cameras,
        "gaussian_ids": None,
    }
    return Rendering(
        image[..., : features.shape[-1]],
        alphas[0].squeeze(-1),
        image[..., -1] if depth else None,
        info,
    )


def _usable(tensor: Tensor) -> bool:
    """Return whether gsplat has kernels for a tensor's device."""
    return tensor.is_cuda


def _filled(values: Tensor, more: int) -> Tensor:
    """Return [..., G, n] with `more` rows of zeros behind the others."""
    return pad(values, (0, 0, 0, more)) if more else values
