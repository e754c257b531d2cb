"""Our wrapper of gsplat: batches, padding, conversions; test_rasterizer.py compares its values."""

from __future__ import annotations

import emulated_gsplat
import pytest
import torch
from scenes import Scene, draw, errors, gpu, random_scene

from msdyn.errors import InputError
from msdyn.raster import gsplat_cuda

either = pytest.mark.parametrize("backend", ["emulated", pytest.param("gsplat", marks=gpu)])


def test_a_batch_is_one_call_of_each_kernel(monkeypatch):
    """Three cameras with Gaussians of their own, 20 channels and the depth."""
    calls = []

    def recorded(name, kernel):
        def call(*arguments):
            calls.append(name)
            return kernel(*arguments)

        return call

    for name, kernel in emulated_gsplat.KERNELS.items():
        monkeypatch.setitem(emulated_gsplat.KERNELS, name, recorded(name, kernel))
    scene = random_scene(31, cameras=3, channels=20, own=True, background=True)
    rendering, _ = draw(scene, "emulated", grad=True)
    (rendering.features.sum() + rendering.alpha.sum()).backward()
    assert calls == [
        "projection_ewa_3dgs_fused_fwd",
        "intersect_tile",
        "intersect_offset",
        "rasterize_to_pixels_3dgs_fwd",
        "rasterize_to_pixels_3dgs_bwd",
        "projection_ewa_3dgs_fused_bwd",
    ]


def greatest_gradient_error(scene: Scene, backend: str) -> float:
    report = errors(scene, backend)
    return max(error for name, error in report.items() if name.startswith("gradient"))


@pytest.mark.parametrize("gaussians", [10, 50])
def test_gradients_of_batch_entries_do_not_mix(monkeypatch, gaussians):
    """Gradients of cameras and Gaussians are correct, and wrong without the appended Gaussians."""
    scene = random_scene(32, gaussians=gaussians, cameras=3, own=True)
    assert greatest_gradient_error(scene, "emulated") < 1e-4
    monkeypatch.setattr(gsplat_cuda, "_WARP", 1)
    assert greatest_gradient_error(scene, "emulated") > 1e-2


@pytest.mark.parametrize(
    ("own", "gaussians", "with_cameras", "projected"),
    [
        (True, 50, True, 64),
        (True, 64, True, 64),
        (True, 50, False, 50),
        (True, 10, False, 32),
        (False, 10, True, 10),
        (False, 0, False, 32),
    ],
)
def test_gaussians_are_appended_only_where_necessary(
    monkeypatch, own, gaussians, with_cameras, projected
):
    """A training step without camera gradients does not pay for copies with appended Gaussians."""
    counts = []
    forward = emulated_gsplat.project_forward

    def spy(means, *others):
        counts.append(means.shape[-2])
        return forward(means, *others)

    monkeypatch.setitem(emulated_gsplat.KERNELS, "projection_ewa_3dgs_fused_fwd", spy)
    scene = random_scene(33, gaussians=gaussians, cameras=2, own=own)
    rendering, _ = draw(scene, "emulated", grad=with_cameras)
    assert counts == [projected]
    assert rendering.info["means2d"].shape == (2, gaussians, 2)
    assert rendering.info["radii"].shape == (2, gaussians, 2)
    assert rendering.info["depths"].shape == (2, gaussians)


def test_double_precision_is_converted():
    """gsplat's kernels interpret the memory of any tensor as float32."""
    scene = random_scene(34)
    tensors = scene.tensors()
    unchecked = getattr(gsplat_cuda.rasterize_gsplat, "__wrapped__", gsplat_cuda.rasterize_gsplat)
    with emulated_gsplat.cpu_accepted_as_cuda():
        rendering = unchecked(
            *tensors.values(),
            scene.width,
            scene.height,
            depth=True,
            background=torch.ones(3, dtype=torch.float64),
            near=0.01,
            far=1e10,
            eps2d=0.3,
        )
    assert rendering.features.dtype == torch.float32


@either
def test_gradients_of_intrinsics_are_refused(backend):
    scene = random_scene(35)
    device = "cuda" if backend == "gsplat" else "cpu"
    tensors = {name: value.float().to(device) for name, value in scene.tensors().items()}
    tensors["intrinsics"].requires_grad_()
    with (
        emulated_gsplat.cpu_accepted_as_cuda(),
        pytest.raises(InputError, match="gsplat has no gradient of intrinsics"),
    ):
        gsplat_cuda.rasterize_gsplat(
            *tensors.values(),
            scene.width,
            scene.height,
            depth=False,
            background=None,
            near=0.01,
            far=1e10,
            eps2d=0.3,
        )


@either
@pytest.mark.parametrize("own", [False, True])
def test_both_backends_render_the_same(backend, own):
    """Two thousand Gaussians in two cameras, images and gradients, no pixel excluded.

    With emulated kernels, values differ by at most 2e-5 and gradients by 6e-6 of their norm. On a
    GPU, whose exponential function rounds differently, a pixel may fall on the other side of the
    alpha cut.
    """
    scene = random_scene(36, gaussians=2000, cameras=2, own=own, spread=0.06)
    results = []
    for name in ("cpu", backend):
        rendering, tensors = draw(scene, name, grad=True)
        assert rendering.depth is not None
        ((rendering.features**2).sum() + rendering.alpha.sum() + rendering.depth.mean()).backward()
        grads = {k: t.grad.cpu() for k, t in tensors.items() if t.grad is not None}
        grads.pop("intrinsics", None)
        images = [rendering.features, rendering.alpha[..., None], rendering.depth[..., None]]
        results.append((torch.cat(images, -1).detach().cpu(), grads))
    (image, grads), (other_image, other_grads) = results
    difference = (image - other_image).abs()
    assert (difference > 1e-4).double().mean() < 1e-3
    assert difference.max() < 0.05
    assert grads.keys() == other_grads.keys()
    for name, grad in grads.items():
        assert (grad - other_grads[name]).norm() < 1e-3 * grad.norm(), name
