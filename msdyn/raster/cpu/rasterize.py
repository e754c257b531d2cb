"""The rasterizer on a CPU: two differentiable steps around Numba kernels, in float32.

`_Project` takes Gaussians to the image and `_Blend` blends them there. They are apart so that the
projected means are a tensor of the graph, whose gradient gsplat's densification reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from msdyn.errors import InputError
from msdyn.jit import settings
from msdyn.raster.contract import Rendering
from msdyn.raster.cpu.bin import bin_tiles, order_by_depth, pack_records
from msdyn.raster.cpu.blend import MOMENTS, blend_backward, blend_forward, gather_gradients
from msdyn.raster.cpu.project import BLOCK, project_backward, project_forward

__all__ = ["rasterize_cpu"]

# The least work for a thread of its own, in Gaussians and, for the last, in intersections: between
# half a millisecond and a whole one.
_PROJECT_GRAIN, _SORT_GRAIN, _BIN_GRAIN, _BLEND_GRAIN = 32_768, 65_536, 16_384, 16_384


# Beyond it the sums do not fit the registers; and each number of channels is compiled for itself.
_CHANNELS_A_PASS = 32


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
    """Do what `rasterize` says, for tensors on a CPU, which it has checked."""
    if means.device.type != "cpu":
        raise InputError(f"the cpu backend: expected tensors on a CPU, got {means.device}")
    means, quats_wxyz, features = (
        value.float() if value.ndim == 3 else value.float()[None]
        for value in (means, quats_wxyz, features)
    )
    opacities = opacities.float()
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
    """Apply `_Blend` to so many channels at a time as its kernels are fast for."""
    first, *others = features.split(_CHANNELS_A_PASS, dim=-1)
    same = (means2d, conics, opacities)
    image, alpha, depth = _Blend.apply(*same, first, depths, extents, size, with_depth)
    images = [_Blend.apply(*same, part, depths, extents, size, False)[0] for part in others]
    return torch.cat([image, *images], dim=-1) if images else image, alpha, depth


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Return the tensors as contiguous arrays, without a copy where they are so already."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


@contextmanager
def _threads(work: int, grain: int) -> Iterator[int]:
    """Let kernels use as many threads as torch does, but one for every `grain` of `work` at most.

    Starting threads is cheap on an idle machine; on a busy one each start can wait for a time slice
    of the system (8 ms measured), so a millisecond of work is not shared.
    """
    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    threads = max(1, min(torch_threads, settings.NUMBA_NUM_THREADS, work // grain))
    # Setting what is set already would take as long as a kernel for a thousand Gaussians.
    if threads != numba_threads:
        numba.set_num_threads(threads)
    if torch.get_num_threads() != torch_threads:
        # Numba's thread pool sets OpenMP's default as it starts, and torch may read that.
        torch.set_num_threads(torch_threads)
    try:
        yield threads
    finally:
        if threads != numba_threads:
            numba.set_num_threads(numba_threads)


def _over_cameras(grad: Tensor) -> Tensor:
    """Return the sum over the first axis; of one camera, the same memory."""
    return grad[0] if len(grad) == 1 else grad.sum(0)


class _Project(torch.autograd.Function):
    """(means [C or 1, G, 3], quats, scales [G, 3], opacities [G], cameras) -> the image plane.

    Returns means2d [C, G, 2], conics [C, G, 3], depths [C, G] and extents [C, G, 2]. Opacities only
    decide on the extents, which have no gradient.
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
        with _threads(shape[0] * shape[1], _PROJECT_GRAIN):
            project_forward(
                *_arrays(means, quats, scales, opacities[:, None], intrinsics, cam_from_world),
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
        with _threads(cameras * count, _PROJECT_GRAIN):
            project_backward(
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
            _over_cameras(grad_scales),
            None,
            grad_intrinsics,
            grad_pose,
            None,
            None,
        )


class _Blend(torch.autograd.Function):
    """(means2d, conics, opacities [G], features [C or 1, G, D], depths, extents) -> images.

    Returns features [C, H, W, D], alpha [C, H, W], and the depth [C, H, W], empty where it is not
    asked for.
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
            means2d.flatten(0, 1),
            conics.flatten(0, 1),
            opacities[:, None],
            features.flatten(0, 1),
            depths.reshape(-1, 1),
            extents.flatten(0, 1),
        )
        with _threads(cameras * count, _SORT_GRAIN) as threads:
            order = order_by_depth(arrays[4], arrays[5], threads)
        with _threads(len(order), _BIN_GRAIN) as threads:
            records, reached = pack_records(order, *arrays[:5], with_depth, arrays[5], size)
            offsets, ranks, *slots = bin_tiles(
                order, records, reached, count, cameras, size, threads
            )

        width, height = size
        channels = (0,) * (features.shape[-1] + with_depth)
        image = torch.empty(cameras, height, width, features.shape[-1])
        depth_image = torch.empty(cameras, height, width, int(with_depth))
        alpha, left, last = torch.empty(3, cameras, height, width)
        with _threads(len(ranks), _BLEND_GRAIN) as threads:
            blend_forward(
                offsets,
                ranks,
                records,
                size,
                channels,
                threads,
                tuple(_arrays(image, depth_image, alpha, left, last)),
            )
        ctx.save_for_backward(conics, opacities, features, left, last)
        ctx.lists = (order, offsets, ranks, slots, records)
        ctx.options = (size, channels, with_depth)
        return image, alpha, depth_image.squeeze(-1)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_image: Tensor, grad_alpha: Tensor, grad_depth: Tensor
    ) -> tuple[Tensor | None, ...]:
        conics, opacities, features, left, last = ctx.saved_tensors
        order, offsets, ranks, slots, records = ctx.lists
        size, channels, with_depth = ctx.options
        cameras, count = conics.shape[:2]
        sums = np.empty((len(ranks), MOMENTS + len(channels)), np.float32)
        grad_depth = grad_depth.reshape(*left.shape, int(with_depth))
        with _threads(len(ranks), _BLEND_GRAIN) as threads:
            blend_backward(
                offsets,
                ranks,
                records,
                size,
                channels,
                threads,
                *_arrays(left, last),
                tuple(_arrays(grad_image, grad_depth, grad_alpha)),
                sums,
            )
        # One piece of memory, since the system clears each anew.
        widths = (2, 3, 1, features.shape[-1], 1)
        parts = torch.zeros(cameras * count * sum(widths)).split(
            [cameras * count * n for n in widths]
        )
        grads = [part.view(cameras, count, n) for part, n in zip(parts, widths, strict=True)]
        with _threads(len(order), _BIN_GRAIN):
            gather_gradients(
                order,
                *slots,
                sums,
                *_arrays(conics.flatten(0, 1), opacities[:, None]),
                with_depth,
                tuple(_arrays(*(grad.flatten(0, 1) for grad in grads))),
            )
        return (
            grads[0],
            grads[1],
            _over_cameras(grads[2].squeeze(-1)),
            grads[3].sum_to_size(features.shape),
            grads[4].squeeze(-1),
            None,
            None,
            None,
        )
