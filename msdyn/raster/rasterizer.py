"""Entry point of the rasterizer: gsplat on CUDA, Numba kernels on a CPU."""

from __future__ import annotations

import functools

from jaxtyping import Float
from torch import Tensor

from msdyn.errors import InputError
from msdyn.raster.contract import Backend, Rendering, check_arguments

__all__ = ["BACKENDS", "rasterize"]

BACKENDS = ("auto", "cpu", "gsplat")


def rasterize(
    means: Float[Tensor, "*#cameras gaussians 3"],
    quats_wxyz: Float[Tensor, "*#cameras gaussians 4"],
    scales: Float[Tensor, "gaussians 3"],
    opacities: Float[Tensor, "*#cameras gaussians"],
    features: Float[Tensor, "*#cameras gaussians channels"],
    intrinsics: Float[Tensor, "cameras 3 3"],
    cam_from_world: Float[Tensor, "cameras 4 4"],
    width: int,
    height: int,
    *,
    depth: bool = False,
    background: Float[Tensor, " channels"] | None = None,
    order: Float[Tensor, "cameras gaussians"] | None = None,
    near: float = 0.01,
    far: float = 1e10,
    eps2d: float = 0.3,
    backend: str = "auto",
) -> Rendering:
    """Render Gaussians in C cameras, differentiably in every tensor.

    Only the CPU backend has gradients of the intrinsics; the gsplat backend refuses intrinsics
    that require one. The CPU backend culls Gaussians whose position, shape or opacity is not finite
    or whose quaternion is zero; the result of gsplat for such Gaussians is undefined.

    Each of `means`, `quats_wxyz`, `opacities` and `features` may have a leading camera axis, so
    that every camera of a batch observes the scene at its own time; without it all cameras share
    the values.

    Args:
        means: world positions, scene units.
        quats_wxyz: orientations, not necessarily unit.
        scales: standard deviations along the axes, scene units, positive.
        opacities: in [0, 1].
        features: any number of channels to blend, such as colour, mask and positions at another
            time; finite.
        intrinsics: pinhole matrices in pixels, pixel centres at +0.5.
        cam_from_world: rigid transforms, OpenCV axes.
        width: image width in pixels.
        height: image height in pixels.
        depth: also blend the z-depth.
        background: features of the background, zero by default.
        order: positive keys by which Gaussians are sorted, in place of the z-depth, least first.
        near: minimum z-depth, scene units, positive; Gaussians in front of it are culled.
        far: maximum z-depth, scene units; Gaussians beyond it are culled.
        eps2d: added to the diagonal of the 2D covariances, px^2.
        backend: one of `BACKENDS`; "auto" selects "gsplat" for CUDA tensors and "cpu" otherwise.

    Returns:
        Blended features, alpha and depth of every camera, and gsplat's `info`.

    Raises:
        InputError: an unknown backend, tensors on a device that the backend does not support,
            inconsistent shapes, no channel, an image without pixels, `near` not above zero, or
            intrinsics that require a gradient with the gsplat backend.

    Reference: Kerbl et al. 2023; Eq. 3-5 of Gaussian Sequences with Multi-Scale Dynamics.
    """
    check_arguments(
        means, quats_wxyz, scales, opacities, features, intrinsics, cam_from_world, background,
        order, width, height, near,
    )  # fmt: skip
    if backend not in BACKENDS:
        raise InputError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "auto":
        backend = "gsplat" if means.is_cuda else "cpu"
    return _load_backend(backend)(
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
        order=order,
        near=near,
        far=far,
        eps2d=eps2d,
    )


@functools.cache
def _load_backend(backend: str) -> Backend:
    """Return the function of a backend, importing gsplat or Numba only when it is needed."""
    if backend == "gsplat":
        from msdyn.raster.gsplat_cuda import rasterize_gsplat

        return rasterize_gsplat
    from msdyn.raster.cpu.rasterize import rasterize_cpu

    return rasterize_cpu
