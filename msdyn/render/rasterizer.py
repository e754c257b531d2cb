"""The contract of both rasterizers, with the semantics of gsplat's `rasterization`.

Gaussians are projected by the local affine approximation, blurred by `eps2d` px^2, sorted by depth
and blended front to back. A contribution below 1/255 is skipped, opacity is capped at 0.999, and a
pixel is finished before its transmittance would fall to 1e-4. Every channel goes through in
one pass. Backends: gsplat on CUDA, Numba kernels on a CPU. Both compute in float32.

gsplat bounds a Gaussian by whole tiles and the CPU kernels by the ellipse where alpha reaches the
cut. As that lies inside gsplat's box for any opacity up to one, both draw the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from msdyn.errors import InputError

__all__ = ["BACKENDS", "Rendering", "rasterize"]

BACKENDS = ("auto", "cpu", "gsplat")


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


def rasterize(
    means: Float[Tensor, "*#cameras gaussians 3"],
    quats_wxyz: Float[Tensor, "*#cameras gaussians 4"],
    scales: Float[Tensor, "gaussians 3"],
    opacities: Float[Tensor, " gaussians"],
    features: Float[Tensor, "*#cameras gaussians channels"],
    intrinsics: Float[Tensor, "cameras 3 3"],
    cam_from_world: Float[Tensor, "cameras 4 4"],
    width: int,
    height: int,
    *,
    depth: bool = False,
    background: Float[Tensor, " channels"] | None = None,
    near: float = 0.01,
    far: float = 1e10,
    eps2d: float = 0.3,
    backend: str = "auto",
) -> Rendering:
    """Render Gaussians in C cameras, differentiably in every tensor.

    The gradient of the intrinsics is the CPU's alone; gsplat has none and says so. On a CPU a
    Gaussian is not drawn whose position, shape or opacity is not finite or whose quaternion is
    zero; what gsplat draws then is undefined.

    `means`, `quats_wxyz` and `features` may carry a leading camera axis each, so that every camera
    of a batch sees the scene at its own time; without it all cameras share them.

    Args:
        means: world positions, scene units.
        quats_wxyz: orientations, not necessarily unit.
        scales: standard deviations along the axes, scene units, positive.
        opacities: in [0, 1].
        features: any number of channels, such as colour, mask and positions at another time;
            finite.
        intrinsics: pinhole matrices in pixels, pixel centres at +0.5.
        cam_from_world: OpenCV axes.
        width: image width in pixels.
        height: image height in pixels.
        depth: return the blended z-depth too.
        background: colour behind all Gaussians, zero by default.
        near: Gaussians nearer than this z-depth are not drawn; positive.
        far: nor those beyond this one.
        eps2d: added to the diagonal of the 2D covariances, px^2.
        backend: "auto" takes "gsplat" for CUDA tensors and "cpu" otherwise.

    Raises:
        InputError: an unknown backend, tensors on a device that the backend cannot use, shapes that
            do not go together, no channel, an image without pixels, or `near` not above zero.

    Reference: Kerbl et al. 2023; Eq. 3-5 of Gaussian Sequences with Multi-Scale Dynamics.
    """
    _check(means, quats_wxyz, scales, opacities, features, intrinsics, cam_from_world, background)
    if width < 1 or height < 1:
        raise InputError(f"image size: expected at least 1x1, got {width}x{height}")
    if not near > 0:
        raise InputError(f"near: expected a positive depth, got {near}")
    if backend not in BACKENDS:
        raise InputError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "auto":
        backend = "gsplat" if means.is_cuda else "cpu"
    if backend == "gsplat":
        from msdyn.render.gsplat_cuda import rasterize_gsplat as implementation
    else:
        from msdyn.render.numba_cpu import rasterize_cpu as implementation
    return implementation(
        means,
        quats_wxyz,
        scales,
        opacities,
        features,
        intrinsics,
        cam_from_world,
        width,
        height,
        depth=depth,
        background=background,
        near=near,
        far=far,
        eps2d=eps2d,
    )


def _check(
    means: Tensor,
    quats_wxyz: Tensor,
    scales: Tensor,
    opacities: Tensor,
    features: Tensor,
    intrinsics: Tensor,
    cam_from_world: Tensor,
    background: Tensor | None,
) -> None:
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
