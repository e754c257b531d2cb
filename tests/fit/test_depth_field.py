"""Smooth errors of depth maps over the image: kriging of the residuals of points."""

import numpy as np
import pytest

from msdyn.fit.depth_field import NO_ERROR, DepthResiduals, SmoothError, choose_smooth_error

FRAMES, POINTS = 10, 300


def wave(xy, frame):
    """A smooth function of standard deviation 0.03 that differs between frames."""
    return 0.03 * np.sqrt(2) * np.sin(9 * xy[:, 0] + 6 * xy[:, 1] + 2.0 * frame)


def residuals(function, noise, seed=0):
    rng = np.random.default_rng(seed)
    frame, point = np.divmod(np.arange(FRAMES * POINTS), POINTS)
    xy = rng.uniform(0, [1, 0.75], (len(frame), 2))
    return DepthResiduals(
        frame, point, xy, function(xy, frame) + noise * rng.standard_normal(len(frame))
    )


@pytest.mark.slow
def test_a_smooth_error_is_found_and_predicted():
    given = residuals(wave, 0.01)
    model = choose_smooth_error(given)
    assert model.amplitude > 1
    y, x = np.mgrid[0.05:0.7:20j, 0.05:0.95:20j]
    grid = np.stack([x.reshape(-1), y.reshape(-1)], 1)
    for frame, part in given.by_frame():
        error = model.predict(part, grid) - wave(grid, frame)
        assert np.sqrt((error**2).mean()) < 0.15 * 0.03


@pytest.mark.slow
def test_noise_and_exact_depth_have_no_smooth_error():
    def nothing(xy, frame):
        return np.zeros(len(xy))

    for noise in (0.0, 1e-4, 0.02):
        assert choose_smooth_error(residuals(nothing, noise)) == NO_ERROR


def test_errors_of_points_are_not_mistaken_for_errors_of_maps():
    """A point of wrong depth has one residual in all frames, at nearly one position."""
    rng = np.random.default_rng(0)
    frame, point = np.divmod(np.arange(FRAMES * POINTS), POINTS)
    xy = rng.uniform(0, 1, (POINTS, 2))[point] + 1e-3 * frame[:, None]
    own = 0.03 * rng.standard_normal(POINTS)[point]
    assert choose_smooth_error(DepthResiduals(frame, point, xy, own)) == NO_ERROR


def test_outliers_have_little_influence():
    given = residuals(wave, 0.005)
    rng = np.random.default_rng(1)
    outlier = rng.random(len(given.frame)) < 0.1
    perturbed = DepthResiduals(
        given.frame, given.point, given.xy, np.where(outlier, 0.6, given.residual)
    )
    model = SmoothError(0.1, 2.0)
    clean_frame, part = next(given.by_frame())
    perturbed_part = next(perturbed.by_frame())[1]
    expected = wave(part.xy, clean_frame)
    clean = np.abs(model.predict(part, part.xy) - expected).mean()
    robust = np.abs(model.predict(perturbed_part, part.xy) - expected).mean()
    assert robust < 2 * clean < 0.01


def test_far_from_all_points_there_is_no_correction():
    part = next(residuals(wave, 0.01).by_frame())[1]
    assert np.abs(SmoothError(0.1, 2.0).predict(part, np.array([[3.0, 3.0]]))) < 1e-6


def test_without_enough_points_there_is_no_error():
    given = residuals(wave, 0.01)
    few = given.select(np.flatnonzero(given.point < 5))
    assert choose_smooth_error(few) == NO_ERROR
    assert list(few.by_frame()) == []


@pytest.mark.parametrize("count", [8, 2000])
def test_the_number_of_points_is_bounded(count):
    rng = np.random.default_rng(0)
    every = DepthResiduals(
        np.zeros(count, int), np.arange(count), rng.random((count, 2)), rng.random(count)
    )
    ((_, part),) = every.by_frame()
    assert len(part.frame) == min(count, 400)
