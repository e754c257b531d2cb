"""Temporal consistency in closed form."""

import numpy as np
import pytest

from msdyn.evaluate import acceleration_error, flicker, jitter


def test_jitter_of_static_points_is_zero_and_of_an_oscillation_its_amplitude() -> None:
    static = np.tile(np.array([1.0, 2, 3]), (4, 10, 1))
    assert jitter(static) == 0
    oscillating = static.copy()
    oscillating[:, ::2, 0] += 0.3  # back and forth, 0.3 per frame
    assert jitter(oscillating) == pytest.approx(0.3)


def test_jitter_without_points_or_motion_is_nan() -> None:
    assert np.isnan(jitter(np.zeros((0, 5, 3))))
    assert np.isnan(jitter(np.zeros((3, 1, 3))))


def test_constant_velocity_is_no_acceleration_error_and_a_parabola_is() -> None:
    time = np.arange(8.0)
    truth = np.random.default_rng(0).normal(size=(5, 8, 3))
    drift = time[None, :, None] * np.array([0.1, -0.2, 0.3]) + 4
    assert acceleration_error(truth + drift, truth) == pytest.approx(0, abs=1e-12)
    bend = 0.5 * time[None, :, None] ** 2 * np.array([0.0, 0.6, 0.8])
    assert acceleration_error(truth + bend, truth) == pytest.approx(1.0)
    assert np.isnan(acceleration_error(truth[:, :2], truth[:, :2]))


def test_flicker_counts_only_static_pixels() -> None:
    truth = np.full((3, 4, 4, 3), 100, np.uint8)
    truth[1, :2] = 200  # the upper half changes
    images = np.full_like(truth, 50)
    images[1, :2] = 250  # where the truth changes too: not counted
    assert flicker(images, truth) == 0
    images[1, 2:] = 60
    assert flicker(images, truth) == pytest.approx(10 / 255)
    mask = np.ones((3, 4, 4), bool)
    mask[1, 2:] = False
    assert np.isnan(flicker(images, truth, mask))
