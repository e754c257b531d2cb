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
from msdyn.raster.cpu.arrays import aligned, array, by_camera, empty, gradient
from msdyn.raster.cpu.bin import bin_tiles, pack_records
from msdyn.raster.cpu.blend import blend_forward
from msdyn.raster.cpu.blend_gradients import MOMENTS, blend_backward, gather_gradients
from msdyn.raster.cpu.lanes import WIDTH
from msdyn.raster.cpu.order import order_by_depth
from msdyn.raster.cpu.project import BLOCK, project_backward, project_forward
from msdyn.raster.cpu.tile_pixels import TILE_PIXELS
from msdyn.threads import on_ranges, on_threads, thread_count

__all__ = ["rasterize_cpu"]

# Minimum work per thread, about 0.5 to 1 ms, in Gaussians and for the last one in intersections of
# Gaussians and tiles.
_PROJECT_GRAIN, _SORT_GRAIN, _BIN_GRAIN, _BLEND_GRAIN = 32_768, 65_536, 16_384, 16_384

# Each number of channels, the depth included, is compiled separately, which takes seconds. Fits and
# common renders have up to 5 or 8. Other numbers, such as one channel per object, are padded to the
# next of these; more than the last, whose sums would not fit the registers, take several passes.
_CHANNELS = (1, 2, 3, 4, 5, 8, 16, 32)


class _Projected:
    """The arrays of the projected Gaussians, which `_Project` sets and `_Blend` reads.

    Attributes:
        means2d: [C, G, 2] px.
        conics: [C, G, 3] px^-2.
        depths: [C, G, 1] scene units.
        extents: [C, G, 2] px.
        opacities: [C or 1, G, 1].
        order: C * G keys of the sort, float32; the depths if none are given.
    """

    order: np.ndarray
    means2d: np.ndarray
    conics: np.ndarray
    depths: np.ndarray
    extents: np.ndarray
    opacities: np.ndarray


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
    order: Tensor | None = None,
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
    opacities, features = opacities.float(), features.float()
    arrays = _Projected()
    means2d, conics, depths = _Project.apply(
        means.float(),
        quats_wxyz.float(),
        scales.float(),
        opacities,
        intrinsics.float(),
        cam_from_world.float(),
        (width, height),
        (near, far, eps2d),
        arrays,
    )
    arrays.order = arrays.depths if order is None else array(order.float())
    image, alpha, depth_image = _blend(
        means2d, conics, opacities, features, depths, arrays, (width, height), depth
    )
    if background is not None:
        image = image + (1 - alpha)[..., None] * background.float()
    info = {
        "means2d": means2d,
        "radii": torch.from_numpy(np.ceil(arrays.extents).astype(np.int32)),
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
    arrays: _Projected,
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
            means2d, conics, opacities, padded, depths, arrays, size, own_depth
        )
        return image[..., : part.shape[-1]] if spare else image, alpha, depth

    count, limit = features.shape[-1], _CHANNELS[-1]
    first = min(count, limit - with_depth)
    if first == count:
        return blend(features, with_depth)
    sizes = [first, *(min(limit, count - start) for start in range(first, count, limit))]
    parts = features.split(sizes, dim=-1)
    image, alpha, depth = blend(parts[0], with_depth)
    others = [blend(part, False)[0] for part in parts[1:]]
    return torch.cat([image, *others], dim=-1), alpha, depth


class _Project(torch.autograd.Function):
    """Project means [C or 1, G, 3], quats [C or 1, G, 4] and scales [G, 3] into C cameras.

    Further inputs are opacities [C or 1, G], intrinsics [C, 3, 3], cam_from_world [C, 4, 4], `size`
    (width, height) px, `limits` (near, far, eps2d), and `arrays`, which is filled. The axis of the
    cameras may lack where it is one.

    Returns means2d [C, G, 2] px, conics [C, G, 3] px^-2 and depths [C, G] scene units. Opacities
    affect only the extents and the culling, so they have no gradient here.
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
        arrays: _Projected,
    ) -> tuple[Tensor, Tensor, Tensor]:
        cameras, count = len(cam_from_world), len(scales)
        outputs = tuple(empty(cameras, count, n) for n in (2, 3, 1, 2))
        arrays.means2d, arrays.conics, arrays.depths, arrays.extents = outputs
        arrays.opacities = by_camera(opacities, 1)
        near, far, eps2d = limits
        inputs = (
            by_camera(means, 2),
            by_camera(quats, 2),
            array(scales),
            array(intrinsics),
            array(cam_from_world),
        )
        on_ranges(
            thread_count(cameras * count, _PROJECT_GRAIN),
            cameras * -(-count // BLOCK),
            project_forward,
            *inputs[:3],
            arrays.opacities,
            *inputs[3:],
            size,
            float(near),
            float(far),
            float(eps2d),
            outputs,
        )
        ctx.save_for_backward(means, quats, scales, intrinsics, cam_from_world)
        ctx.set_materialize_grads(False)
        ctx.inputs, ctx.extents, ctx.size, ctx.eps2d = inputs, arrays.extents, size, float(eps2d)
        means2d, conics, depths, _ = outputs
        return (
            torch.from_numpy(means2d),
            torch.from_numpy(conics),
            torch.from_numpy(depths.reshape(cameras, count)),
        )

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        grad_means2d: Tensor | None,
        grad_conics: Tensor | None,
        grad_depths: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        means, quats, scales, _, _ = ctx.saved_tensors
        cameras, count = ctx.extents.shape[:2]
        shape = (cameras, count)
        upstream = tuple(
            np.zeros((*shape, n), np.float32) if grad is None else array(grad).reshape(*shape, n)
            for grad, n in ((grad_means2d, 2), (grad_conics, 3), (grad_depths, 1))
        )
        grads = [empty(*shape, n) for n in (3, 4, 3)]
        grad_cameras = np.zeros((cameras, -(-count // BLOCK), 16), np.float32)
        need_intrinsics, need_pose = ctx.needs_input_grad[4:6]
        on_ranges(
            thread_count(cameras * count, _PROJECT_GRAIN),
            grad_cameras.shape[0] * grad_cameras.shape[1],
            project_backward,
            *ctx.inputs,
            ctx.size,
            ctx.eps2d,
            ctx.extents,
            upstream,
            (*grads, grad_cameras),
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
            gradient(grads[0], means.shape),
            gradient(grads[1], quats.shape),
            gradient(grads[2], scales.shape),
            None,
            grad_intrinsics,
            grad_pose,
            None,
            None,
            None,
        )


class _Blend(torch.autograd.Function):
    """Blend features [C or 1, G, D] of Gaussians that `_Project` has projected into C cameras.

    Further inputs are means2d, conics and depths as `_Project` returns them, `arrays` as it fills
    them, opacities [C or 1, G], `size` (width, height) px and `with_depth`.

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
        arrays: _Projected,
        size: tuple[int, int],
        with_depth: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        cameras, count = arrays.depths.shape[:2]
        blended, opacity = by_camera(features, 2), arrays.opacities
        if len(opacity) < cameras:
            opacity = np.ascontiguousarray(np.broadcast_to(opacity, (cameras, count, 1)))
        conics_of_instances, opacity = arrays.conics.reshape(-1, 3), opacity.reshape(-1, 1)
        depths_of_instances, extents = arrays.depths.reshape(-1, 1), arrays.extents.reshape(-1, 2)
        threads = thread_count(cameras * count, _BIN_GRAIN)
        records, boxes = pack_records(
            arrays.means2d.reshape(-1, 2),
            conics_of_instances,
            opacity,
            blended.reshape(-1, blended.shape[2]),
            depths_of_instances,
            extents,
            with_depth=with_depth,
            size=size,
            threads=threads,
        )
        order = order_by_depth(
            arrays.order.reshape(-1, 1), extents, thread_count(cameras * count, _SORT_GRAIN)
        )
        offsets, entries, *slots = bin_tiles(order, records, boxes, cameras, size, threads)

        width, height = size
        channels = (0,) * (blended.shape[2] + with_depth)
        image = aligned(cameras, height, width, blended.shape[2])
        depth_image = aligned(cameras, height, width, int(with_depth))
        alpha = aligned(cameras, height, width)
        tiles = len(offsets) - 1
        saved = (*aligned(2, tiles * TILE_PIXELS), np.empty(tiles, np.int64))
        on_threads(
            thread_count(len(entries), _BLEND_GRAIN),
            blend_forward,
            np.zeros(1, np.int64),
            offsets,
            entries,
            records,
            size,
            channels,
            (image.reshape(-1), depth_image.reshape(-1), alpha.reshape(-1), *saved),
        )
        ctx.save_for_backward(opacities, features)
        ctx.set_materialize_grads(False)
        ctx.lists = (offsets, entries, slots, records, saved)
        ctx.arrays = (conics_of_instances, opacity)
        ctx.options = (cameras, count, size, channels, with_depth)
        depth = depth_image.reshape(cameras, height, -1 if with_depth else 0)
        return torch.from_numpy(image), torch.from_numpy(alpha), torch.from_numpy(depth)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_image: Tensor | None, grad_alpha: Tensor | None, grad_depth: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        opacities, features = ctx.saved_tensors
        offsets, entries, slots, records, saved = ctx.lists
        cameras, count, size, channels, with_depth = ctx.options
        upstream = tuple(
            empty(0) if grad is None else array(grad).reshape(-1)
            for grad in (grad_image, grad_depth, grad_alpha)
        )
        columns = -(-(MOMENTS + len(channels)) // WIDTH) * WIDTH
        sums = aligned(len(entries), columns)
        on_threads(
            thread_count(len(entries), _BLEND_GRAIN),
            blend_backward,
            np.zeros(1, np.int64),
            offsets,
            entries,
            records,
            size,
            channels,
            with_depth,
            saved,
            upstream,
            sums,
        )
        grads = [empty(cameras * count, n) for n in (2, 3, 1, features.shape[-1], 1)]
        on_ranges(
            thread_count(cameras * count, _BIN_GRAIN),
            cameras * count,
            gather_gradients,
            *slots,
            sums,
            *ctx.arrays,
            with_depth,
            tuple(grads),
        )
        return (
            torch.from_numpy(grads[0].reshape(cameras, count, 2)),
            torch.from_numpy(grads[1].reshape(cameras, count, 3)),
            gradient(grads[2].reshape(cameras, count), opacities.shape),
            gradient(grads[3].reshape(cameras, count, features.shape[-1]), features.shape),
            torch.from_numpy(grads[4].reshape(cameras, count)),
            None,
            None,
            None,
        )
