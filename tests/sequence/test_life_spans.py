"""Life spans: when a Gaussian exists, and all that shows or changes a sequence."""

import numpy as np
import pytest
import torch
from evaluate.exact_fits import three_points
from hypothesis import given, settings
from hypothesis import strategies as st
from unchecked import construct_unchecked

from msdyn.errors import InputError
from msdyn.geometry import project
from msdyn.render import gaussian_trails, render_image, trail_gaussians
from msdyn.sequence import (
    Gaussians,
    load_sequence,
    object_centres,
    object_motions,
    retime_object,
    save_sequence,
    without_objects,
)
from msdyn.sequence.life_spans import life_window, retimed_life_spans

FRAMES = 11
INF = float("inf")
SPANS = torch.tensor([[-INF, 3.5], [3.5, 8.0], [-INF, INF]])


@pytest.fixture
def sequence():
    """Three Gaussians: the first ends where the second begins, the third exists always."""
    always = three_points(FRAMES)
    return always.replaced(moving=always.moving.with_life_spans(SPANS))


def test_window_is_one_inside_half_at_the_ends_and_sums_to_one():
    times = torch.linspace(0, 10, 101)
    window = life_window(SPANS, times)
    assert (window[:, 2] == 1).all()
    early = times < 6
    torch.testing.assert_close(window[early, :2].sum(1), torch.ones(int(early.sum())), atol=2e-3,
                               rtol=0)  # fmt: skip
    assert window[35, 0] == pytest.approx(0.5) and window[80, 1] == pytest.approx(0.5)
    assert window[:25, 0].min() > 0.98 and window[50:, 0].max() < 0.003


def test_the_gradient_moves_an_end_towards_a_frame_that_needs_the_gaussian():
    spans = torch.tensor([[0.0, 4.0]], requires_grad=True)
    life_window(spans, torch.tensor([4.5])).sum().backward()
    assert spans.grad is not None
    assert spans.grad[0, 1] > 0.1 and abs(spans.grad[0, 0]) < 1e-6
    always = torch.tensor([[-INF, INF]], requires_grad=True)
    life_window(always, torch.tensor([4.5])).sum().backward()
    assert always.grad is not None and (always.grad == 0).all()


def test_a_gaussian_is_rendered_during_its_life_only(sequence):
    camera = sequence.cameras[0]
    for frame in range(FRAMES):
        image = render_image(sequence, camera, frame / (FRAMES - 1))
        means = sequence.posed(torch.tensor([float(frame)])).means[0].detach().double().numpy()
        column, row = project(camera.intrinsics[0], means).astype(int).T
        alive = [frame <= 3, 4 <= frame <= 8, True]
        seen = image.alpha[row, column]
        expected = np.where([False, frame == 8, False], 0.5, np.where(alive, 1.0, 0.0))
        np.testing.assert_allclose(seen, expected, atol=0.2)


def test_batches_of_times_have_their_own_opacities(sequence):
    times = torch.tensor([0.0, 5.0, 10.0])
    together = sequence.posed(times)
    assert together.opacities.shape == (3, 3)
    for i, time in enumerate(times):
        alone = sequence.posed(time[None])
        torch.testing.assert_close(alone.opacities[0], together.opacities[i])
    assert torch.equal(together.select(slice(1, 2)).opacities, together.opacities[1:2])
    assert together.only([2]).opacities.shape == (3, 1)
    assert three_points(FRAMES).posed(times).opacities.shape == (1, 3)


def test_files_keep_life_spans(sequence, tmp_path):
    save_sequence(sequence, tmp_path / "lives.safetensors")
    loaded = load_sequence(tmp_path / "lives.safetensors")
    assert torch.equal(loaded.moving.life_spans, SPANS)
    assert loaded.static.life_spans is None
    save_sequence(three_points(FRAMES), tmp_path / "always.safetensors")
    assert load_sequence(tmp_path / "always.safetensors").moving.life_spans is None


def test_removal_keeps_the_life_spans_of_the_others(sequence):
    assert torch.equal(without_objects(sequence, [1]).moving.life_spans, SPANS[1:])


def test_life_spans_of_another_number_are_refused():
    g = three_points(FRAMES).moving
    with pytest.raises(InputError, match=r"life_spans: expected \[3, 2\], got \[2, 2\]"):
        construct_unchecked(
            Gaussians,
            means=g.means,
            log_scales=g.log_scales,
            quats_wxyz=g.quats_wxyz,
            opacity_logits=g.opacity_logits,
            harmonics=g.harmonics,
            life_spans=SPANS[:2],
        )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    keys=st.integers(1, 7),
    frozen=st.booleans(),
)
def test_retimed_life_spans_are_those_of_the_clock(seed, keys, frozen):
    """A Gaussian exists at a time exactly where it existed at the time that is shown."""
    rng = np.random.default_rng(seed)
    at = np.cumsum(rng.uniform(0.5, 3, keys))
    clock = np.full(keys, rng.uniform(0, 10)) if frozen else rng.uniform(0, 10, keys)
    begin = np.where(rng.random(6) < 0.3, -np.inf, rng.uniform(0, 10, 6))
    end = np.where(rng.random(6) < 0.3, np.inf, begin.clip(0) + rng.uniform(0.1, 6, 6))
    index, spans = retimed_life_spans(np.column_stack([begin, end]), at, clock)
    assert (np.diff(index) >= 0).all() and (spans[:, 0] <= spans[:, 1]).all()
    times = rng.uniform(at[0] - 2, at[-1] + 2, 400)
    shown = np.interp(times, at, clock)
    for i in range(6):
        inside = (times > spans[index == i, :1]) & (times < spans[index == i, 1:])
        assert (inside.sum(0) <= 1).all()  # spans of one Gaussian do not overlap
        expected = (shown > begin[i]) & (shown < end[i])
        near = np.minimum(abs(shown - begin[i]), abs(shown - end[i])) < 1e-6
        np.testing.assert_array_equal(inside.any(0)[~near], expected[~near])


@pytest.mark.parametrize("kind", ["freeze", "reverse", "there and back"])
def test_retiming_an_object_retimes_its_life(sequence, kind):
    forward = np.arange(float(FRAMES))
    frames = {
        "freeze": np.full(FRAMES, 6.0),
        "reverse": forward[::-1].copy(),
        "there and back": 2 * np.minimum(forward, forward[::-1]),
    }[kind]
    retimed = retime_object(sequence, 2, frames)
    at = torch.arange(float(FRAMES))
    posed = retimed.posed(at)
    shown = torch.where(posed.labels == 2, posed.opacities, 0.0).sum(1)
    expected = sequence.posed(torch.from_numpy(frames).float()).opacities[:, 1]
    certain = np.abs(frames[:, None] - [3.5, 8.0]).min(1) > 1.9  # away from the fades
    assert certain.sum() >= 4
    torch.testing.assert_close(shown[certain], expected[certain], atol=0.05, rtol=0)
    others = torch.isin(posed.labels, torch.tensor([1, 3]))
    torch.testing.assert_close(posed.opacities[:, others], sequence.posed(at).opacities[:, [0, 2]])


def test_poses_of_objects_ignore_gaussians_that_do_not_exist(sequence):
    """Two Gaussians of one object, one of which is elsewhere while it does not exist."""
    one = sequence.replaced(labels=torch.tensor([1, 1, 2]))
    motions = object_motions(one, np.array([1.0, 6.0]))[1]
    moved = motions.apply(sequence.moving.means.detach().double().numpy()[None])  # [2, 3, 3]
    expected = sequence.posed(torch.tensor([1.0, 6.0])).means.detach()
    np.testing.assert_allclose(moved[0, 0], expected[0, 0], atol=1e-3)
    np.testing.assert_allclose(moved[1, 1], expected[1, 1], atol=1e-3)
    centre = object_centres(one)[1]
    np.testing.assert_allclose(centre, sequence.moving.means[0].detach(), atol=1e-3)


def test_motions_of_many_frames_are_those_of_each(sequence):
    """A few frames are posed at a time."""
    frames = np.linspace(0, FRAMES - 1, 21)
    whole = object_motions(sequence, frames)
    for number, frame in enumerate(frames):
        for label, motion in object_motions(sequence, np.array([frame])).items():
            np.testing.assert_allclose(whole[label].matrix[number], motion.matrix[0], atol=1e-9)
    assert {len(motion) for motion in whole.values()} == {21}


def test_an_object_without_living_gaussians_still_has_a_pose(sequence):
    motions = object_motions(sequence, np.array([10.0]))
    expected = sequence.posed(torch.tensor([10.0])).means[0, 1] - sequence.moving.means[1]
    np.testing.assert_allclose(motions[2].translation[0], expected.detach(), atol=1e-6)


def test_trails_begin_with_the_life_and_show_what_exists(sequence):
    assert set(trail_gaussians(sequence, 10, 6.0).tolist()) == {1, 2}
    assert set(trail_gaussians(sequence, 10, 1.0).tolist()) == {0, 2}
    paths = gaussian_trails(sequence, np.array([1, 2]), 6.0, frames=6, points=7)
    born = sequence.posed(torch.tensor([4.0])).means[0, 1].detach()
    np.testing.assert_allclose(paths[:5, 0], np.tile(born, (5, 1)), atol=1e-6)
    assert not np.allclose(paths[4, 0], paths[6, 0])
