"""What every rasterizer backend computes and returns: the semantics of gsplat's `rasterization`.

Gaussians are projected by the local affine approximation, blurred by `eps2d` px^2, sorted by depth
and blended front to back. A contribution below `ALPHA_CUT` is skipped, opacity is capped at
`MAX_ALPHA`, and a pixel is finished before its transmittance would fall to `MIN_TRANSMITTANCE`. All
channels are blended in one pass, in float32.

gsplat bounds a Gaussian by whole tiles and the CPU kernels by the ellipse where alpha reaches the
cut. As that lies inside gsplat's box for any opacity up to one, both draw the same pixels.

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
    """What a rasterizer returns for C cameras.

    Attributes:
        features: [C, H, W, D] blended features, the background added where one was given.
        alpha: [C, H, W] accumulated opacity in [0, 1].
        depth: [C, H, W] blended z-depth, not divided by alpha; None unless asked for.
        info: what gsplat's strategies read: `means2d` [C, G, 2] px (part of the graph, so its
            gradient can be retained), `radii` [C, G, 2] px, 0 where not drawn, `depths` [C, G],
            `width`, `height`, `n_cameras`, `gaussian_ids` (None).
    """

    features: Tensor
    alpha: Tensor
    depth: Tensor | None
    info: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Backend(Protocol):
    """A backend: `rasterize` with arguments that are checked, without the choice of the backend."""

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
    width: int,
    height: int,
    near: float,
) -> None:
    """Raise `InputError` for arguments of `rasterize` that do not go together."""
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
    }
    for name, (value, *shape) in expected.items():
        if tuple(value.shape) not in {tuple(shape), (cameras, *shape)}:
            raise InputError(
                f"{name}: expected {shape} or {[cameras, *shape]}, got {list(value.shape)}"
            )
    if opacities.shape != (gaussians,):
        raise InputError(f"opacities: expected [{gaussians}], got {list(opacities.shape)}")
    if intrinsics.shape != (cameras, 3, 3):
        raise InputError(f"intrinsics: expected [{cameras}, 3, 3], got {list(intrinsics.shape)}")
    if background is not None and background.shape != features.shape[-1:]:
        raise InputError(
            f"background: expected {list(features.shape[-1:])}, got {list(background.shape)}"
        )
    devices = {t.device for t in (means, quats_wxyz, scales, opacities, features, intrinsics)}
    if len(devices | {cam_from_world.device}) != 1:
        raise InputError(f"rasterize: expected tensors on one device, got {devices}")
    if not torch.is_floating_point(means):
        raise InputError(f"means: expected floating point, got {means.dtype}")
