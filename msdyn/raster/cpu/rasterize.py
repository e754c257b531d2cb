"""The CPU backend: two autograd functions that call the Numba kernels, in float32.

`_Project` projects Gaussians into the images and `_Blend` blends them. They are separate so that
the projected means are a tensor of the graph, whose gradient gsplat's densification reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from msdyn.errors import InputError
from msdyn.raster.contract import Rendering
from msdyn.raster.cpu.bin import bin_tiles, pack_records
from msdyn.raster.cpu.blend import TILE_PIXELS, blend_forward
from msdyn.raster.cpu.blend_gradients import MOMENTS, blend_backward, gather_gradients
from msdyn.raster.cpu.lanes import WIDTH
from msdyn.raster.cpu.order import order_by_depth
from msdyn.raster.cpu.project import BLOCK, project_backward, project_forward
from msdyn.threads import on_ranges, on_threads, thread_count

__all__ = ["rasterize_cpu"]

# Minimum work per thread, about 0.5 to 1 ms, in Gaussians and for the last one in intersections of
# Gaussians and tiles.
_PROJECT_GRAIN, _SORT_GRAIN, _BIN_GRAIN, _BLEND_GRAIN = 32_768, 65_536, 16_384, 16_384

# Each number of channels, the depth included, is compiled separately, which takes seconds. Fits and
# common renders have up to 5 or 8. Other numbers, such as one channel per object, are padded to the
# next of these; more than the last, whose sums would not fit the registers, take several passes.
_CHANNELS = (1, 2, 3, 4, 5, 8, 16, 32)


def rasterize_cpu(
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
    """Rasterize on a CPU; arguments and result as in `rasterize`, which has checked the shapes.

    Raises:
        InputError: tensors on another device.
    """
    if means.device.type != "cpu":
        raise InputError(f"the cpu backend: expected tensors on a CPU, got {means.device}")
    means, quats_wxyz, features = (
        value.float() if value.ndim == 3 else value.float()[None]
        for value in (means, quats_wxyz, features)
    )
    opacities = torch.atleast_2d(opacities.float())
    means2d, conics, depths, extents = _Project.apply(
        means,
        quats_wxyz,
        scales.float(),
        opacities,
        intrinsics.float(),
        cam_from_world.float(),
        (width, height),
        (near, far, eps2d),
    )
    image, alpha, depth_image = _blend(
        means2d, conics, opacities, features, depths, extents, (width, height), depth
    )
    if background is not None:
        image = image + (1 - alpha)[..., None] * background.float()
    info = {
        "means2d": means2d,
        "radii": extents.ceil().int(),
        "depths": depths,
        "width": width,
        "height": height,
        "n_cameras": len(cam_from_world),
        "gaussian_ids": None,
    }
    return Rendering(image, alpha, depth_image if depth else None, info)


def _blend(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    depths: Tensor,
    extents: Tensor,
    size: tuple[int, int],
    with_depth: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply `_Blend` to numbers of channels of `_CHANNELS`.

    Arguments and result are those of `_Blend`; the depth is blended with the first channels. A
    number of channels in between is padded with zeros.
    """

    def blend(part: Tensor, own_depth: bool) -> tuple[Tensor, Tensor, Tensor]:
        needed = part.shape[-1] + own_depth
        spare = next(n for n in _CHANNELS if n >= needed) - needed
        padded = pad(part, (0, spare)) if spare else part
        image, alpha, depth = _Blend.apply(
            means2d, conics, opacities, padded, depths, extents, size, own_depth
        )
        return image[..., : part.shape[-1]] if spare else image, alpha, depth

    count, limit = features.shape[-1], _CHANNELS[-1]
    first = min(count, limit - with_depth)
    sizes = [first, *(min(limit, count - start) for start in range(first, count, limit))]
    parts = features.split(sizes, dim=-1)
    image, alpha, depth = blend(parts[0], with_depth)
    others = [blend(part, False)[0] for part in parts[1:]]
    return torch.cat([image, *others], dim=-1) if others else image, alpha, depth


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Return the tensors as contiguous arrays, without copying those that are contiguous."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def _sum_over_cameras(grad: Tensor) -> Tensor:
    """Return the sum over the first axis, a view if there is one camera."""
    return grad[0] if len(grad) == 1 else grad.sum(0)


class _Project(torch.autograd.Function):
    """Project means [C or 1, G, 3], quats [C or 1, G, 4] and scales [G, 3] into C cameras.

    Further inputs are opacities [C or 1, G], intrinsics [C, 3, 3], cam_from_world [C, 4, 4], `size`
    (width, height) px and `limits` (near, far, eps2d).

    Returns means2d [C, G, 2] px, conics [C, G, 3] px^-2, depths [C, G] scene units and extents
    [C, G, 2] px. Opacities affect only the extents and the culling, so they have no gradient here.
    """

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        intrinsics: Tensor,
        cam_from_world: Tensor,
        size: tuple[int, int],
        limits: tuple[float, float, float],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        shape = (len(cam_from_world), len(scales))
        means2d, conics, depths, extents = (torch.empty(*shape, n) for n in (2, 3, 1, 2))
        near, far, eps2d = limits
        on_ranges(
            thread_count(shape[0] * shape[1], _PROJECT_GRAIN),
            shape[0] * -(-shape[1] // BLOCK),
            project_forward,
            *_arrays(means, quats, scales, opacities[..., None], intrinsics, cam_from_world),
            size,
            float(near),
            float(far),
            float(eps2d),
            tuple(_arrays(means2d, conics, depths, extents)),
        )
        ctx.save_for_backward(means, quats, scales, intrinsics, cam_from_world, extents)
        ctx.size, ctx.eps2d = size, float(eps2d)
        ctx.mark_non_differentiable(extents)
        return means2d, conics, depths.squeeze(-1), extents

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_means2d: Tensor, grad_conics: Tensor, grad_depths: Tensor, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        means, quats, scales, intrinsics, cam_from_world, extents = ctx.saved_tensors
        cameras, count = extents.shape[:2]
        grad_means, grad_quats, grad_scales = (torch.empty(cameras, count, n) for n in (3, 4, 3))
        grad_cameras = np.zeros((cameras, -(-count // BLOCK), 16), np.float32)
        need_intrinsics, need_pose = ctx.needs_input_grad[4:6]
        on_ranges(
            thread_count(cameras * count, _PROJECT_GRAIN),
            grad_cameras.shape[0] * grad_cameras.shape[1],
            project_backward,
            *_arrays(means, quats, scales, intrinsics, cam_from_world),
            ctx.size,
            ctx.eps2d,
            *_arrays(extents),
            tuple(_arrays(grad_means2d, grad_conics, grad_depths[..., None])),
            (*_arrays(grad_means, grad_quats, grad_scales), grad_cameras),
            need_intrinsics or need_pose,
        )
        grad_pose = grad_intrinsics = None
        if need_intrinsics or need_pose:
            by_camera = torch.from_numpy(grad_cameras.sum(1, dtype=np.float64)).float()
            grad_pose, grad_intrinsics = torch.zeros(cameras, 4, 4), torch.zeros(cameras, 3, 3)
            grad_pose[:, :3, :3] = by_camera[:, :9].reshape(-1, 3, 3)
            grad_pose[:, :3, 3] = by_camera[:, 9:12]
            grad_intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]] = by_camera[:, 12:]
        return (
            grad_means.sum_to_size(means.shape),
            grad_quats.sum_to_size(quats.shape),
            _sum_over_cameras(grad_scales),
            None,
            grad_intrinsics,
            grad_pose,
            None,
            None,
        )


class _Blend(torch.autograd.Function):
    """Blend features [C or 1, G, D] of Gaussians that `_Project` has projected into C cameras.

    Further inputs are means2d, conics, depths and extents as `_Project` returns them, opacities
    [C or 1, G], `size` (width, height) px and `with_depth`.

    Returns the features [C, H, W, D], alpha [C, H, W] and, if `with_depth`, the depth [C, H, W],
    otherwise an empty tensor.
    """

    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,
        conics: Tensor,
        opacities: Tensor,
        features: Tensor,
        depths: Tensor,
        extents: Tensor,
        size: tuple[int, int],
        with_depth: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        cameras, count = depths.shape
        arrays = _arrays(
            means2d.view(-1, 2),
            conics.view(-1, 3),
            opacities.expand(cameras, count).reshape(-1, 1),
            features.flatten(0, 1),
            depths.reshape(-1, 1),
            extents.view(-1, 2),
        )
        threads = thread_count(cameras * count, _BIN_GRAIN)
        records, boxes = pack_records(*arrays, with_depth=with_depth, size=size, threads=threads)
        order = order_by_depth(*arrays[4:], thread_count(cameras * count, _SORT_GRAIN))
        offsets, entries, *slots = bin_tiles(order, records, boxes, cameras, size, threads)

        width, height = size
        channels = (0,) * (features.shape[-1] + with_depth)
        image = torch.empty(cameras, height, width, features.shape[-1])
        depth_image = torch.empty(cameras, height, width, int(with_depth))
        alpha = torch.empty(cameras, height, width)
        tiles = len(offsets) - 1
        saved = (*np.empty((2, tiles, TILE_PIXELS), np.float32), np.empty(tiles, np.int64))
        on_threads(
            thread_count(len(entries), _BLEND_GRAIN),
            blend_forward,
            np.zeros(1, np.int64),
            offsets,
            entries,
            records,
            size,
            channels,
            (*_arrays(image, depth_image, alpha), *saved),
        )
        ctx.save_for_backward(conics, opacities, features)
        ctx.lists = (offsets, entries, slots, records, saved)
        ctx.options = (size, channels, with_depth)
        return image, alpha, depth_image.squeeze(-1)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_image: Tensor, grad_alpha: Tensor, grad_depth: Tensor
    ) -> tuple[Tensor | None, ...]:
        conics, opacities, features = ctx.saved_tensors
        offsets, entries, slots, records, saved = ctx.lists
        size, channels, with_depth = ctx.options
        cameras, count = conics.shape[:2]
        width = -(-(MOMENTS + len(channels)) // WIDTH) * WIDTH
        # Aligned to cache lines by torch.
        sums = torch.empty(len(entries), width).numpy()
        on_threads(
            thread_count(len(entries), _BLEND_GRAIN),
            blend_backward,
            np.zeros(1, np.int64),
            offsets,
            entries,
            records,
            size,
            channels,
            saved,
            tuple(_arrays(grad_image, grad_depth.reshape(*grad_alpha.shape, int(with_depth)), grad_alpha)),
            sums,
        )
        widths = (2, 3, 1, features.shape[-1], 1)
        grads = [torch.empty(cameras, count, n) for n in widths]
        on_ranges(
            thread_count(cameras * count, _BIN_GRAIN),
            cameras * count,
            gather_gradients,
            *slots,
            sums,
            *_arrays(conics.flatten(0, 1), opacities.reshape(-1, 1)),
            with_depth,
            tuple(_arrays(*(grad.flatten(0, 1) for grad in grads))),
        )
        return (
            grads[0],
            grads[1],
            grads[2].squeeze(-1).sum_to_size(opacities.shape),
            grads[3].sum_to_size(features.shape),
            grads[4].squeeze(-1),
            None,
            None,
            None,
        )
