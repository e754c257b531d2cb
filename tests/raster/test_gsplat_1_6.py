"""Our wrapper of gsplat with the interface of gsplat 1.6: tiles bounded by ellipses.

gsplat 1.6 is not published. `isect_tiles` below has the signature of its main branch (July 2026,
with `conics` and `opacities` at the end) and its rule: a Gaussian is listed in the tiles of its box
that the ellipse of its alpha cut touches. The other stages have the signatures of gsplat 1.5.3 in
both, so its Python code stands for them, on the emulated kernels.
"""

from __future__ import annotations

import math

import emulated_gsplat
import pytest
import torch
from scenes import Scene, draw, errors, random_scene
from torch import Tensor

from msdyn.raster.contract import ALPHA_CUT


class Intersections:
    """`isect_tiles` of gsplat 1.6, which counts what it lists and what the boxes contain."""

    def __init__(self) -> None:
        self.listed = self.boxes = self.calls = 0

    def isect_tiles(
        self,
        means2d: Tensor,
        radii: Tensor,
        depths: Tensor,
        tile_size: int,
        tile_width: int,
        tile_height: int,
        sort: bool = True,
        segmented: bool = False,
        packed: bool = False,
        n_images: int | None = None,
        image_ids: Tensor | None = None,
        gaussian_ids: Tensor | None = None,
        conics: Tensor | None = None,
        opacities: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        assert conics is not None and opacities is not None
        assert not conics.requires_grad and not opacities.requires_grad
        assert conics.shape == (*means2d.shape[:-1], 3)
        assert opacities.shape == means2d.shape[:-1]
        counts, keys, ids = emulated_gsplat.intersect_tile(
            *(value.detach().contiguous() for value in (means2d, radii, depths)),
            *(None, None, math.prod(means2d.shape[:-2])),
            *(tile_size, tile_width, tile_height, sort, segmented),
        )
        tiles = keys & (1 << 48) - 1
        corner = torch.stack([tiles % tile_width, tiles // tile_width], -1) * tile_size
        kept = touches(
            corner,
            tile_size,
            means2d.detach().flatten(0, -2)[ids.long()],
            conics.flatten(0, -2)[ids.long()],
            opacities.flatten()[ids.long()],
        )
        self.calls, self.boxes, self.listed = self.calls + 1, len(ids), int(kept.sum())
        return counts, keys[kept], ids[kept]


def touches(
    corner: Tensor, size: int, means2d: Tensor, conics: Tensor, opacities: Tensor
) -> Tensor:
    """Return whether the ellipse of each Gaussian's alpha cut touches a square tile: [n].

    The least of the quadratic form over the square is at the centre, if that is inside, or on one
    of the four edges, where it is a parabola.
    """
    low, high = corner - means2d, corner + size - means2d
    a, b, c = conics.unbind(-1)
    least = torch.full_like(a, math.inf)
    for x in (low[:, 0], high[:, 0]):
        y = (-b * x / c).clamp(low[:, 1], high[:, 1])
        least = least.minimum(a * x * x + 2 * b * x * y + c * y * y)
    for y in (low[:, 1], high[:, 1]):
        x = (-b * y / a).clamp(low[:, 0], high[:, 0])
        least = least.minimum(a * x * x + 2 * b * x * y + c * y * y)
    inside = ((low <= 0) & (high >= 0)).all(-1)
    return inside | (least <= 2 * (opacities / ALPHA_CUT).log())


@pytest.fixture
def next_gsplat(monkeypatch) -> Intersections:
    intersections = Intersections()
    monkeypatch.setattr("gsplat.isect_tiles", intersections.isect_tiles)
    return intersections


def long_gaussians(scene: Scene) -> Scene:
    """Return the scene with needles, whose boxes are much larger than their ellipses."""
    scene.scales[:, 0] *= 6
    scene.scales[:, 1:] *= 0.1
    return scene


@pytest.mark.parametrize("own", [False, True])
def test_images_and_gradients_are_those_of_gsplat_1_5(own, monkeypatch):
    """Tiles that are left out have no pixel above the alpha cut.

    Images are equal to the last bit; gradients, which are summed over shorter lists, differ by at
    most 2e-5 of their norm in float32.
    """
    scene = long_gaussians(random_scene(41, gaussians=60, cameras=2, own=own))
    results = []
    for replaced in (False, True):
        if replaced:
            intersections = Intersections()
            monkeypatch.setattr("gsplat.isect_tiles", intersections.isect_tiles)
        rendering, tensors = draw(scene, "emulated", grad=True)
        assert rendering.depth is not None
        (rendering.features.square().sum() + rendering.alpha.sum()).backward()
        gradients = {k: t.grad for k, t in tensors.items() if t.grad is not None}
        results.append(((rendering.features, rendering.alpha, rendering.depth), gradients))
    (images, gradients), (new_images, new_gradients) = results
    assert all(map(torch.equal, images, new_images))
    assert gradients.keys() == new_gradients.keys()
    for name, value in gradients.items():
        assert (value - new_gradients[name]).norm() < 1e-4 * value.norm(), name
    assert intersections.calls == 1
    assert 0 < intersections.listed < 0.7 * intersections.boxes


def test_values_are_those_of_the_oracle(next_gsplat):
    """The worst error is 7e-6; one pixel of 1850, where rounding decides, is left out."""
    report = errors(random_scene(42, cameras=2, channels=5, own=True), "emulated")
    assert next_gsplat.calls == 1
    assert report.pop("excluded") < 0.01
    assert max(report.values()) < 1e-4, report


@pytest.mark.parametrize("gaussians", [0, 1])
def test_few_gaussians(next_gsplat, gaussians):
    rendering, _ = draw(random_scene(43, gaussians=gaussians, cameras=2), "emulated")
    assert torch.isfinite(rendering.features).all()
    assert next_gsplat.calls == 1
