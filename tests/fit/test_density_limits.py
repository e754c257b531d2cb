"""How many Gaussians density control may add, where each exists in some frames only."""

import numpy as np
import pytest
import torch

from msdyn.fit.coverage import MOST_LIVES
from msdyn.fit.density_lives import Limit
from msdyn.sequence.life_spans import life_shares

FRAMES = 12


def random_lives(generator, count):
    """Return life spans between frames, some of them without an end, and in which frames they are.

    In frames: [count, FRAMES] booleans.
    """
    frames = generator.integers(0, FRAMES, (count, 2))
    first, last = np.sort(frames, axis=1).T
    spans = np.column_stack([first - 0.5, last + 0.5]).astype(np.float32)
    spans[first == 0, 0], spans[last == FRAMES - 1, 1] = -np.inf, np.inf
    number = np.arange(FRAMES)
    inside = (number >= first[:, None]) & (number <= last[:, None])
    return torch.from_numpy(spans), inside


def test_shares_of_lives_are_those_of_the_frames():
    spans, inside = random_lives(np.random.default_rng(0), 200)
    shares = life_shares(spans, FRAMES)
    np.testing.assert_allclose(shares, inside.mean(1), atol=1e-6)
    beyond = torch.tensor([[3.0, 1.0], [-9.0, -4.0], [20.0, torch.inf]])
    assert (life_shares(beyond, FRAMES) == 0).all()


@pytest.mark.parametrize(("count", "all_added"), [(150, False), (180, False), (10_000, True)])
def test_those_of_the_largest_gradients_are_added_while_there_is_room(count, all_added):
    """Against counting, frame by frame, which exist after every single addition."""
    generator = np.random.default_rng(count)
    spans, inside = random_lives(generator, 300)
    gradients = generator.uniform(0, 1, 300).astype(np.float32)
    added, living, total = set(), inside.sum(0).astype(float), 300
    for i in np.argsort(-gradients):
        living, total = living + inside[i], total + 1
        if gradients[i] <= 0.25 or living.mean() > count or total > MOST_LIVES * count:
            break
        added.add(i)
    least = Limit(count, FRAMES).least_gradient(torch.from_numpy(gradients), spans, 0.25)
    assert set(np.flatnonzero(torch.from_numpy(gradients) > least)) == added
    assert 0 < len(added) < 300 and (len(added) == (gradients > 0.25).sum()) == all_added


def test_short_lives_are_limited_in_all():
    """Thirty in each frame of twelve: room in a frame, and none beyond a multiple of the limit."""
    first = torch.arange(FRAMES).repeat_interleave(30).float()
    spans = torch.stack([first - 0.5, first + 0.5], 1)
    gradients = torch.linspace(1, 2, len(spans))
    for count, expected in ((200, 240), (121, 3), (120, 0), (30, 0)):
        least = Limit(count, FRAMES).least_gradient(gradients, spans, 0.5)
        assert (gradients > least).sum() == expected


@pytest.mark.parametrize("count", [99, 100, 101])
def test_without_life_spans_the_number_of_all_counts_as_in_gsplat(count):
    """Infinite from the limit on, the given gradient below it, whatever the others are."""
    least = Limit(count, FRAMES).least_gradient(torch.rand(100), None, 0.3)
    assert least == (np.inf if count <= 100 else 0.3)
