"""Observations of lifted tracks, against dense arrays."""

import numpy as np
import pytest

from msdyn.errors import InputError
from msdyn.scene import LiftedObservations

TRACKS, FRAMES = 40, 9


@pytest.fixture(scope="module")
def dense() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    visible = rng.random((TRACKS, FRAMES)) < 0.4
    visible[[3, 17, TRACKS - 1]] = False
    visible[:, 2] = False
    return {
        "visible": visible,
        "xyz": rng.standard_normal((TRACKS, FRAMES, 3)) * visible[..., None],
        "xy": rng.uniform(0, 99, (TRACKS, FRAMES, 2)) * visible[..., None],
        "confidence": rng.random((TRACKS, FRAMES)).astype(np.float32) * visible,
        "object": rng.integers(1, 4, TRACKS),
    }


@pytest.fixture(scope="module")
def observations(dense) -> LiftedObservations:
    track, frame = np.nonzero(dense["visible"])
    shuffled = np.random.default_rng(1).permutation(len(track))
    track, frame = track[shuffled], frame[shuffled]
    values = [dense[name][track, frame] for name in ("xyz", "xy", "confidence")]
    return LiftedObservations.from_unordered(FRAMES, dense["object"], track, frame, *values)


def assert_same(tracks, dense, rows):
    assert len(tracks) == len(rows) and tracks.num_frames == FRAMES
    for name, values in dense.items():
        np.testing.assert_array_equal(getattr(tracks, name), values[rows])


def test_dense_arrays(observations, dense):
    assert_same(observations.dense(), dense, np.arange(TRACKS))
    np.testing.assert_array_equal(observations.lifetimes, dense["visible"].sum(1))


@pytest.mark.parametrize("rows", [[5, 2, 3, 39, 0], [], [7, 7, 7], [17]])
def test_some_tracks(observations, dense, rows):
    rows = np.array(rows, int)
    assert_same(observations.select(rows).dense(), dense, rows)
    twice = observations.select(rows).select(np.arange(len(rows))[::-1])
    assert_same(twice.dense(), dense, rows[::-1])


def test_tracks_that_are_seen(observations, dense):
    seen = observations.seen()
    assert_same(seen.dense(), dense, np.flatnonzero(dense["visible"].any(1)))
    assert seen.seen() is seen


def test_observations_of_frames(observations, dense):
    visible = dense["visible"]
    for first in range(FRAMES):
        own = observations.at(first)
        np.testing.assert_array_equal(observations.track[own], np.flatnonzero(visible[:, first]))
        np.testing.assert_array_equal(observations.xy[own], dense["xy"][visible[:, first], first])
        for second in range(FRAMES):
            rows = np.flatnonzero(visible[:, first] & visible[:, second])
            one, other = observations.between(first, second)
            np.testing.assert_array_equal(observations.xyz[one], dense["xyz"][rows, first])
            np.testing.assert_array_equal(observations.xyz[other], dense["xyz"][rows, second])


def test_sets_of_tracks_as_one(observations, dense):
    none = observations.select(np.zeros(0, int))
    both = LiftedObservations.joined([observations.seen(), none, observations])
    rows = np.concatenate([np.flatnonzero(dense["visible"].any(1)), np.arange(TRACKS)])
    assert_same(both.dense(), dense, rows)
    assert (np.diff(both.track) >= 0).all()
    shorter = LiftedObservations.from_unordered(
        FRAMES - 1, none.object, none.track, none.frame, none.xyz, none.xy, none.confidence
    )
    for parts in ([], [observations, shorter]):
        with pytest.raises(InputError, match="same frames"):
            LiftedObservations.joined(parts)
