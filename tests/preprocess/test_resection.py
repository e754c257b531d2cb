"""Cameras of frames between others, from points that project where they are known to."""

import numpy as np
import pytest
from cards import sliding_cameras

from msdyn.geometry import project, transform_points
from msdyn.preprocess.multiview.absolute_pose import interpolate_cameras, resect
from msdyn.scene import Tracks

FRAMES, WIDTH, HEIGHT = 21, 256, 192
KNOWN = np.arange(FRAMES) % 5 == 0


def seen_points(noise=0.0, count=400, wrong=0.0, until=FRAMES):
    """True cameras and what they see of random points: tracks, some of them wrong everywhere."""
    rng = np.random.default_rng(0)
    cameras = sliding_cameras(FRAMES, 220, WIDTH, HEIGHT, reach=1.2)
    xyz = np.c_[rng.uniform(-2, 2, (count, 2)), rng.uniform(2, 6, count)]
    local = transform_points(cameras.cam_from_world, xyz)  # [T, N, 3]
    xy = project(cameras.intrinsics, local).swapaxes(0, 1)
    seen = (xy >= 0).all(-1) & (xy <= [WIDTH, HEIGHT]).all(-1) & (np.arange(FRAMES) < until)
    xy = xy + rng.normal(0, noise, xy.shape)
    slip = rng.random(count) < wrong
    xy[slip] += 3 * np.arange(FRAMES)[:, None]
    none = np.zeros(count)
    xy = np.where(seen[..., None], xy, 0)
    return cameras, Tracks.from_dense(xy, seen, seen.astype(float), none, none)


@pytest.mark.parametrize(("noise", "wrong"), [(0.0, 0.0), (0.0, 0.2), (0.3, 0.2)])
def test_frames_between_others_are_found(noise, wrong):
    cameras, tracks = seen_points(noise, wrong=wrong)
    guess = interpolate_cameras(cameras, KNOWN)
    away = np.linalg.norm(guess.centres - cameras.centres, axis=1)
    assert away.max() > 0.04
    solved = resect(guess, KNOWN, tracks)
    np.testing.assert_array_equal(solved.found, ~KNOWN)
    left = np.linalg.norm(solved.cameras.centres - cameras.centres, axis=1)
    assert left.max() < (0.02 * noise if noise else 1e-5)
    np.testing.assert_array_equal(solved.cameras.cam_from_world[KNOWN], guess.cam_from_world[KNOWN])
    # Every frame has observations of points, near their projections.
    points = solved.points
    assert set(points.frame) == set(range(FRAMES))
    assert len(points.xyz) > 50 and points.point.max() == len(points.xyz) - 1
    local = transform_points(
        solved.cameras.cam_from_world[points.frame], points.xyz[points.point][:, None]
    )
    found = project(solved.cameras.intrinsics[points.frame], local)[:, 0]
    assert np.linalg.norm(found - points.xy, axis=1).max() < 2.5


def test_frames_without_tracks_stay_as_they_are():
    cameras, tracks = seen_points(until=12)
    guess = interpolate_cameras(cameras, KNOWN)
    solved = resect(guess, KNOWN, tracks)
    np.testing.assert_array_equal(solved.found, ~KNOWN & (np.arange(FRAMES) < 12))
    np.testing.assert_array_equal(solved.cameras.cam_from_world[12:], guess.cam_from_world[12:])


def test_nothing_to_find():
    cameras, tracks = seen_points()
    every = resect(cameras, np.ones(FRAMES, bool), tracks)
    assert not every.found.any() and not len(every.points.xyz)
    none = resect(cameras, KNOWN, tracks.select(np.zeros(0, int)))
    assert not none.found.any() and not len(none.points.xyz)
