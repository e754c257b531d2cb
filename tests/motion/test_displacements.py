"""Independent trajectories of Gaussians."""

import numpy as np
import pytest
import torch
from motion.bodies import FRAMES, laptop, lifted
from unchecked import construct_unchecked

from msdyn.errors import InputError
from msdyn.geometry import Similarity
from msdyn.motion import MotionConfig, TrackedScene, motion_class
from msdyn.motion.models.displacements import Displacements

KEYS = torch.tensor([0.0, 2.0, 6.0])


def example(count=5):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(count, 3, generator=generator)
    return points, Displacements(torch.randn(count, 3, 3, generator=generator), KEYS)


def test_it_interpolates_linearly_between_key_frames():
    points, motion = example()
    quats = torch.nn.functional.normalize(torch.randn(5, 4), dim=-1)
    pose = motion.pose(points, quats, torch.tensor([0.0, 1.0, 4.0, 9.0]))
    own = motion.displacements
    expected = torch.stack([own[:, 0], own[:, :2].mean(1), own[:, 1:].mean(1), own[:, 2]])
    torch.testing.assert_close(pose.means, points + expected)
    assert torch.equal(pose.quats_wxyz, quats.expand(4, -1, -1))
    assert torch.equal(pose.rotations, torch.eye(3).expand(4, 5, 3, 3))
    still = motion.pose(points, quats, KEYS, levels=0)
    assert torch.equal(still.means, points.expand(3, -1, -1))


def test_undo_is_the_inverse():
    points, motion = example()
    moved = motion.positions(points, torch.tensor([3.3]))[0]
    torch.testing.assert_close(motion.undo(moved, 3.3), points)


def test_tracks_are_followed_exactly_where_visible_and_interpolated_where_not():
    tracks = lifted(laptop(np.random.default_rng(0), count=20))
    tracks.visible[3, 2:4] = False
    truth = tracks.xyz.copy()
    tracks.xyz[3, 2:4] = 1e6  # what is not visible is not used
    scene = TrackedScene(tracks, 1, np.arange(FRAMES))
    tracked = motion_class("displacements").from_tracks(scene, MotionConfig(model="displacements"))
    moved = tracked.motion.positions(tracked.points, torch.arange(FRAMES).float()).transpose(0, 1)
    seen = torch.from_numpy(tracks.visible)
    torch.testing.assert_close(moved[seen], torch.from_numpy(truth).float()[seen])
    line = np.linspace(truth[3, 1], truth[3, 4], 4)[1:3]
    np.testing.assert_allclose(moved[3, 2:4].detach(), line, atol=1e-5)
    assert (tracked.weights[3, 2:4] == 0).all()


def test_mixtures_selections_and_concatenations():
    _, motion = example()
    mixed = motion.mixed(torch.tensor([[0, 1], [2, 2]]), torch.tensor([[1.0, 3.0], [1.0, 0.0]]))
    own = motion.displacements
    torch.testing.assert_close(mixed.displacements[0], own[0] / 4 + 3 * own[1] / 4)
    torch.testing.assert_close(mixed.displacements[1], own[2])
    both = Displacements.concatenated([motion.select(torch.tensor([4])), motion])
    assert len(both) == 6 and torch.equal(both.displacements[0], own[4])


def test_scaling_and_retiming():
    points, motion = example()
    world = Similarity.of(2.0, [1.0, 0, 0])
    scaled = motion.rescaled(world)
    torch.testing.assert_close(scaled.displacements, 2 * motion.displacements)
    own = torch.tensor([True, False, False, False, False])
    retimed = motion.retimed(own, torch.tensor([6.0, 2.0, 0.0]))
    assert torch.equal(retimed.displacements[0], motion.displacements[0].flip(0))
    assert torch.equal(retimed.displacements[1:], motion.displacements[1:])


def test_a_round_trip_and_what_does_not_fit():
    _, motion = example()
    restored = Displacements.from_tensors(motion.tensors(), motion.header())
    assert torch.equal(restored.displacements, motion.displacements)
    assert torch.equal(restored.key_frames, KEYS)
    with pytest.raises(InputError, match=r"expected \[Gaussians, 3, 3\], got \[5, 3, 2\]"):
        construct_unchecked(Displacements, displacements=torch.zeros(5, 3, 2), key_frames=KEYS)
    with pytest.raises(InputError, match="increasing"):
        Displacements(torch.zeros(5, 3, 3), torch.tensor([0.0, 2.0, 2.0]))
    assert "smooth" in motion.regularisers()
    assert Displacements(torch.zeros(0, 3, 3), KEYS).regularisers() == {}
