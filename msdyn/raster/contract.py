"""The contract of all rasterizer backends: the semantics of gsplat's `rasterization`.

Gaussians are projected by the local affine approximation, `eps2d` px^2 is added to the diagonal of
their 2D covariances, and they are sorted by depth, or by given keys, and blended front to back. A
contribution whose alpha is below `ALPHA_CUT` is skipped, alpha is capped at `MAX_ALPHA`, and
blending of a pixel stops before the Gaussian that would reduce its transmittance to
`MIN_TRANSMITTANCE` or less. All channels share one projection and are blended in float32.

gsplat bounds a Gaussian by whole tiles, the CPU kernels bound it by the ellipse on which alpha
equals the cut. That ellipse lies inside gsplat's box for any opacity up to one, so both backends
blend the same pixels.

Reference: Kerbl et al. 2023; gsplat 1.5.3; Eq. 3-5 of Gaussian Sequences with Multi-Scale Dynamics.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from msdyn.errors import InputError

__all__ = ["ALPHA_CUT", "MAX_ALPHA", "MIN_TRANSMITTANCE", "Backend", "Rendering", "check_arguments"]

ALPHA_CUT = 1 / 255
MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4


@dataclass
class Rendering:
    """Images of C cameras.

    Attributes:
        features: [C, H, W, D] blended features, including the background if one was given.
        alpha: [C, H, W] accumulated opacity in [0, 1].
        depth: [C, H, W] blended z-depth in scene units, not divided by alpha; None if `depth` was
            False.
        info: the entries that gsplat's densification strategies read: `means2d` [C, G, 2] px (part
            of the graph, so its gradient can be retained), `radii` [C, G, 2] px (0 for culled
            Gaussians), `depths` [C, G], `width`, `height`, `n_cameras`, `gaussian_ids` (None).
    """

    features: Tensor
    alpha: Tensor
    depth: Tensor | None
    info: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Backend(Protocol):
    """The signature of a backend: that of `rasterize` without `backend`, with checked arguments."""

    def __call__(
        self,
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
    ) -> Rendering: ...


def check_arguments(
    means: Tensor,
    quats_wxyz: Tensor,
    scales: Tensor,
    opacities: Tensor,
    features: Tensor,
    intrinsics: Tensor,
    cam_from_world: Tensor,
    background: Tensor | None,
    order: Tensor | None,
    width: int,
    height: int,
    near: float,
) -> None:
    """Raise `InputError` if arguments of `rasterize` have inconsistent shapes or bad values."""
    if width < 1 or height < 1:
        raise InputError(f"image size: expected at least 1x1, got {width}x{height}")
    if not near > 0:
        raise InputError(f"near: expected a positive depth, got {near}")
    cameras, gaussians = cam_from_world.shape[0], scales.shape[0]
    if features.shape[-1] < 1:
        raise InputError("features: expected at least one channel, got none")
    expected = {
        "means": (means, gaussians, 3),
        "quats_wxyz": (quats_wxyz, gaussians, 4),
        "features": (features, gaussians, features.shape[-1]),
        "opacities": (opacities, gaussians),
    }
    for name, (value, *shape) in expected.items():
        given = list(value.shape)
        if given != shape and given not in ([1, *shape], [cameras, *shape]):
            raise InputError(f"{name}: expected {shape} or {[cameras, *shape]}, got {given}")
    if intrinsics.shape != (cameras, 3, 3):
        raise InputError(f"intrinsics: expected [{cameras}, 3, 3], got {list(intrinsics.shape)}")
    if background is not None and background.shape != features.shape[-1:]:
        raise InputError(
            f"background: expected {list(features.shape[-1:])}, got {list(background.shape)}"
        )
    if order is not None and order.shape != (cameras, gaussians):
        raise InputError(f"order: expected {[cameras, gaussians]}, got {list(order.shape)}")
    others = (quats_wxyz, scales, opacities, features, intrinsics, cam_from_world)
    if order is not None:
        others = (*others, order)
    if any(other.device != means.device for other in others):
        devices = {means.device, *(other.device for other in others)}
        raise InputError(f"rasterize: expected tensors on one device, got {devices}")
    if not torch.is_floating_point(means):
        raise InputError(f"means: expected floating point, got {means.dtype}")
