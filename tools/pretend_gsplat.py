"""gsplat's compiled functions on the pretend card: shapes, types and plausible values.

gsplat's Python code runs unchanged; the six functions that it takes from its extension are
replaced. They check what the kernels assume (all tensors on the card, contiguous, of the right
types), and return tensors of the shapes and types that the kernels return. Every Gaussian is
visible. What the images show is not computed; `tests/raster/emulated_gsplat.py` does that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from pretend_card import Card, OnCard
from torch import Tensor

__all__ = ["gsplat_on_the_card"]

_TYPES = (torch.float32, torch.int32, torch.int64)
_CHANNELS = (1, 2, 3, 4, 5, 8, 9, 16, 17, 32)


def _project(means: Tensor, covars: Any, quats: Tensor, scales: Tensor, *rest: Any) -> Any:
    views = rest[1]
    shape = (*views.shape[:-2], means.shape[-2])
    radii = torch.ones(*shape, 2, dtype=torch.int32)
    return radii, torch.zeros(*shape, 2), torch.ones(shape), torch.ones(*shape, 3), None


def _project_backward(
    means: Tensor, covars: Any, quats: Tensor, scales: Tensor, views: Tensor, *rest: Any
) -> Any:
    flow = 1e-3 * rest[9].abs().mean()  # of the gradients of the projected means
    gradients = [torch.full_like(value, float(flow)) for value in (means, quats, scales)]
    return gradients[0], None, gradients[1], gradients[2], torch.zeros_like(views)


def _intersect(means2d: Tensor, radii: Tensor, depths: Tensor, *rest: Any) -> Any:
    count = depths.numel()
    keys, ids = torch.arange(count, dtype=torch.int64), torch.arange(count, dtype=torch.int32)
    return torch.ones(depths.shape, dtype=torch.int32), keys, ids


def _offsets(keys: Tensor, images: int, tiles_x: int, tiles_y: int) -> Tensor:
    return torch.zeros(images, tiles_y, tiles_x, dtype=torch.int32)


def _blend(means2d: Tensor, conics: Tensor, colors: Tensor, *rest: Any) -> Any:
    width, height, offsets = rest[3], rest[4], rest[6]
    channels = colors.shape[-1]
    assert channels in _CHANNELS, f"gsplat has no kernel of {channels} channels"
    shape = (len(offsets), height, width)
    return (
        torch.full((*shape, channels), 0.5),
        torch.ones(*shape, 1),
        torch.zeros(shape, dtype=torch.int32),
    )


def _blend_backward(
    means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, *rest: Any
) -> Any:
    flow = 1e-3 * float(rest[-3].abs().mean())  # of the gradients of the image
    values = (means2d, conics, colors, opacities)
    return None, *(torch.full_like(value, flow) for value in values)


_KERNELS: dict[str, Callable[..., Any]] = {
    "projection_ewa_3dgs_fused_fwd": _project,
    "projection_ewa_3dgs_fused_bwd": _project_backward,
    "intersect_tile": _intersect,
    "intersect_offset": _offsets,
    "rasterize_to_pixels_3dgs_fwd": _blend,
    "rasterize_to_pixels_3dgs_bwd": _blend_backward,
}


@contextmanager
def gsplat_on_the_card(card: Card) -> Iterator[None]:
    """Let gsplat call these functions."""
    from gsplat.cuda import _wrapper

    def function(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with card.kernel(name, *arguments) as values:
                for value in values:
                    if isinstance(value, Tensor):
                        assert value.is_contiguous(), f"{name}: a tensor is not contiguous"
                        assert value.dtype in _TYPES, f"{name}: a tensor is {value.dtype}"
                found = _KERNELS[name](*values)
            if isinstance(found, Tensor):
                return OnCard(found)
            return tuple(OnCard(v) if isinstance(v, Tensor) else v for v in found)

        return call

    with (
        mock.patch.object(_wrapper, "_make_lazy_cuda_func", function),
        mock.patch.object(_wrapper, "_make_lazy_cuda_obj", lambda name: name),
    ):
        yield
