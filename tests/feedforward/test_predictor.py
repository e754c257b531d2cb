"""A network used for many clips: tracks of pixels, images at any time, with the truth known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import two_boxes
from known_network import Known

from msdyn.errors import InputError
from msdyn.feedforward import ModelConfig, Movies, save_model
from msdyn.feedforward.inference import encode_window, predict_window, splats_at
from msdyn.feedforward.point_tracks import at_scale_of, pixel_tracks, windows_of_queries
from msdyn.feedforward.predictor import Predictor
from msdyn.feedforward.pretrained import FoundModel
from msdyn.feedforward.windows import choose_windows
from msdyn.scene import Scene
from msdyn.synthetic import write_truth

FRAMES, WIDTH, HEIGHT = 8, 64, 48
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def truth():
    return two_boxes(FRAMES, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def scene(truth, tmp_path_factory):
    return Scene(write_truth(truth, tmp_path_factory.mktemp("predictor") / "boxes"))


def predictor(truth, frames, every=None):
    found = FoundModel(Path("known"), {"long_side": WIDTH, "frames": frames})
    return Predictor(found, Known(truth.spec), CPU, every=every)


@pytest.mark.parametrize(
    "frames, length, every, wanted, expected",
    [
        (9, 5, 2, [0, 4, 8], [([0, 4, 8], [[0, 2, 4, 6, 8]])]),
        # Frame 3 in place of 2, and 7 in place of 6.
        (9, 5, 2, [3, 4, 7], [([4], [[0, 2, 4, 6, 8]]), ([3, 7], [[0, 3, 4, 7, 8]])]),
        # Beside the first frame, which stays; then there are two windows.
        (9, 5, 4, [1], [([1], [[0, 1, 4, 8]])]),
        (9, 3, 4, [1, 8], [([8], [[0, 4, 8]]), ([1], [[0, 1, 4], [1, 4, 8]])]),
        (9, 3, 4, [], []),
    ],
)
def test_frames_of_queries_are_input_frames(frames, length, every, wanted, expected):
    found = windows_of_queries(frames, length, every, length // 2 or 1, wanted)
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("length, every", [(13, None), (5, 3), (4, 1)])
def test_each_frame_is_an_input_frame_of_one_choice(length, every):
    """Windows span as much of the clip as without queries, and cover it."""
    frames, overlap = 100, max(1, length // 4)
    regular = choose_windows(frames, length, every, overlap)
    widest = max(window[-1] - window[0] for window in regular)
    choices = windows_of_queries(frames, length, every, overlap, range(frames))
    assert sorted(frame for group, _ in choices for frame in group) == list(range(frames))
    assert len(choices) <= (every or 4)
    for group, windows in choices:
        inputs = {frame for window in windows for frame in window}
        assert {*group, 0, frames - 1} <= inputs
        assert len(windows) <= len(regular) + 1
        assert max(window[-1] - window[0] for window in windows) >= widest - (every or 4)
        assert all(set(a) & set(b) for a, b in zip(windows, windows[1:], strict=False))
    with pytest.raises(InputError, match="queries: expected frames 0 to 99, got 100"):
        windows_of_queries(frames, length, every, overlap, [5, 100])


@pytest.mark.parametrize("length, every", [(8, 1), (4, 1), (4, 2)])
def test_tracks_of_pixels_are_the_true_ones(truth, scene, length, every):
    tracks = truth.tracks
    rows = np.flatnonzero((tracks.object > 0) & np.isin(tracks.query_frame, [0, 3, 6]))[::7]
    assert len(rows) > 20
    frame, xy = tracks.query_frame[rows], tracks.query_xy[rows]
    track = predictor(truth, length, every).tracker(scene)
    found = track(frame, xy)
    assert found.shape == (len(rows), FRAMES, 3)
    error = np.linalg.norm(found - tracks.xyz[rows], axis=-1)
    motion = np.linalg.norm(tracks.xyz[rows] - tracks.xyz[rows, frame][:, None], axis=-1)
    own = np.arange(len(rows)), frame
    # A pixel of these images is 4 cm wide. Points move by up to .5 m.
    assert np.median(error[own]) < 0.03
    assert np.median(error) < 0.06 and np.median(motion.max(1)) > 0.2
    assert np.percentile(error, 80) < 0.12


def test_positions_between_input_frames_are_interpolated(truth, scene):
    (window,) = predictor(truth, 3).windows(scene)
    assert window.frames == [0, 4, 7]
    xy = np.array([[20.5, 30.5], [63.9, 47.9]])
    found = pixel_tracks([window], np.array([4, 4]), xy, (WIDTH, HEIGHT), FRAMES)
    for query, (row, column) in enumerate([(30, 20), (47, 63)]):
        start = window.splats.means[1, row, column].numpy()
        moved = window.displacements[1, row, column].numpy()  # [K, 3]
        np.testing.assert_allclose(found[query, 4], start, atol=1e-6)
        np.testing.assert_allclose(found[query, 1], start + 0.75 * moved[0], atol=1e-6)
        np.testing.assert_allclose(found[query, 6], start + 2 / 3 * moved[2], atol=1e-6)
    with pytest.raises(InputError, match="expected input frames of the network, got frame 5"):
        pixel_tracks([window], np.array([5]), xy[:1], (WIDTH, HEIGHT), FRAMES)


def test_choices_of_windows_are_brought_to_one_scale(truth, scene):
    p = predictor(truth, 4, 1)
    reference = p.windows(scene, [[0, 2, 4], [4, 6, 7]])
    others = p.windows(scene, [[0, 1, 3], [3, 5, 7]])
    larger = at_scale_of([window.scaled(1.3) for window in others], reference)
    for found, expected in zip(larger, others, strict=True):
        torch.testing.assert_close(found.depth, expected.depth, rtol=1e-3, atol=0)
        torch.testing.assert_close(found.splats.means, expected.splats.means, rtol=0, atol=5e-3)


def test_a_query_in_a_larger_image(truth, scene):
    """Positions are scaled to the network's image."""
    (window,) = predictor(truth, 3).windows(scene)
    small = pixel_tracks([window], np.array([0]), np.array([[20.2, 30.8]]), (64, 48), FRAMES)
    large = pixel_tracks([window], np.array([0]), np.array([[60.6, 92.4]]), (192, 144), FRAMES)
    np.testing.assert_array_equal(small, large)


def psnr(image, truth):
    return -10 * np.log10(np.mean((image / 255.0 - truth / 255.0) ** 2))


def test_images_at_the_times_asked_for(truth, scene):
    """The direct renderer shows the objects where they are at the time, not elsewhere."""
    p = predictor(truth, FRAMES, 1)
    renderer = p.renderer(scene)
    assert renderer.windows == [list(range(FRAMES))]
    times = scene.info.timeline.times
    for frame in (0, FRAMES - 1):
        own = renderer(truth.spec.cameras[frame], float(times[frame]))
        other = renderer(truth.spec.cameras[frame], float(times[FRAMES - 1 - frame]))
        assert own.shape == (HEIGHT, WIDTH, 3) and own.dtype == np.uint8
        moving = truth.clip.masks[frame] > 0
        shown = truth.clip.images[frame]
        # Measured: 22 dB against 15.
        assert psnr(own[moving], shown[moving]) > psnr(other[moving], shown[moving]) + 3
    assert len({tuple(frames) for frames in p.model.asked_for}) == 1


def test_an_image_is_drawn_from_the_window_around_its_time(truth, scene):
    renderer = predictor(truth, 4, 1).renderer(scene)
    chosen = renderer.windows
    times = scene.info.timeline.times
    assert chosen[renderer.window_of(0.0)][0] == 0 and chosen[renderer.window_of(1.0)][-1] == 7
    for frame in range(FRAMES):
        frames = chosen[renderer.window_of(float(times[frame]))]
        margins = [min(frame - w[0], w[-1] - frame) for w in chosen]
        assert min(frame - frames[0], frames[-1] - frame) == max(margins)


def test_at_an_input_time_the_gaussians_are_those_of_the_window(truth, scene):
    """Of the frame whose own time it is, before and after the way into the world."""
    options = {"size": (WIDTH, HEIGHT), "scale": None, "device": CPU, "use_depth": False}
    model = Known(truth.spec)
    encoded = encode_window(model, scene, [0, 4, 7], **options)
    splats = splats_at(model, encoded, float(scene.info.timeline.times[4]))
    (window,) = predictor(truth, 3).windows(scene)
    means = splats.means.reshape(3, HEIGHT, WIDTH, 3)[1]
    np.testing.assert_allclose(means, window.splats.means[1], atol=1e-5)
    np.testing.assert_allclose(
        splats.opacities.reshape(3, HEIGHT, WIDTH)[1], window.splats.opacities[1], atol=1e-6
    )
    # Outside the window, the nearest time is taken.
    before, first = (splats_at(model, encoded, time).means for time in (-1.0, 0.0))
    torch.testing.assert_close(before, first)


@pytest.mark.parametrize("attributes", ["add", "replace", "none"])
def test_of_a_random_network_too(scene, attributes):
    """Where attributes change with time, they are those at the frame's own time."""
    torch.manual_seed(0)
    model = Movies(replace(ModelConfig.small(), attribute_motion=attributes, moving=1e-4)).eval()
    model.requires_grad_(False)
    for parameter in model.motion_head.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    options = {"size": (32, 24), "scale": 2.0, "device": CPU, "use_depth": False}
    window = predict_window(model, scene, [0, 2, 5], **options)
    encoded = encode_window(model, scene, [0, 2, 5], **options)
    for position, frame in enumerate([0, 2, 5]):
        splats = splats_at(model, encoded, float(scene.info.timeline.times[frame]))
        for name in ("means", "colours", "scales", "quats_wxyz", "opacities"):
            value = getattr(splats, name)
            value = value.reshape(3, 24, 32, *value.shape[1:])[position]
            expected = getattr(window.splats, name)[position]
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_a_network_without_motion(scene, tmp_path):
    torch.manual_seed(0)
    config = replace(ModelConfig.small(), motion=False, time_token=False, attribute_motion="none")
    save_model(
        Movies(config), tmp_path / "static.safetensors", about={"long_side": 32, "frames": 3}
    )
    p = Predictor.load(str(tmp_path / "static.safetensors"), device="cpu")
    assert p.size(scene) == (32, 24)
    track = p.tracker(scene)(np.array([0, 2]), np.array([[5.0, 5], [40, 30]]))
    assert np.ptp(track, axis=1).max() == 0
    renderer = p.renderer(scene)
    camera = scene.cameras[0]
    np.testing.assert_array_equal(renderer(camera, 0.0), renderer(camera, 0.05))
    assert p.sequence(scene).num_gaussians > 0
