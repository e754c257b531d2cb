"""gsplat 1.5.3's CUDA kernels emulated in torch on a CPU, in float32, including their bugs.

gsplat's Python code (checks, padding, autograd functions) runs unchanged; the six functions in
`KERNELS` replace its compiled functions. They make the same checks, apply the same rules with the
same order of rounding, return NaN for values that the kernels leave uninitialised, and reduce
camera gradients by warp as the kernels do. So our wrapper and the effect of float32 in gsplat can
be tested without a GPU.

They are written from the rules of the kernels; gradients of the projection come from autograd.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import oracle
import pytest
import torch
from torch import Tensor

WARP = 32


def check(*tensors: Tensor) -> None:
    """Assert the layout and types that the CUDA kernels assume."""
    for tensor in tensors:
        assert tensor.is_contiguous()
        assert tensor.dtype in (torch.float32, torch.int32, torch.int64)


def project(means, quats, scales, opacities, viewmats, intrinsics, size, limits):
    """Project n Gaussians, each in its own camera, with gsplat's order of rounding.

    Returns:
        means2d [n, 2], depths [n], conics [n, 3] and radii [n, 2], zero for culled Gaussians.
    """
    (width, height), (near, far, eps2d) = size, limits
    rotations, translations = viewmats[:, :3, :3], viewmats[:, :3, 3]
    x, y, z = ((rotations @ means[..., None]).squeeze(-1) + translations).unbind(-1)
    root = oracle.rotations(quats) * scales[:, None, :]
    covariance = rotations @ (root @ root.mT) @ rotations.mT
    fx, fy = intrinsics[:, 0, 0], intrinsics[:, 1, 1]
    cx, cy = intrinsics[:, 0, 2], intrinsics[:, 1, 2]
    u = (x / z).clamp(-(cx + 0.15 * width) / fx, (1.15 * width - cx) / fx)
    v = (y / z).clamp(-(cy + 0.15 * height) / fy, (1.15 * height - cy) / fy)
    zero = torch.zeros_like(z)
    rows = [
        torch.stack([fx / z, zero, -fx * u / z], -1),
        torch.stack([zero, fy / z, -fy * v / z], -1),
    ]
    jacobian = torch.stack(rows, -2)
    flat = jacobian @ covariance @ jacobian.mT
    a, b, c = flat[:, 0, 0] + eps2d, flat[:, 0, 1], flat[:, 1, 1] + eps2d
    determinant = a * c - b * b
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    extent = (2 * (opacities * 255).log()).sqrt().clamp(max=3.33)
    radii = (extent[:, None] * torch.stack([a, c], -1).sqrt()).ceil()
    inside = (means2d + radii > 0) & (means2d - radii < torch.tensor([width, height]))
    visible = (z >= near) & (z <= far) & (determinant > 0) & (opacities >= 1 / 255)
    visible = visible & inside.all(-1) & (radii > 0).any(-1)
    conics = torch.stack([c, -b, a], -1) / determinant[:, None]
    return means2d, z, conics, torch.where(visible[:, None], radii, 0).int()


def thread_inputs(means, quats, scales, opacities, viewmats, intrinsics):
    """Return the inputs of all threads, one per batch entry, camera and Gaussian."""
    cameras, count = viewmats.shape[-3], means.shape[-2]
    batches = means.numel() // (count * 3)  # like gsplat, fails if there is no Gaussian

    def of_gaussian(value: Tensor, *shape: int) -> Tensor:
        value = value.reshape(batches, 1, count, *shape)
        return value.expand(batches, cameras, count, *shape).flatten(0, 2)

    def of_camera(value: Tensor, *shape: int) -> Tensor:
        value = value.reshape(batches, cameras, 1, *shape)
        return value.expand(batches, cameras, count, *shape).flatten(0, 2)

    opacities = torch.ones_like(means[..., 0]) if opacities is None else opacities
    return (
        of_gaussian(means, 3),
        of_gaussian(quats, 4),
        of_gaussian(scales, 3),
        of_gaussian(opacities),
        of_camera(viewmats, 4, 4),
        of_camera(intrinsics, 3, 3),
    )


def project_forward(
    means,
    covars,
    quats,
    scales,
    opacities,
    viewmats,
    intrinsics,
    width,
    height,
    eps2d,
    near,
    far,
    *rest,
):
    check(means, quats, scales, opacities, viewmats, intrinsics)
    assert covars is None and rest[:2] == (0.0, False)
    inputs = thread_inputs(means, quats, scales, opacities, viewmats, intrinsics)
    size, limits = (width, height), (near, far, eps2d)
    mean2d, depth, conic, radii = project(*inputs, size, limits)
    unwritten = (radii == 0).any(-1)
    shape = (*viewmats.shape[:-2], means.shape[-2])
    for value in (mean2d, depth, conic):
        value[unwritten] = math.nan
    return (
        radii.reshape(*shape, 2),
        mean2d.reshape(*shape, 2),
        depth.reshape(shape),
        conic.reshape(*shape, 3),
        None,
    )


def project_backward(
    means,
    covars,
    quats,
    scales,
    viewmats,
    intrinsics,
    width,
    height,
    eps2d,
    _,
    radii,
    conics,
    *rest,
):
    _, grad_means2d, grad_depths, grad_conics, _, with_viewmats = rest
    check(means, quats, scales, viewmats, intrinsics, radii, conics, grad_means2d, grad_depths)
    check(grad_conics)
    assert covars is None
    active = (radii.reshape(-1, 2) > 0).all(-1).nonzero().squeeze(1)
    threads = [
        value[active] for value in thread_inputs(means, quats, scales, None, viewmats, intrinsics)
    ]
    leaves = [value.detach().requires_grad_() for value in threads]
    options = ((width, height), (-math.inf, math.inf, eps2d))
    with torch.enable_grad():
        outputs = project(*leaves, *options)[:3]
    upstream = [grad_means2d.reshape(-1, 2), grad_depths.reshape(-1), grad_conics.reshape(-1, 3)]
    grads = torch.autograd.grad(
        outputs, [*leaves[:3], leaves[4]], [value[active] for value in upstream]
    )
    count, cameras = means.shape[-2], viewmats.shape[-3]
    gaussians, camera = active % count, active // count % cameras
    batch = active // (count * cameras)
    results = []
    for grad, inputs, label, every in (
        (grads[0], means, gaussians, count),
        (grads[1], quats, gaussians, count),
        (grads[2], scales, gaussians, count),
        (grads[3], viewmats, camera, cameras),
    ):
        # Threads of a warp with equal labels are summed; the first of them adds the sum to the row
        # of its own batch entry.
        result = torch.zeros_like(inputs)
        rows = result.view(-1, every, *grad.shape[1:])
        first: dict[tuple[int, int], int] = {}
        for i in range(len(active)):
            key = (int(active[i]) // WARP, int(label[i]))
            rows[batch[first.setdefault(key, i)], label[i]] += grad[i]
        results.append(result)
    results[3][..., 3, :] = 0
    return results[0], None, results[1], results[2], results[3] if with_viewmats else None


def intersect_tile(
    means2d, radii, depths, image_ids, gaussian_ids, images, tile, tiles_x, tiles_y, sort, segmented
):
    check(means2d, radii, depths)
    assert image_ids is gaussian_ids is None and sort and not segmented and means2d.ndim > 2
    count = means2d.shape[-2]
    tiles_per_gaussian = torch.zeros(images * count, dtype=torch.int32)
    intersections = []
    for i in range(images * count):
        radius = radii.reshape(-1, 2)[i].float()
        if (radius <= 0).any():
            continue
        mean = means2d.reshape(-1, 2)[i]
        limit = torch.tensor([tiles_x, tiles_y])
        low = ((mean / tile - radius / tile).floor().clamp(min=0)).minimum(limit).int().tolist()
        high = ((mean / tile + radius / tile).ceil().clamp(min=0)).minimum(limit).int().tolist()
        for row in range(low[1], high[1]):
            for column in range(low[0], high[0]):
                number = row * tiles_x + column
                intersections.append((i // count, number, depths.reshape(-1)[i].item(), i))
        tiles_per_gaussian[i] = (high[0] - low[0]) * (high[1] - low[1])
    intersections.sort(key=lambda entry: entry[:3])
    keys = [image << 48 | number for image, number, _, _ in intersections]
    ids = [entry[3] for entry in intersections]
    return (
        tiles_per_gaussian.reshape(depths.shape),
        torch.tensor(keys, dtype=torch.int64),
        torch.tensor(ids, dtype=torch.int32),
    )


def intersect_offset(keys, images, tiles_x, tiles_y):
    check(keys)
    tiles = tiles_x * tiles_y
    numbers = (keys >> 48) * tiles + (keys & (1 << 48) - 1)
    offsets = torch.searchsorted(numbers, torch.arange(images * tiles))
    return offsets.int().reshape(images, tiles_y, tiles_x)


def tile_lists(means2d, offsets, ids, width, height, tile):
    """Yield the image, rows, columns, pixel centres and list of Gaussians of each tile."""
    images, tiles_y, tiles_x = offsets.shape
    ends = torch.cat([offsets.flatten()[1:], torch.tensor([len(ids)], dtype=torch.int32)])
    for number, (start, end) in enumerate(zip(offsets.flatten(), ends, strict=True)):
        image, within = divmod(number, tiles_y * tiles_x)
        top, left = within // tiles_x * tile, within % tiles_x * tile
        rows, columns = slice(top, min(top + tile, height)), slice(left, min(left + tile, width))
        ys, xs = torch.meshgrid(
            torch.arange(rows.start, rows.stop),
            torch.arange(columns.start, columns.stop),
            indexing="ij",
        )
        pixels = torch.stack([xs, ys], -1).reshape(-1, 1, 2).float() + 0.5
        yield image, rows, columns, pixels, ids[start:end].long()


def alphas(pixels, means2d, conics, opacities):
    """Return delta [P, N, 2], exp(-sigma) [P, N] and alpha [P, N], zero below the cut."""
    delta = means2d - pixels
    dx, dy = delta.unbind(-1)
    sigma = 0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) + conics[:, 1] * dx * dy
    value = (-sigma).exp()
    alpha = (opacities * value).clamp(max=0.999)
    return delta, value, torch.where((sigma < 0) | (alpha < 1 / 255), 0.0, alpha)


def blend_forward(
    means2d, conics, colors, opacities, backgrounds, masks, width, height, tile, offsets, ids
):
    check(
        means2d,
        conics,
        colors,
        opacities,
        offsets,
        ids,
        *([] if backgrounds is None else [backgrounds]),
    )
    assert masks is None and means2d.ndim == 3 and offsets.ndim == 3
    images, channels = len(offsets), colors.shape[-1]
    assert channels in (1, 2, 3, 4, 5, 8, 9, 16, 17, 32)
    rendered = torch.empty(images, height, width, channels)
    alpha_image = torch.empty(images, height, width, 1)
    flat = [value.flatten(0, 1) for value in (means2d, conics, opacities, colors)]
    for image, rows, columns, pixels, listed in tile_lists(
        means2d, offsets, ids, width, height, tile
    ):
        points, shapes, opaque, features = (value[listed] for value in flat)
        _, _, alpha = alphas(pixels, points, shapes, opaque)
        transmittance = (1 - alpha).cumprod(1)
        alpha = torch.where(transmittance > 1e-4, alpha, 0.0)
        transmittance = torch.cat([torch.ones(len(pixels), 1), (1 - alpha).cumprod(1)], 1)
        colour = (alpha * transmittance[:, :-1]) @ features
        if backgrounds is not None:
            colour = colour + transmittance[:, -1:] * backgrounds[image]
        shape = (rows.stop - rows.start, columns.stop - columns.start, -1)
        rendered[image, rows, columns] = colour.reshape(shape)
        alpha_image[image, rows, columns] = (1 - transmittance[:, -1]).reshape(shape)
    return rendered, alpha_image, torch.zeros(images, height, width, dtype=torch.int32)


def blend_backward(
    means2d, conics, colors, opacities, backgrounds, masks, width, height, tile, offsets, ids, *rest
):
    alpha_image, last, grad_image, grad_alpha, absgrad = rest
    check(means2d, conics, colors, opacities, offsets, ids, alpha_image, last, grad_image)
    check(grad_alpha)
    assert masks is None and not absgrad
    inputs = (means2d, conics, colors, opacities)
    flat = [value.flatten(0, 1) for value in inputs]
    grads = [torch.zeros_like(value) for value in flat]
    for image, rows, columns, pixels, listed in tile_lists(
        means2d, offsets, ids, width, height, tile
    ):
        points, shapes, features, opaque = (value[listed] for value in flat)
        delta, value, alpha = alphas(pixels, points, shapes, opaque)
        alpha = torch.where((1 - alpha).cumprod(1) > 1e-4, alpha, 0.0)
        over = 1 / (1 - alpha)
        # Transmittance is recovered by division from the final one, which has lost digits since it
        # is computed as 1 - alpha.
        final = 1 - alpha_image[image, rows, columns].reshape(-1, 1)
        transmittance = final * over.flip(1).cumprod(1).flip(1)
        upstream = grad_image[image, rows, columns].flatten(0, 1)  # [P, D]
        weight = alpha * transmittance
        dots = upstream @ features.T  # [P, N]
        later = (weight * dots).flip(1).cumsum(1).flip(1) - weight * dots
        slope = dots * transmittance - later * over
        slope = slope + final * over * grad_alpha[image, rows, columns].reshape(-1, 1)
        if backgrounds is not None:
            slope = slope - final * over * (upstream @ backgrounds[image])[:, None]
        slope = torch.where((alpha > 0) & (opaque * value <= 0.999), slope, 0.0)
        sigma = -opaque * value * slope
        dx, dy = delta.unbind(-1)
        a, b, c = shapes.unbind(-1)
        moments = [
            torch.stack([sigma * (a * dx + b * dy), sigma * (b * dx + c * dy)], -1),
            torch.stack([0.5 * sigma * dx * dx, sigma * dx * dy, 0.5 * sigma * dy * dy], -1),
            weight.unsqueeze(-1) * upstream[:, None],
            value * slope,
        ]
        for grad, moment in zip(grads, moments, strict=True):
            grad.index_add_(0, listed, moment.sum(0))
    return None, *(grad.view_as(value) for grad, value in zip(grads, inputs, strict=True))


KERNELS = {
    "projection_ewa_3dgs_fused_fwd": project_forward,
    "projection_ewa_3dgs_fused_bwd": project_backward,
    "intersect_tile": intersect_tile,
    "intersect_offset": intersect_offset,
    "rasterize_to_pixels_3dgs_fwd": blend_forward,
    "rasterize_to_pixels_3dgs_bwd": blend_backward,
}


@contextmanager
def installed() -> Iterator[None]:
    """Make gsplat call the emulated kernels for tensors on a CPU, forward and backward."""
    from gsplat.cuda import _wrapper

    compiled = _wrapper._make_lazy_cuda_func

    def kernel(name: str) -> Any:
        def call(*arguments: Any) -> Any:
            tensors = [value for value in arguments if isinstance(value, Tensor)]
            if tensors[0].is_cuda:
                return compiled(name)(*arguments)
            with torch.no_grad():
                return KERNELS[name](*arguments)

        return call

    def enumeration(name: str) -> Any:
        return model(name) if torch.cuda.is_available() else name.split(".")[1].lower()

    model = _wrapper._make_lazy_cuda_obj
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_wrapper, "_make_lazy_cuda_func", kernel)
        patch.setattr(_wrapper, "_make_lazy_cuda_obj", enumeration)
        yield


@contextmanager
def cpu_accepted_as_cuda() -> Iterator[None]:
    """Make our wrapper accept tensors on a CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("msdyn.raster.gsplat_cuda._is_on_cuda", lambda tensor: True)
        yield
