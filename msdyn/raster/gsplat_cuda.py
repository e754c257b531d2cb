"""The CUDA backend: gsplat's kernels, each launched once for a whole batch of cameras.

Cameras that share their Gaussians are passed on gsplat's camera axis. Cameras with Gaussians of
their own (each at its own time) are passed on gsplat's batch axis, one camera per batch entry. The
stages of gsplat are called separately, not through its `rasterization`, so that in both cases the
projected means are a [C, G, 2] tensor of the graph, the shape that its densification strategies
expect.

gsplat 1.6 (its main branch; PyPI has 1.5.3) keeps the signatures of these stages. Its `isect_tiles`
also takes conics and opacities, and then lists a Gaussian only in tiles that the ellipse of its
alpha cut touches, instead of all tiles of its box. Both blend the same pixels (`contract.py`).

This uses gsplat's dense layout of projected Gaussians. Its packed layout stores only the
visible ones, but then the host waits for their number, and `info` would have to be scattered back
to [C, G]. The dense layout takes half a gigabyte for a batch of 8 with 450 000 Gaussians.
`tools/gpu_check.py` times both.

Two bugs of gsplat 1.5.3 are avoided by appending Gaussians of zero opacity, `_append_zeros`:

- The backward projection reduces gradients within a warp by camera and by Gaussian index, but not
  by batch entry. Where a warp contains threads of two batch entries, the gradients of both cameras
  are added to one of them; with fewer than 32 Gaussians, so are those of Gaussians of equal index.
- It divides by the number of Gaussians, also if that is zero.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from msdyn.errors import InputError
from msdyn.raster.contract import Rendering

__all__ = ["rasterize_gsplat"]

_TILE = 16
# The limit of gsplat's own `rasterization` (`channel_chunk`); the accumulators of more channels do
# not fit the registers of a pixel's thread.
_CHANNELS_PER_PASS = 32
# CUDA threads per warp; gsplat's projection has one thread per Gaussian and reduces over warps.
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
    order: Tensor | None = None,
    near: float,
    far: float,
    eps2d: float,
) -> Rendering:
    """Rasterize on CUDA; arguments and result as in `rasterize`, which has checked the shapes.

    Raises:
        InputError: tensors on another device, or intrinsics that require a gradient, which gsplat
            does not compute.
    """
    from gsplat import (
        fully_fused_projection,
        isect_offset_encode,
        isect_tiles,
        rasterize_to_pixels,
    )

    if not _is_on_cuda(means):
        raise InputError(f"the gsplat backend: expected tensors on CUDA, got {means.device}")
    if intrinsics.requires_grad:
        raise InputError(
            "intrinsics: expected requires_grad=False on CUDA, got True: gsplat has no gradient of "
            "intrinsics; detach them, or use backend='cpu' on CPU tensors"
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
    if opacities.ndim == 2 and len(opacities) == 1:
        opacities = opacities[0]
    per_camera = 3 in (means.ndim, quats_wxyz.ndim) or opacities.ndim == 2
    batch = (cameras,) if per_camera else ()
    gradients_mix = per_camera and (cam_from_world.requires_grad or count < _WARP)
    if per_camera:  # [C, 1, ...], one camera per batch entry
        cam_from_world, intrinsics = cam_from_world.unsqueeze(1), intrinsics.unsqueeze(1)
    padding = -count % _WARP if gradients_mix else 0
    if count == 0:
        padding = _WARP
    radii, means2d, depths, conics, _ = fully_fused_projection(
        _append_zeros(means.expand(*batch, count, 3), padding),
        None,
        _append_zeros(quats_wxyz.expand(*batch, count, 4), padding),
        _append_zeros(scales.expand(*batch, count, 3), padding),
        cam_from_world,
        intrinsics,
        width,
        height,
        eps2d=eps2d,
        near_plane=near,
        far_plane=far,
        opacities=_append_zeros(
            opacities.detach().expand(*batch, count)[..., None], padding
        ).squeeze(-1),
    )
    # [C, G, ...]; of culled Gaussians only the radii are initialised, by zero.
    radii, means2d, depths, conics = (
        value.reshape(cameras, count + padding, -1)[:, :count]
        for value in (radii, means2d, depths, conics)
    )
    depths = depths.squeeze(-1)

    tiles_x, tiles_y = -(-width // _TILE), -(-height // _TILE)
    opacities = opacities.expand(cameras, count)
    _, intersections, ids = isect_tiles(
        *(means2d, radii, depths if order is None else order.detach().float()),
        *(_TILE, tiles_x, tiles_y),
        **_tighter_bounds(isect_tiles, conics, opacities),
    )
    offsets = isect_offset_encode(intersections, cameras, tiles_x, tiles_y)

    channels = features.expand(cameras, *features.shape[-2:])
    backgrounds = None if background is None else background.float().expand(cameras, -1)
    if depth:
        channels = torch.cat([channels, depths.unsqueeze(-1)], dim=-1)
        backgrounds = None if backgrounds is None else pad(backgrounds, (0, 1))
    images, alphas = [], []
    for start in range(0, channels.shape[-1], _CHANNELS_PER_PASS):
        part = slice(start, start + _CHANNELS_PER_PASS)
        image, alpha = rasterize_to_pixels(
            means2d,
            conics,
            channels[..., part],
            opacities,
            width,
            height,
            _TILE,
            offsets,
            ids,
            backgrounds=None if backgrounds is None else backgrounds[..., part],
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


def _tighter_bounds(
    isect_tiles: Callable[..., Any], conics: Tensor, opacities: Tensor
) -> dict[str, Any]:
    """Return what gsplat 1.6 needs to bound Gaussians by ellipses; nothing for gsplat 1.5."""
    if "conics" not in signature(isect_tiles).parameters:
        return {}
    return {"conics": conics.detach(), "opacities": opacities.detach()}


def _is_on_cuda(tensor: Tensor) -> bool:
    """Return whether gsplat has kernels for the tensor's device; the tests replace this."""
    return tensor.is_cuda


def _append_zeros(values: Tensor, rows: int) -> Tensor:
    """Return [..., G + rows, n]: values [..., G, n] followed by rows of zeros."""
    return pad(values, (0, 0, 0, rows)) if rows else values
