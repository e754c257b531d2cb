"""Random Gaussians in front of random cameras, and the comparison of a backend with the oracle."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import emulated_gsplat
import oracle
import pytest
import torch
from torch import Tensor

from msdyn.raster import Rendering, rasterize

ARGUMENTS = (
    "means",
    "quats_wxyz",
    "scales",
    "opacities",
    "features",
    "intrinsics",
    "cam_from_world",
)

gpu = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
)
# "emulated" is our wrapper of gsplat with gsplat's kernels emulated on the CPU.
BACKENDS = ["cpu", "emulated", pytest.param("gsplat", marks=gpu)]


@dataclass(frozen=True)
class Scene:
    """Arguments of `rasterize` in float64, on the CPU."""

    means: Tensor
    quats_wxyz: Tensor
    scales: Tensor
    opacities: Tensor
    features: Tensor
    intrinsics: Tensor
    cam_from_world: Tensor
    width: int = 50
    height: int = 37
    options: dict[str, Any] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ARGUMENTS}


def random_scene(
    seed: int,
    *,
    gaussians: int = 50,
    cameras: int = 1,
    channels: int = 3,
    own: bool = False,
    spread: float = 0.3,
    opaque: bool = False,
    background: bool = False,
) -> Scene:
    """Make a scene around depth 4, partly behind the cameras and outside the view.

    Args:
        seed: of the random numbers.
        gaussians: G.
        cameras: C.
        channels: D.
        own: give each camera its own means, quaternions, opacities and features.
        spread: maximum scale, scene units.
        opaque: set all opacities to 1, so that alpha is capped and blending stops.
        background: add a random background.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    width, height = 50, 37
    lead = (cameras,) if own else ()
    means = normal(*lead, gaussians, 3) * torch.tensor([1.5, 1.0, 1.5]) + torch.tensor([0, 0, 4.0])
    intrinsics = torch.zeros(cameras, 3, 3, dtype=torch.float64)
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = 45 + 5 * uniform(cameras), 40 + 5 * uniform(cameras)
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = 0.45 * width, 0.55 * height, 1
    cam_from_world = torch.eye(4, dtype=torch.float64).repeat(cameras, 1, 1)
    quats = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64) + 0.1 * normal(cameras, 4)
    cam_from_world[:, :3, :3] = oracle.rotations(quats)
    cam_from_world[:, :3, 3] = 0.2 * normal(cameras, 3)
    return Scene(
        means,
        normal(*lead, gaussians, 4),
        spread * uniform(gaussians, 3) + 0.005,
        torch.ones(*lead, gaussians, dtype=torch.float64) if opaque else uniform(*lead, gaussians),
        normal(*lead, gaussians, channels),
        intrinsics,
        cam_from_world,
        width,
        height,
        {"background": uniform(channels)} if background else {},
    )


def draw(scene: Scene, backend: str = "cpu", *, grad: bool = False) -> tuple[Rendering, dict]:
    """Rasterize in float32 with depth; return the rendering and its float32 arguments."""
    device = "cuda" if backend == "gsplat" else "cpu"

    def prepare(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device, torch.float32).requires_grad_(grad)

    tensors = {name: prepare(tensor) for name, tensor in scene.tensors().items()}
    if backend != "cpu":
        tensors["intrinsics"].requires_grad_(False)
    options = dict(scene.options)
    if "background" in options:
        tensors["background"] = options["background"] = prepare(options["background"])
    arguments = {name: tensors[name] for name in ARGUMENTS}
    rendering = rasterize_with(
        backend, **arguments, width=scene.width, height=scene.height, depth=True, **options
    )
    return rendering, tensors


def rasterize_with(backend: str, *arguments: Any, **options: Any) -> Rendering:
    """Call `rasterize` with one of `BACKENDS`."""
    with emulated_gsplat.cpu_accepted_as_cuda() if backend == "emulated" else nullcontext():
        name = "gsplat" if backend == "emulated" else backend
        return rasterize(*arguments, **options, backend=name)


def errors(scene: Scene, backend: str = "cpu", seed: int = 0) -> dict[str, float]:
    """Compare images and all gradients with the oracle.

    Pixels where a decision depends on float32 rounding (`Dense.ambiguous`) are excluded; they have
    no weight in the loss either.

    Returns:
        The maximum absolute error of each image; the maximum error of each gradient, divided by the
        largest absolute gradient of that argument; and the fraction of excluded pixels.
    """
    exact = {name: tensor.clone().requires_grad_() for name, tensor in scene.tensors().items()}
    options = dict(scene.options)
    if "background" in options:
        exact["background"] = options["background"] = options["background"].clone().requires_grad_()
    dense = oracle.render(
        *(exact[name] for name in ARGUMENTS), scene.width, scene.height, **options
    )
    rendering, tensors = draw(scene, backend, grad=True)
    assert rendering.depth is not None
    keep = ~dense.ambiguous
    pairs = {
        "image": (dense.features, rendering.features, keep[..., None]),
        "alpha": (dense.alpha, rendering.alpha, keep),
        "depth image": (dense.depth, rendering.depth, keep),
    }
    generator = torch.Generator().manual_seed(seed)
    report = {"excluded": 1 - keep.double().mean().item()}
    loss, true_loss = 0.0, 0.0
    for name, (truth, value, mask) in pairs.items():
        assert torch.isfinite(value).all(), name
        report[name] = ((truth - value.cpu()).abs() * mask).max().item()
        weights = torch.randn(truth.shape, generator=generator, dtype=torch.float64) * mask
        true_loss = true_loss + (truth * weights).sum()
        loss = loss + (value * weights.to(value)).sum()
    torch.autograd.backward([loss, true_loss])
    for name, tensor in tensors.items():
        if tensor.requires_grad:
            truth, value = exact[name].grad, tensor.grad
            assert truth is not None and value is not None, name
            scale = truth.abs().max().item() + 1e-6
            report[f"gradient of {name}"] = (truth - value.cpu()).abs().max().item() / scale
    return report


def with_changes(scene: Scene, **changes: Any) -> Scene:
    """Return the scene with some arguments replaced."""
    return replace(scene, **changes)
