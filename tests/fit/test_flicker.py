"""The gains of frames from colours of static tracks, and whether they are more than noise."""

import numpy as np
import pytest

from msdyn.fit.flicker import ColourObservations, estimate_flicker, observe_colours
from msdyn.scene import Tracks

FRAMES, POINTS = 20, 500
EVERY = np.arange(FRAMES)


def observations(gains, *, seed=0, noise=0.02, outliers=0.1, length=8):
    """Colours of points in runs of frames, with noise and with points on another surface."""
    rng = np.random.default_rng(seed)
    start = rng.integers(0, FRAMES - length + 1, POINTS)
    point = np.repeat(np.arange(POINTS), length)
    frame = (start[:, None] + np.arange(length)).reshape(-1)
    colour = rng.uniform(-2, -0.2, (POINTS, 3))[point] + gains[frame]
    colour += rng.normal(0, noise, colour.shape)
    wrong = rng.random(len(point)) < outliers
    colour[wrong] = rng.uniform(-2.5, 0, (int(wrong.sum()), 3))
    return ColourObservations(point, frame, colour, rng.uniform(0, 100, (POINTS, 2)))


def flickering(kind):
    gains = np.zeros((FRAMES, 3))
    if kind == "flash":
        gains[[4, 11]] = 0.3
    elif kind == "drift":
        gains += np.linspace(-0.2, 0.2, FRAMES)[:, None]
    else:
        gains += 0.1 * np.sin(EVERY)[:, None] * [1, 0, -1]
    return gains - gains.mean(0)


@pytest.mark.parametrize("kind", ["flash", "drift", "white balance"])
def test_gains_are_recovered(kind):
    true = flickering(kind)
    found = estimate_flicker(observations(true), FRAMES, EVERY)
    assert found.significant and found.explained > 0.02
    # 0.004 to 0.012 when written; drift is chained through tracks of 8 frames.
    np.testing.assert_allclose(found.log_gains, true, atol=0.025)
    np.testing.assert_allclose(found.log_gains.mean(0), 0, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_noise_is_no_flicker(seed):
    """Whatever the number of observations: it predicts nothing in other parts of the image."""
    found = estimate_flicker(observations(np.zeros((FRAMES, 3)), seed=seed), FRAMES, EVERY)
    assert not found.significant and found.explained < 0.002


def test_a_shadow_on_a_part_of_the_image_is_no_flicker():
    """Changes of the same size as those of a flash, but of a ninth of the image."""
    seen = observations(np.zeros((FRAMES, 3)))
    shaded = (seen.xy < 33).all(1)[seen.point] & (seen.frame % 7 < 3)
    seen.log_colour[shaded] -= 0.4
    assert not estimate_flicker(seen, FRAMES, EVERY).significant


def test_few_tracks_decide_nothing():
    seen = observations(flickering("flash"))
    few = ColourObservations(
        seen.point[seen.point < 100], seen.frame[seen.point < 100],
        seen.log_colour[seen.point < 100], seen.xy[:100],
    )  # fmt: skip
    found = estimate_flicker(few, FRAMES, EVERY)
    assert not found.significant and not found.log_gains.any()
    none = ColourObservations(few.point[:0], few.frame[:0], few.log_colour[:0], few.xy[:0])
    assert not estimate_flicker(none, FRAMES, EVERY).significant


def test_a_frame_without_tracks_is_interpolated():
    true = flickering("drift")
    seen = observations(true)
    keep = seen.frame != 9
    kept = ColourObservations(seen.point[keep], seen.frame[keep], seen.log_colour[keep], seen.xy)
    fitted = np.setdiff1d(EVERY, [9])
    gains = estimate_flicker(kept, FRAMES, fitted).log_gains
    np.testing.assert_allclose(gains[9], (gains[8] + gains[10]) / 2, atol=1e-9)
    np.testing.assert_allclose(gains[fitted].mean(0), 0, atol=1e-9)


def test_colours_of_tracks():
    """Static tracks of fitted frames, away from the border, neither black nor white."""
    images = np.full((3, 20, 30, 3), 100, np.uint8)
    images[1] = 50
    images[:, :, 20:] = 255
    images[2, 8:13, 8:13] = np.random.default_rng(0).integers(40, 60, (5, 5, 3))
    xy = np.array([[5.0, 5], [10.5, 10.5], [24, 10], [29.8, 5], [5, 15]])
    tracks = Tracks.from_dense(
        np.repeat(xy[:, None], 3, axis=1) / 2, np.ones((5, 3)), np.ones((5, 3)),
        np.array([0, 0, 0, 0, 1]), np.zeros(5),
    )  # fmt: skip
    seen = observe_colours(tracks, images, np.array([0, 2]), np.array([2.0, 2.0]))
    assert sorted(zip(seen.point, seen.frame, strict=True)) == [(0, 0), (0, 2), (1, 0), (1, 2)]
    colour = 255 * (np.exp(seen.log_colour) - 0.055)
    np.testing.assert_allclose(colour[seen.frame == 0], 100, rtol=1e-9)
    patch = images[2, 9:12, 9:12].reshape(-1, 3).mean(0)
    at = (seen.point == 1) & (seen.frame == 2)
    np.testing.assert_allclose(colour[at][0], patch, rtol=1e-9)
    np.testing.assert_allclose(seen.xy, xy[:2])
