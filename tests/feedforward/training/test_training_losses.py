"""Losses against the recorded outputs of the published code."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from msdyn.feedforward.training.losses import (
    balanced_log_depth_loss,
    balanced_motion_loss,
    depth_loss,
    distribution_loss,
    motion_loss,
    plain_motion_loss,
    point_loss,
)


@pytest.fixture(scope="module")
def recorded():
    path = Path(__file__).parents[4] / "shared" / "movies" / "parity" / "components.safetensors"
    if not path.is_file():
        pytest.skip("needs ../shared/movies/parity with outputs of the published code")
    return load_file(path)


def test_the_depth_loss_is_the_published_one(recorded):
    for index in range(2):
        squared, gradient = depth_loss(
            *(recorded[f"depth_loss.{name}"][index] for name in ("pred", "true", "mask"))
        )
        torch.testing.assert_close(squared, recorded["depth_loss.mse_part"][index])
        torch.testing.assert_close(gradient, recorded["depth_loss.gradient_as_used"][index])
        torch.testing.assert_close(squared + gradient, recorded["depth_loss.total_as_used"][index])


def test_the_motion_loss_is_the_published_one(recorded):
    predicted, true = recorded["motion_loss.pred"], recorded["motion_loss.true"]
    torch.testing.assert_close(point_loss(predicted, true), recorded["motion_loss.point"])
    torch.testing.assert_close(
        distribution_loss(predicted, true), recorded["motion_loss.distribution"]
    )
    torch.testing.assert_close(motion_loss(predicted, true), recorded["motion_loss.total"])


@pytest.mark.parametrize("kind, expected", [("l1", 1.0), ("squared", 9.0), ("distance", 3.0)])
def test_moving_pixels_have_half_of_the_weight(kind, expected):
    """One moving pixel of ten with an error of (3, 0, 0); the static ones are exact."""
    true = torch.zeros(10, 3)
    predicted = true.clone()
    predicted[4, 0] = 3
    moving = torch.arange(10) == 4
    everywhere = torch.ones(10, dtype=torch.bool)
    loss = balanced_motion_loss(predicted, true, moving, everywhere, kind=kind)
    torch.testing.assert_close(loss, torch.tensor(expected), atol=2e-3, rtol=0)


def test_without_moving_pixels_the_motion_loss_is_that_of_the_static_ones():
    nowhere = torch.zeros(4, dtype=torch.bool)
    loss = balanced_motion_loss(torch.ones(4, 3), torch.zeros(4, 3), nowhere, ~nowhere, kind="l1")
    assert loss == 1


@pytest.mark.parametrize("compare", [balanced_motion_loss, plain_motion_loss])
def test_only_known_displacements_count(compare):
    true = torch.zeros(4, 3)
    predicted = torch.tensor([[1.0], [1.0], [50.0], [50.0]]).expand(4, 3)
    known = torch.tensor([True, True, False, False])
    moving = torch.tensor([True, False, True, False])
    loss = compare(predicted, true, moving, known, kind="l1")
    assert loss == (2 if compare is balanced_motion_loss else 1)
    assert compare(predicted, true, moving, ~(known | True), kind="l1") == 0


def test_the_plain_loss_of_displacements_is_the_published_one():
    predicted, true = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(0))
    everywhere = torch.ones(30, dtype=torch.bool)
    torch.testing.assert_close(
        plain_motion_loss(predicted, true, ~everywhere, everywhere), point_loss(predicted, true)
    )


def test_the_depth_of_one_moving_pixel_counts_as_much_as_that_of_all_static_ones():
    true = torch.full((10,), 2.0)
    moving = torch.arange(10) == 3
    predicted = torch.where(moving, 2 * torch.e, 2.0)
    loss = balanced_log_depth_loss(predicted, true, moving, true > 0)
    torch.testing.assert_close(loss, torch.tensor(0.5))


def test_unknown_depth_does_not_count():
    true = torch.tensor([2.0, 0.0, float("nan")])
    predicted = torch.tensor([2.0 * torch.e, 7.0, 7.0], requires_grad=True)
    moving = torch.zeros(3, dtype=torch.bool)
    loss = balanced_log_depth_loss(predicted, true, moving, torch.tensor([True, False, False]))
    torch.testing.assert_close(loss, torch.tensor(0.5))
    loss.backward()
    assert predicted.grad is not None and predicted.grad[0] > 0
    assert (predicted.grad[1:] == 0).all()
