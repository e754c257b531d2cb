"""The statistics of density control, without indices, against those of gsplat's strategy."""

import pytest
import torch

from msdyn.fit.density import accumulate_statistics


@pytest.mark.parametrize("cameras", [1, 3])
def test_the_sums_are_those_of_gsplat(cameras):
    """Two steps; culled Gaussians have no radius, and whatever gradient."""
    from gsplat.strategy import DefaultStrategy

    generator = torch.Generator().manual_seed(cameras)
    ours, theirs = ({"grad2d": None, "count": None, "scene_scale": 1.0} for _ in range(2))
    params = {"means": torch.zeros(50, 3)}
    for _ in range(2):
        means2d = torch.rand(cameras, 50, 2, generator=generator)
        means2d.grad = torch.randn(cameras, 50, 2, generator=generator)
        radii = torch.randint(-2, 4, (cameras, 50, 2), generator=generator).clamp_min(0).int()
        hidden = (radii == 0).any(-1)
        assert 5 < hidden.sum() < hidden.numel() - 5
        means2d.grad[hidden] = float("nan")
        info = {"means2d": means2d, "radii": radii, "width": 64, "height": 48}
        info |= {"n_cameras": cameras, "gaussian_ids": None}
        accumulate_statistics(ours, info)
        DefaultStrategy()._update_state(params, theirs, info)
    assert torch.equal(ours["count"], theirs["count"])
    torch.testing.assert_close(ours["grad2d"], theirs["grad2d"])
    if cameras == 1:
        assert torch.equal(ours["grad2d"], theirs["grad2d"])
