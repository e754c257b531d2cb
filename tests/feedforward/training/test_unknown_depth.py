"""Matches and their loss where the depth is known in part."""

from dataclasses import replace

import pytest
import torch

from msdyn.feedforward.batches import true_matches
from msdyn.feedforward.correlation import Correlation
from msdyn.feedforward.scenes.random_scenes import SceneOptions
from msdyn.feedforward.scenes.render import BatchOptions, random_batch
from msdyn.feedforward.training.losses import match_loss

CELL = 4


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    options = BatchOptions(scenes=2, frames=2, size=16, targets=False)
    return random_batch(SceneOptions(), options, generator)


def with_holes(batch, holes):
    return replace(batch, valid=~holes, depth=torch.where(holes, 0.0, batch.depth))


def prediction(batch, *, seed=1):
    generator = torch.Generator().manual_seed(seed)
    cells = (16 // CELL) ** 2
    logits = torch.randn((2, 2, 2, cells, cells + 1), generator=generator)
    positions = 3 * torch.rand((2, 2, 2, cells, 2), generator=generator)
    logits.requires_grad_()
    positions.requires_grad_()
    correlation = Correlation(logits.log_softmax(-1), positions, (4, 4))
    return correlation, logits, positions


def test_cells_without_depth_are_not_known(batch):
    holes = torch.zeros_like(batch.moving)
    holes[0, 0, :8] = True  # the upper half of frame 0
    exact, seen = true_matches(batch, CELL)
    positions, visible = true_matches(with_holes(batch, holes), CELL)
    known = positions.isfinite().all(-1)
    assert not known[0, 0, :, :8].any() and known[0, 0, 0, 8:].all() and known[1].all()
    assert torch.equal(positions[known], exact[known])
    # Cells of frame 1 whose point would be in the hole of frame 0 are not known; others are.
    row = exact[0, 1, 0, :, 1]
    column = exact[0, 1, 0, :, 0]
    in_image = ((exact[0, 1, 0] > -0.5) & (exact[0, 1, 0] < 3.5)).all(-1)
    assert torch.equal(known[0, 1, 0], ~(in_image & (row < 1.5)))
    assert column.isfinite().all() and not visible[~known].any()
    assert torch.equal(visible[known], seen[known])


def test_cells_that_are_not_known_do_not_count(batch):
    holes = torch.zeros_like(batch.moving)
    holes[0, 0, :8] = True
    positions, visible = true_matches(with_holes(batch, holes), CELL)
    correlation, logits, predicted = prediction(batch)
    loss = match_loss(correlation, positions, visible)
    assert loss.isfinite().all()
    loss.sum().backward()
    known = positions.isfinite().all(-1)
    assert not logits.grad[~known].any() and not predicted.grad[~known].any()
    others = known & ~torch.eye(2, dtype=torch.bool)[None, :, :, None]
    assert (logits.grad[others].abs().sum(-1) > 0).all()


def test_scenes_without_depth_have_no_loss(batch):
    positions, visible = true_matches(with_holes(batch, torch.ones_like(batch.moving)), CELL)
    correlation, logits, predicted = prediction(batch)
    loss = match_loss(correlation, positions, visible)
    assert torch.equal(loss.detach(), torch.zeros(2))
    loss.sum().backward()
    assert not logits.grad.any() and not predicted.grad.any()


def test_where_all_depth_is_known_nothing_changes(batch):
    exact = true_matches(batch, CELL)
    same = true_matches(with_holes(batch, torch.zeros_like(batch.moving)), CELL)
    assert torch.equal(exact[0], same[0]) and torch.equal(exact[1], same[1])
