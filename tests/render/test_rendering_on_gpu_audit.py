"""Rendering on the pretend card: frames never wait for a GPU, whatever their time."""

import pytest
import torch
from pretend_card import CARD, Card
from pretend_gsplat import gsplat_on_the_card
from time_sequence import random_sequence

from msdyn.render import draw, render_image


@pytest.fixture
def sequence():
    return random_sequence(90, 4, 32, 24)


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("levels", [None, 1])
def test_a_frame_does_not_wait(sequence, batch, levels):
    card = Card()
    with gsplat_on_the_card(card), card:
        on_card = sequence.to(CARD)
        cameras = on_card.cameras.tensors(CARD)
        times = torch.linspace(0.3, 2.9, 4, device=CARD)
        for run in range(2):
            card.clear()
            posed = on_card.posed(times[run : run + batch], levels=levels)
            image = draw(posed, cameras[run : run + batch])
            assert run == 0 or not card.waits, card.report()  # constants are copied once
        assert image.features.is_cuda and image.features.shape == (batch, 24, 32, 3)
        # Two and a half milliseconds per frame leave some 300 kernels.
        assert card.kernels.total() < 220


def test_an_image_on_the_host_is_one_copy(sequence):
    card = Card()
    with gsplat_on_the_card(card), card:
        on_card = sequence.to(CARD)
        for _ in range(2):
            card.clear()
            image = render_image(on_card, on_card.cameras[1], 0.4)
    assert card.by_place() == {"msdyn/render/render.py": 1}, card.report()
    assert image.rgb.shape == (24, 32, 3) and image.depth.flags.c_contiguous
    assert [wait.kind for wait in card.waits] == ["a copy to the host"]
