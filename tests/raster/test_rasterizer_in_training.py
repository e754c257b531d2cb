"""What training needs of the rasterizer: equal bits, threads, and gsplat's density control."""

from __future__ import annotations

import threading

import pytest
import torch
from scenes import BACKENDS, Scene, draw, random_scene, rasterize_with

from msdyn.raster.cpu import rasterize as cpu_backend

every_backend = pytest.mark.parametrize("backend", BACKENDS)


def outcome(scene: Scene) -> list[torch.Tensor]:
    """Return the features, alpha and all gradients of one rendering."""
    rendering, tensors = draw(scene, grad=True)
    assert rendering.depth is not None
    loss = (rendering.features**2).sum() + rendering.alpha.sum() + rendering.depth.mean()
    loss.backward()
    grads = [tensor.grad for tensor in tensors.values() if tensor.grad is not None]
    return [rendering.features.detach(), rendering.alpha.detach(), *grads]


def test_same_bits_run_to_run_and_at_any_number_of_threads(monkeypatch):
    """All images and gradients, with grains of 1 so that even little work uses all threads."""
    for grain in ("_PROJECT_GRAIN", "_SORT_GRAIN", "_BIN_GRAIN", "_BLEND_GRAIN"):
        monkeypatch.setattr(cpu_backend, grain, 1)
    scene = random_scene(13, gaussians=5000, cameras=2, own=True, spread=0.1)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2, 1):
            torch.set_num_threads(count)
            results.append(outcome(scene))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for first, second in zip(results[0], result, strict=True):
            assert torch.equal(first, second)


def test_two_python_threads_at_once():
    """Forward and backward passes in two concurrent threads give the results of one thread."""
    scenes = [random_scene(seed, gaussians=200) for seed in (14, 15)]
    expected = [outcome(scene) for scene in scenes]
    mismatches = []

    def work(scene: Scene, truth: list[torch.Tensor]) -> None:
        for _ in range(10):
            pairs = zip(truth, outcome(scene), strict=True)
            mismatches.append(not all(torch.equal(a, b) for a, b in pairs))

    workers = [
        threading.Thread(target=work, args=pair) for pair in zip(scenes, expected, strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(mismatches) == 20 and not any(mismatches)


@every_backend
def test_gsplats_strategy_densifies_with_our_info(backend):
    """A step of gsplat's `DefaultStrategy` adds Gaussians and removes transparent ones."""
    gsplat = pytest.importorskip("gsplat")
    scene = random_scene(16, gaussians=60, spread=0.1)
    device = "cuda" if backend == "gsplat" else "cpu"

    def parameter(value: torch.Tensor) -> torch.nn.Parameter:
        return torch.nn.Parameter(value.to(device, torch.float32))

    opacities = scene.opacities.clamp(0.05, 0.95)
    opacities[:5] = 0.0045  # visible, but below the strategy's threshold
    params = torch.nn.ParameterDict(
        {
            "means": parameter(scene.means),
            "scales": parameter(scene.scales.log()),
            "quats": parameter(scene.quats_wxyz),
            "opacities": parameter(opacities.logit()),
            "colours": parameter(scene.features),
        }
    )
    optimizers = {name: torch.optim.Adam([value]) for name, value in params.items()}
    strategy = gsplat.DefaultStrategy(refine_start_iter=0, refine_every=1, grow_grad2d=1e-6)
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state()
    rendering = rasterize_with(
        backend,
        params["means"],
        params["quats"],
        params["scales"].exp(),
        params["opacities"].sigmoid(),
        params["colours"],
        scene.intrinsics.to(params["means"]),
        scene.cam_from_world.to(params["means"]),
        scene.width,
        scene.height,
    )
    info = rendering.info
    strategy.step_pre_backward(params, optimizers, state, 1, info)
    (rendering.features**2).mean().backward()
    visible = (info["radii"] > 0).all(-1)
    assert info["means2d"].shape == (1, 60, 2) and visible.any()
    assert (info["means2d"].grad[visible].norm(dim=-1) > 0).any()
    assert (info["means2d"].grad[~visible] == 0).all()
    strategy.step_post_backward(params, optimizers, state, 1, info)
    count = len(params["means"])
    assert count > 60 - 5
    assert (params["opacities"].sigmoid() >= 0.005).all()
    assert all(len(value) == count for value in params.values())
