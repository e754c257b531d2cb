"""Objects that touch, where a network sees no step between them, are placed together."""

import numpy as np
import pytest

from msdyn.preprocess.depth.objects import place_objects
from msdyn.preprocess.depth.support import Surroundings

FRAMES, HEIGHT, WIDTH = 6, 60, 80


class Relief:
    """A completion that gives fixed depths [T, H, W]."""

    name = "fixed"

    def __init__(self, depths):
        self.depths = depths

    def complete(self, frame, inverse, weight, own):
        raise AssertionError("nothing is measured")

    def relief(self, frame):
        return self.depths[frame]


def man_with_bag():
    """Return masks of a man, 1, with a bag, 2, at his side, and their depth of 2."""
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    masks[:, 5:55, 10:30] = 1
    masks[:, 20:40, 30:45] = 2
    return masks, np.where(masks > 0, 2.0, 5.0).astype(np.float32)


def surroundings(contact_of_man=0.0, contact_of_bag=0.0):
    man = Surroundings(ground=contact_of_man, ring=5.0, holder=4.0, foot=(48, 55))
    bag = Surroundings(ground=contact_of_bag, ring=5.0, holder=4.0, foot=(37, 40))
    return {1: [man] * FRAMES, 2: [bag] * FRAMES}


def place(masks, depths, found):
    """Return the depth [T, H, W] of the objects, 0 elsewhere, and the figures of each."""
    completion, result = Relief(depths), np.zeros_like(depths)
    for label, frames in found.items():
        visible = (masks == label).any((1, 2))
        found[label] = [item if seen else None for item, seen in zip(frames, visible, strict=True)]
    objects = place_objects(masks, completion, found, {})
    for frame in range(FRAMES):
        for item in objects:
            own = masks[frame] == item.label
            result[frame][own] = item.assumed(frame, own, completion)
    return result, {item.label: item.figures() for item in objects}


def test_a_bag_stays_with_the_man_who_carries_it():
    """What is below it in the image is a wall behind both, not the ground it stands on."""
    masks, depths = man_with_bag()
    placed, figures = place(masks, depths, surroundings(2.4, 2.9))
    np.testing.assert_allclose(placed[masks > 0], 2.4, rtol=1e-6)
    assert figures[1] == {"shape": "network", "placed_by": "contact", "joined_to": [2]}
    assert figures[2] == {"shape": "network", "placed_by": "contact", "joined_to": [1]}
    placed, figures = place(masks, depths, surroundings(0.0, 2.9))
    np.testing.assert_allclose(placed[masks > 0], 2.0, rtol=1e-6)
    assert figures[1]["placed_by"] == figures[2]["placed_by"] == "network"


def test_the_lowest_decides_however_seldom_it_is_seen():
    masks, depths = man_with_bag()
    masks[:, 45:] = 0
    masks[:3, :, 30:] = 0
    masks[3:, 40:47, 30:45] = 2
    depths = np.where(masks > 0, 2.0, 5.0).astype(np.float32)
    found = {
        1: [Surroundings(ground=2.4, ring=5.0, holder=4.0, foot=(38, 45))] * FRAMES,
        2: [Surroundings(ground=2.9, ring=5.0, holder=4.0, foot=(42, 47))] * FRAMES,
    }
    placed, _ = place(masks, depths, found)
    np.testing.assert_allclose(placed[masks > 0], 2.9, rtol=1e-6)


def apart(masks, depths):
    """Move the bag away in most frames."""
    masks[1:, :, 30:45] = 0
    masks[1:, 20:40, 50:65] = 2


def behind(masks, depths):
    depths[masks == 2] = 2.5


def alone(masks, depths):
    """Let the bag be seen after the man only."""
    masks[:3][masks[:3] == 2] = 0
    masks[3:][masks[3:] == 1] = 0


@pytest.mark.parametrize("change", [apart, behind, alone])
def test_what_does_not_hang_together_is_placed_by_itself(change):
    masks, depths = man_with_bag()
    change(masks, depths)
    depths = np.where((masks > 0) & (depths == 5), 2, depths).astype(np.float32)
    placed, figures = place(masks, depths, surroundings(2.4, 2.9))
    np.testing.assert_allclose(placed[masks == 1], 2.4, rtol=1e-6)
    np.testing.assert_allclose(placed[masks == 2], 2.9, rtol=1e-6)
    assert all("joined_to" not in found for found in figures.values())


def test_three_in_a_row_and_jumping_scales():
    """Whatever the scale of each frame is, the relief between them stays and time is smooth."""
    masks, depths = man_with_bag()
    masks[:, 25:35, 45:55] = 3
    slope = 1 + 0.04 * np.arange(WIDTH) / WIDTH
    depths = np.where(masks > 0, 2 * slope, 5).astype(np.float32)
    jumps = np.exp(0.3 * np.random.default_rng(0).standard_normal(FRAMES))
    scaled = (depths * jumps[:, None, None]).astype(np.float32)
    found = surroundings()
    found[3] = [Surroundings(foot=(33, 35))] * FRAMES
    placed, figures = place(masks, scaled, found)
    assert [set(figures[label]["joined_to"]) for label in (1, 2, 3)] == [{2, 3}, {1, 3}, {1, 2}]
    moving = masks > 0
    factors = np.where(moving, placed / depths, 0)
    for frame in range(FRAMES):
        inside = factors[frame][moving[frame]]
        np.testing.assert_allclose(inside, inside[0], rtol=1e-5)
    typical = np.array([factors[t][moving[t]].mean() for t in range(FRAMES)])
    assert np.abs(np.diff(np.log(typical))).max() < 0.5 * np.abs(np.diff(np.log(jumps))).max()
