"""The bounded choice of tracks from which the motion is initialised."""

import numpy as np
import pytest

from msdyn.fit.motion_tracks import choose_tracks, motion_tracks
from msdyn.scene import LiftedObservations, LiftedTracks

SIZE = 60, 100
FRAMES = 50


@pytest.fixture(scope="module")
def observations() -> LiftedObservations:
    """Tracks of two large objects, and of a small one that is seen in three frames only."""
    rng = np.random.default_rng(0)
    count = 3000
    objects = np.where(np.arange(count) < 20, 3, 1 + np.arange(count) % 2)
    start = np.where(objects == 3, 21, rng.integers(-5, FRAMES, count)).clip(0)
    length = np.where(objects == 3, 3, 1 + rng.geometric(0.1, count))
    xy = rng.uniform(0, 1, (count, 1, 2)) * np.array(SIZE[::-1]) + rng.normal(0, 1, (1, FRAMES, 2))
    frame = np.arange(FRAMES)
    visible = (frame >= start[:, None]) & (frame < (start + length)[:, None])
    track, number = np.nonzero(visible & (rng.random(visible.shape) < 0.9))
    return LiftedObservations.from_unordered(
        FRAMES,
        objects,
        track,
        number,
        np.zeros((len(track), 3)),
        xy[track, number].clip(0, np.array(SIZE[::-1]) - 0.01),
        np.ones(len(track), np.float32),
    ).seen()


def covered(tracks: LiftedObservations, side: float) -> set[tuple[int, ...]]:
    """The cells of images in which objects are observed."""
    cells = (tracks.xy // side).astype(int)
    return set(zip(tracks.object[tracks.track], tracks.frame, *cells.T, strict=True))


@pytest.mark.parametrize("count", [150, 400, 1000])
def test_as_many_as_allowed_cover_every_object_in_every_frame(observations, count):
    chosen = choose_tracks(observations, SIZE, count)
    assert 0.6 * count < len(chosen) <= count and (np.diff(chosen) > 0).all()
    some = observations.select(chosen)
    assert covered(some, max(SIZE)) == covered(observations, max(SIZE))
    # A half of the image has a track wherever there is one, already with few of them.
    if count >= 400:
        assert covered(some, 50) == covered(observations, 50)
    random = np.random.default_rng(0).choice(len(observations), len(chosen), replace=False)
    assert len(covered(some, 5)) > len(covered(observations.select(random), 5))
    assert some.lifetimes.mean() > observations.lifetimes.mean()


def test_all_where_there_are_few(observations):
    count = len(observations)
    np.testing.assert_array_equal(choose_tracks(observations, SIZE, count), np.arange(count))
    every = motion_tracks(observations, SIZE, count * FRAMES)
    np.testing.assert_array_equal(every.visible, observations.dense().visible)


def test_every_object_is_kept_even_if_the_bound_is_too_small(observations):
    for tracks in (motion_tracks(observations, SIZE, 0), motion_tracks(observations, SIZE, 100)):
        assert isinstance(tracks, LiftedTracks) and len(tracks) < 300
        for instance in (1, 2, 3):
            given = observations.object[observations.track] == instance
            shown = np.unique(observations.frame[given])
            np.testing.assert_array_equal(
                np.flatnonzero(tracks.visible[tracks.object == instance].any(0)), shown
            )


def test_no_tracks(observations):
    none = observations.select(np.zeros(0, int))
    assert len(motion_tracks(none, SIZE)) == 0 and len(choose_tracks(none, SIZE, 0)) == 0
