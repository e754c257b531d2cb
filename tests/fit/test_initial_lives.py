"""Life spans of the first Gaussians: evidence, spans, and coverage of what was seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msdyn.fit import initial_motion, preset
from msdyn.fit.coverage import choose_by_coverage, spacing_among_living
from msdyn.fit.data import load_fit_data
from msdyn.fit.initial_lives import Lives, life_spans
from msdyn.fit.initial_static import static_gaussians
from msdyn.fit.initialize import initialize
from msdyn.fit.object_depth import ObjectDepth
from msdyn.geometry import world_points_from_depth
from msdyn.render import draw
from msdyn.scene import Scene
from msdyn.synthetic import make_scene, render_truth, write_priors

FRAMES = 12
# First frame without a stain on the background.
GONE = 7
STATIC = preset("quick", static_gaussians=4000)


def reach(evidence, frames):
    """Return how many frames of one direction a point lives, by a plain search."""
    sums = np.concatenate([[0.0], np.cumsum(evidence + 0.3)])
    for end in range(1, len(sums)):
        if sums[end] < sums[: end + 1].max() - np.log(20 * frames):
            sums = sums[:end]
            break
    return int(sums.argmax())


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**31), frames=st.integers(1, 12), size=st.sampled_from([0.5, 2, 5]))
def test_a_life_ends_where_the_evidence_turns(seed, frames, size):
    rng = np.random.default_rng(seed)
    evidence = rng.normal(0, size, (5, frames))
    source = rng.integers(frames, size=5)
    clip = np.cumsum(rng.integers(1, 3, frames))
    spans = life_spans(evidence, source, clip)
    for i, own in enumerate(source):
        a, b = (
            own - reach(evidence[i, :own][::-1], frames),
            own + reach(evidence[i, own + 1 :], frames),
        )
        begin = -np.inf if a == 0 else (clip[a - 1] + clip[a]) / 2
        end = np.inf if b == frames - 1 else (clip[b] + clip[b + 1]) / 2
        np.testing.assert_allclose(spans[i], [begin, end])


def test_a_life_does_not_bridge_frames_in_which_the_point_has_gone():
    """Twenty frames of good evidence after four of bad evidence do not make up for them."""
    evidence = np.array([[1.0] * 5 + [-2.0] * 4 + [1.0] * 19, [1.0] * 5 + [-2.0] * 2 + [1.0] * 21])
    spans = life_spans(evidence, np.array([2, 2]), np.arange(28))
    np.testing.assert_allclose(spans, [[-np.inf, 4.5], [-np.inf, np.inf]])


def test_without_evidence_against_it_a_life_is_the_whole_clip():
    spans = life_spans(np.zeros((2, 5)), np.array([0, 3]), np.arange(5))
    assert np.isinf(spans).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 200))
def test_chosen_points_are_as_many_as_allowed_and_cover_the_others(seed, count):
    rng = np.random.default_rng(seed)
    points, frames, width = 120, 5, 40
    pixel = rng.integers(-1, 30 * width, (points, frames))
    source = rng.integers(frames, size=points)
    pixel[np.arange(points), source] = rng.integers(0, 30 * width, points)
    spans = np.full((points, 2), [-np.inf, np.inf])
    kept, spacing = choose_by_coverage(
        Lives(spans, pixel.astype(np.int32)), source, np.arange(frames), width, count
    )
    # All live always, so that as many exist in a frame as are chosen.
    assert len(kept) <= count or spacing >= 30
    assert spacing >= 1 and len(set(kept.tolist())) == len(kept)

    def cells(index, frame):
        row, column = np.divmod(pixel[index, frame], width)
        return set(zip((row / spacing).astype(int), (column / spacing).astype(int), strict=True))

    for i in range(points):
        frame = source[i]
        there = kept[pixel[kept, frame] >= 0]
        assert cells(np.array([i]), frame) <= cells(there, frame)


def test_a_gaussian_is_as_far_from_others_as_those_that_live_in_its_frame():
    """Points 2 px apart of which two thirds live in other frames: rows are 6 px apart."""
    row, column = np.divmod(np.arange(18 * 18), 18)
    source = row % 3
    pixel = np.full((len(row), 3), -1, np.int32)
    pixel[np.arange(len(row)), source] = (2 * row) * 40 + 2 * column
    lives = Lives(np.zeros((len(row), 2)), pixel)
    spacing = spacing_among_living(lives, source, 40, 1.0)
    inner = (column > 2) & (column < 15)
    # Two neighbours in the row are 2 px off, the third one 4.
    np.testing.assert_allclose(spacing[inner], 8 / 3)
    always = np.repeat(pixel.max(1, keepdims=True), 3, axis=1)
    spacing = spacing_among_living(Lives(lives.spans, always), source, 40, 1.0)
    np.testing.assert_allclose(spacing[inner & (row > 0) & (row < 17)], 2)
    assert (spacing_among_living(Lives(lives.spans, always), source, 40, 2.5) == 2.5).mean() > 0.8


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A rigid object, with exact priors."""
    folder = tmp_path_factory.mktemp("rigid") / "scene"
    spec = make_scene("rigid", frames=FRAMES, width=128, height=96)
    truth = render_truth(replace(spec, views={}))
    write_priors(truth, folder, level="exact", seed=0)
    return Scene(folder)


def loaded(scene):
    return load_fit_data(scene, long_side=None, holdout_every=0, device=torch.device("cpu"))


def initialised(scene, monkeypatch, *, still: bool):
    """Initialise a fit; `still` replaces the tracked motion by none."""
    if still:

        def at_rest(tracked, tracks, *_arguments, **_options):
            motion = tracked.motion
            with torch.no_grad():
                for value in motion.patterns.translations:
                    value.zero_()
                for value in motion.patterns.sixd:
                    value.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]).expand_as(value))
            return tracked, ObjectDepth.none(tracks)

        monkeypatch.setattr(initial_motion, "prefit_motion", at_rest)
    options = preset("quick", moving_gaussians=800, static_gaussians=100)
    options = replace(options, motion=replace(options.motion, prefit_steps=20))
    data = loaded(scene)
    start = initialize(data, options, scene.info.timeline, scene.info.world_units)
    return start.data, start.sequence


def covered(data, sequence):
    """Return the mean share, over the frames, of moving pixels that living Gaussians cover."""
    shares = []
    with torch.no_grad():
        for frame in range(FRAMES):
            posed = sequence.posed(torch.tensor([float(frame)])).only(None, background=False)
            alpha = draw(posed, data.on_device[torch.tensor([frame])]).alpha[0]
            shares.append(float((alpha > 0.3)[data.mask[frame] > 0].float().mean()))
    return np.array(shares)


def test_lives_are_long_where_the_tracks_carry(clip, monkeypatch):
    data, sequence = initialised(clip, monkeypatch, still=False)
    spans = sequence.moving.life_spans
    assert spans is not None
    lengths = (spans[:, 1].clamp(max=FRAMES) - spans[:, 0].clamp(min=-1)).detach()
    assert lengths.quantile(0.25) > FRAMES
    assert (covered(data, sequence) > 0.9).all()


def test_what_was_seen_is_covered_even_where_the_motion_is_wrong(clip, monkeypatch):
    data, sequence = initialised(clip, monkeypatch, still=True)
    spans = sequence.moving.life_spans
    assert spans is not None
    lengths = (spans[:, 1].clamp(max=FRAMES) - spans[:, 0].clamp(min=-1)).detach()
    assert lengths.median() < 0.5 * FRAMES
    assert (covered(data, sequence) > 0.9).all()


def test_without_life_spans_all_gaussians_exist_always(clip):
    data = loaded(clip)
    options = preset("quick", moving_gaussians=200, static_gaussians=100, life_spans="off")
    options = replace(options, motion=replace(options.motion, prefit_steps=5))
    sequence = initialize(data, options, clip.info.timeline, clip.info.world_units).sequence
    assert sequence.moving.life_spans is None
    assert preset("paper").life_spans == "off"


def centre_and_radius(data):
    """Return a ball about a static point in the lower middle of the first image."""
    points = world_points_from_depth(data.depth.numpy(0), data.cameras[0])
    height, width = data.mask.shape[1:]
    row, column = height * 4 // 5, width // 4
    assert data.mask.numpy(0)[row, column] == 0
    return points[row, column], 0.1 * float(data.depth.numpy(0)[row, column])


def textured(data, gone):
    """Colour static points by their place in the world, those in the ball magenta until gone."""
    centre, radius = centre_and_radius(data)

    def painted(frame, rgb):
        points = world_points_from_depth(data.depth.numpy(frame), data.cameras[frame])
        texture = 130 + 30 * np.sin(20 * points + np.array([0, 1, 2]))
        stained = np.linalg.norm(points - centre, axis=-1) < radius
        stained &= frame < gone
        texture[stained] = 250, 0, 250
        return np.where(data.mask.numpy(frame)[..., None] == 0, texture, rgb).astype(np.uint8)

    return replace(data, rgb=data.rgb.changed(painted))


def is_magenta(gaussians):
    colour = gaussians.harmonics[:, 0].detach()
    return (colour[:, ::2].amin(1) - colour[:, 1] > 1).numpy()


def test_what_rests_for_a_while_exists_for_that_while(clip):
    data = loaded(clip)
    gaussians = static_gaussians(textured(data, GONE), STATIC, np.random.default_rng(0))
    spans = gaussians.life_spans
    assert spans is not None
    spans, stained = spans.detach().numpy(), is_magenta(gaussians)
    centre, radius = centre_and_radius(data)
    distance = np.linalg.norm(gaussians.means.detach().numpy() - centre, axis=1)
    assert stained.sum() > 10 and distance[stained].max() < 1.1 * radius
    # Colours within a pixel count: at its edge they are mixed.
    inner = distance < 0.8 * radius
    ends, begins = spans[stained & inner, 1], spans[~stained & inner, 0]
    assert np.median(ends) == GONE - 0.5 and (np.abs(ends - GONE + 0.5) <= 1).mean() > 0.9
    assert len(begins) > 10
    assert np.median(begins) == GONE - 0.5 and (np.abs(begins - GONE + 0.5) <= 1).mean() > 0.9
    elsewhere = distance > 1.3 * radius
    assert np.isinf(spans[elsewhere]).all(1).mean() > 0.97


def test_without_such_a_thing_static_gaussians_exist_always(clip):
    data = loaded(clip)
    gaussians = static_gaussians(textured(data, 0), STATIC, np.random.default_rng(0))
    if gaussians.life_spans is not None:
        assert torch.isinf(gaussians.life_spans).all(1).float().mean() > 0.98
    off = replace(STATIC, life_spans="off")
    assert static_gaussians(data, off, np.random.default_rng(0)).life_spans is None
