"""Displacement by motion level, on a sequence where that of every level is known."""

import numpy as np
import pytest
import torch

from msdyn.geometry import Cameras
from msdyn.motion import MotionField
from msdyn.motion.pattern_field import PatternField
from msdyn.motion.weights import BlendWeights
from msdyn.scene import Timeline
from msdyn.sequence import Gaussians, GaussianSequence
from msdyn.sequence.levels import motion_by_level

IDENTITY_SIXD = torch.tensor([1.0, 0, 0, 0, 1, 0])


def two_objects() -> GaussianSequence:
    """Both objects translate; the second level displaces half of the Gaussians of object 7."""
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    translation = torch.zeros(2, 3, 3)
    translation[0, :, 0] = torch.tensor([0.0, 1, 2])  # object 1 along x
    translation[1, :, 1] = torch.tensor([0.0, 3, 6])
    finer = torch.zeros(3, 3, 3)
    finer[2, :, 2] = torch.tensor([0.0, 0.4, 0.8])
    field = PatternField(
        [torch.zeros(2, 3), torch.zeros(3, 3)],
        [IDENTITY_SIXD.expand(2, 3, 6).clone(), IDENTITY_SIXD.expand(3, 3, 6).clone()],
        [translation, finer],
        [torch.zeros(2).long(), torch.tensor([0, 1, 1])],
        torch.arange(3.0),
        torch.tensor([4, 7]),
    )
    number = torch.arange(20)
    first = (number >= 10).long()[:, None]
    second = torch.where(number < 10, 0, 1 + number % 2)[:, None]
    weights = [BlendWeights(index, torch.zeros(20, 1)) for index in (first, second)]
    grey, size = torch.full((20, 3), 0.5), torch.full((20,), 0.1)
    return GaussianSequence(
        Gaussians.empty(),
        Gaussians.from_points(points, grey, size, opacity=0.5),
        MotionField(field, weights),
        torch.where(number < 10, 4, 7),
        timeline=Timeline.uniform(3, 10.0),
        cameras=Cameras.pinhole(10.0, 8, 8, np.tile(np.eye(4), (3, 1, 1))),
        canonical_frame=0,
        world_units="metric",
    )


def test_displacement_of_each_level():
    found = motion_by_level(two_objects())
    assert sorted(found) == [4, 7]
    np.testing.assert_allclose(found[4], [[0, 1, 2], [0, 0, 0]], atol=1e-6)
    # Half of the Gaussians move by 0.4 and 0.8.
    np.testing.assert_allclose(found[7], [[0, 3, 6], [0, 0.4 / 2**0.5, 0.8 / 2**0.5]], atol=1e-6)


def test_fractional_frames_and_transparent_gaussians():
    sequence = two_objects()
    found = motion_by_level(sequence, np.array([0.5]))
    assert found[4][0, 0] == pytest.approx(0.5)
    # Nearly transparent Gaussians have nearly no weight.
    with torch.no_grad():
        sequence.moving.opacity_logits[11::2] = -20.0
    assert motion_by_level(sequence)[7][1].max() < 1e-3


def test_many_frames_are_those_of_each():
    """A few frames are posed at a time."""
    sequence, frames = two_objects(), np.linspace(0, 2, 21)
    whole = motion_by_level(sequence, frames)
    for number, frame in enumerate(frames):
        for label, rows in motion_by_level(sequence, np.array([frame])).items():
            np.testing.assert_allclose(whole[label][:, number], rows[:, 0], atol=1e-6)
