"""Editing sequences: removal and retiming of objects."""

import numpy as np
import pytest
import torch
from evaluate.exact_fits import moving_points, three_points

from msdyn.errors import InputError
from msdyn.sequence import (
    load_sequence,
    retime_object,
    save_sequence,
    without_objects,
)

FRAMES = 11


@pytest.fixture
def sequence():
    return three_points(FRAMES)


def means_at_frames(sequence):
    return sequence.posed(torch.arange(float(FRAMES))).means.detach()


def test_retiming_changes_one_object_only(sequence):
    frames = np.arange(FRAMES) / 2
    slow = retime_object(sequence, 2, frames)
    before, after = means_at_frames(sequence), means_at_frames(slow)
    np.testing.assert_array_equal(after[:, [0, 2]], before[:, [0, 2]])
    expected = sequence.posed(torch.from_numpy(frames).float()).means[:, 1].detach()
    np.testing.assert_allclose(after[:, 1], expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["freeze", "reverse", "same"])
def test_freezing_and_reversing_an_object(sequence, kind):
    frames = {"freeze": np.full(FRAMES, 4.0), "reverse": np.arange(FRAMES)[::-1],
              "same": np.arange(FRAMES)}[kind]  # fmt: skip
    before = means_at_frames(sequence)[:, 0]
    after = means_at_frames(retime_object(sequence, 1, frames))[:, 0]
    np.testing.assert_allclose(after, before[frames.astype(int)], atol=1e-6)


def test_all_levels_of_a_fit_are_retimed(fitted_plane_scene, tmp_path):
    sequence = load_sequence(fitted_plane_scene)
    keys = sequence.motion.key_frames.numpy()
    slow = retime_object(sequence, 1, keys / 2)
    save_sequence(slow, tmp_path / "slow.safetensors")
    slow = load_sequence(tmp_path / "slow.safetensors")
    # Blending does not commute with interpolation, so results are exact only at key frames.
    for frame in (0.0, 2.0, 4.0):
        expected = sequence.posed(torch.tensor([frame / 2])).means
        found = slow.posed(torch.tensor([frame])).means
        np.testing.assert_allclose(found.detach(), expected.detach(), atol=1e-5)
    last = torch.tensor([5.0])
    assert (slow.posed(last).means - sequence.posed(last).means).abs().max() > 0.01


def test_removing_an_object_does_not_change_the_others(sequence):
    rest = without_objects(sequence, [2])
    assert rest.labels.tolist() == [1, 3] and len(sequence.moving) == 3
    np.testing.assert_array_equal(means_at_frames(rest), means_at_frames(sequence)[:, [0, 2]])
    none = without_objects(sequence, [1, 2, 3])
    assert len(none.moving) == 0 and not none.at(0.5).means.numel()


def test_invalid_edits_are_refused(sequence):
    with pytest.raises(InputError, match="expected one of"):
        without_objects(sequence, [4])
    with pytest.raises(InputError, match="expected one of"):
        retime_object(sequence, 7, np.arange(FRAMES))
    with pytest.raises(InputError, match="expected 11, one per key frame"):
        retime_object(sequence, 1, np.arange(5))
    with pytest.raises(InputError, match="from 0 to 10"):
        retime_object(sequence, 1, np.arange(FRAMES) + 5)
    shared = moving_points([[0, 0, 2.0], [0.3, 0, 2.0]], np.zeros((2, 3, 3)))
    shared.motion.get_buffer("index_0")[:] = 0  # both follow one pattern
    with pytest.raises(InputError, match="shares motion patterns"):
        retime_object(shared, 1, np.arange(3))
