"""The rasterizer's one entry point: gsplat on CUDA, Numba kernels on a CPU."""

from __future__ import annotations

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
    check_arguments(
        means, quats_wxyz, scales, opacities, features, intrinsics, cam_from_world, background,
        width, height, near,
    )  # fmt: skip
    if backend not in BACKENDS:
        raise InputError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "auto":
        backend = "gsplat" if means.is_cuda else "cpu"
    return _implementation(backend)(
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


def _implementation(backend: str) -> Backend:
    if backend == "gsplat":
        from msdyn.raster.gsplat_cuda import rasterize_gsplat

        return rasterize_gsplat
    from msdyn.raster.cpu.rasterize import rasterize_cpu

    return rasterize_cpu
