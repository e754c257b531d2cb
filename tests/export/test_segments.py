"""Paths as straight pieces."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from msdyn.export.segments import Paths, straight_segments

SECONDS = np.arange(13) / 10
TOLERANCE = 0.5
TURNING = Rotation.from_rotvec(np.radians(150) * SECONDS[:, None] * [0, 0, 1]).as_quat()
TURNING = TURNING[:, None, [3, 0, 1, 2]]


def paths(means, *, quats=None, opacities=None, pixels=100.0, anisotropy=0.0):
    """Return paths [T, N, 3] seen at 100 px per unit, unrotated and opaque by default."""
    means = np.asarray(means, float)
    shape = means.shape[:2]
    return Paths(
        SECONDS[: shape[0]],
        means,
        np.broadcast_to([1.0, 0, 0, 0], (*shape, 4)) if quats is None else quats,
        np.ones(shape) if opacities is None else opacities,
        np.full(shape, pixels),
        np.full(shape[1], anisotropy),
    )


def along_x(values):
    return np.stack([np.asarray(values, float), 0 * SECONDS, 0 * SECONDS], -1)[:, None]


def test_a_line_is_one_piece():
    found = straight_segments(paths(along_x(2 + 3 * SECONDS)), TOLERANCE)
    assert len(found) == 1
    np.testing.assert_allclose(found.origin, [[2, 0, 0]], atol=1e-9)
    np.testing.assert_allclose(found.velocity, [[3, 0, 0]], atol=1e-9)
    assert found.begin[0] == -np.inf and found.end[0] == np.inf


def test_a_corner_divides_a_path_at_its_time():
    found = straight_segments(paths(along_x(np.abs(SECONDS - 0.6))), 1e-6)
    assert found.first.tolist() == [0, 6] and found.last.tolist() == [6, 12]
    np.testing.assert_allclose(found.velocity[:, 0], [-1, 1], atol=1e-9)
    np.testing.assert_allclose([found.end[0], found.begin[1]], 0.6)


@pytest.mark.parametrize("tolerance", [0.1, 0.5, 2.0])
def test_no_position_is_further_than_the_tolerance(tolerance):
    rng = np.random.default_rng(0)
    waves = np.sin(SECONDS[:, None, None] * rng.uniform(2, 9, (1, 5000, 3))) * 0.05
    true = paths(waves)
    found = straight_segments(true, tolerance)
    assert 5000 < len(found) < 5000 * 12
    for row, second in enumerate(SECONDS):
        now = (found.first <= row) & (row <= found.last)
        assert set(found.owner[now]) == set(range(5000))
        away = found.origin[now] + found.velocity[now] * second - waves[row, found.owner[now]]
        assert np.linalg.norm(away, axis=1).max() * 100 <= tolerance + 1e-9


def test_pieces_adjoin():
    rng = np.random.default_rng(1)
    found = straight_segments(paths(rng.normal(size=(13, 20, 3))), TOLERANCE)
    for owner in range(20):
        own = found.select(found.owner == owner)
        assert own.begin[0] == -np.inf and own.end[-1] == np.inf
        np.testing.assert_array_equal(own.end[:-1], own.begin[1:])
        assert (own.end > own.begin).all()


def test_what_changes_its_opacity_is_divided_in_the_middle():
    opacities = np.where(SECONDS < 0.45, 0.9, 0.0)[:, None]
    found = straight_segments(paths(along_x(SECONDS), opacities=opacities), TOLERANCE)
    np.testing.assert_allclose(found.opacity, [0.9, 0.0])
    np.testing.assert_allclose([found.end[0], found.begin[1]], 0.45)
    assert found.last[0] == 4 and found.first[1] == 5


@pytest.mark.parametrize("anisotropy, count", [(0.0, 1), (0.01, 4)])
def test_elongated_ones_are_divided_where_they_rotate(anisotropy, count):
    """15 degrees per time; an axis that is 1 px longer than the others may turn by 1 rad."""
    signs = np.where(np.arange(13) % 2, -1, 1)[:, None, None]  # of no meaning
    still = paths(np.zeros((13, 1, 3)), quats=TURNING * signs, anisotropy=anisotropy)
    found = straight_segments(still, TOLERANCE)
    assert len(found) == count
    middle = (found.first + found.last) / 2
    expected = Rotation.from_rotvec(np.radians(15) * middle[:, None] * [0, 0, 1])
    stored = Rotation.from_quat(found.quats_wxyz[:, [1, 2, 3, 0]])
    np.testing.assert_allclose((expected.inv() * stored).magnitude(), 0, atol=1e-9)


def test_rotations_that_must_not_be_large_divide_too():
    still = paths(np.zeros((13, 1, 3)))
    found = straight_segments(still, TOLERANCE, turning=TURNING, most_turn=np.radians(31))
    assert (found.last - found.first).tolist() == [2] * 6


@pytest.mark.parametrize("times, count", [(1, 3), (2, 3), (1, 0)])
def test_few_times_and_none(times, count):
    found = straight_segments(paths(np.ones((times, count, 3))), TOLERANCE)
    assert len(found) == count
    np.testing.assert_allclose(found.velocity, 0, atol=1e-12)
    np.testing.assert_allclose(found.origin, 1)
