"""The parts of masks by motion: geometry of two views, odds, regions, instances, static tests."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moving import apply, turn_about

from msdyn.geometry import Cameras, project, transform_points
from msdyn.preprocess.imaging.connected_components import (
    close_holes,
    connected_regions,
    drop_specks,
    fill_from_nearest,
    smooth_regions,
)
from msdyn.preprocess.masks.instances import split_instances
from msdyn.preprocess.masks.motion import _only_in_two_views, interpolate_odds, joint_scores
from msdyn.preprocess.masks.static_tests import StaticPoints, looks_static
from msdyn.preprocess.multiview.two_view import group_quantile, two_view_motion
from msdyn.scene import Tracks


def tracks_of_points(xyz, velocity, frames=12):
    """Return exact tracks of points [N, 3] with velocities [N, 3], of a translating camera."""
    positions = xyz[:, None] + np.arange(frames)[:, None] * (velocity[:, None] - (0.1, 0, 0))
    xy = 200 * positions[..., :2] / positions[..., 2:] + 160
    shape = xy.shape[:2]
    unknown, first = np.full(len(xy), -1), np.zeros(len(xy), int)
    return Tracks.from_dense(xy, np.ones(shape, bool), np.ones(shape), unknown, first)


def test_scores_of_points_behind_a_camera():
    """Their distance is infinite; two views may say 0 of the same track, or nothing."""
    distances = np.array([np.inf, np.inf, np.inf, 4.0, 0.0, np.nan])
    epipolar = np.array([0.0, 2.0, np.nan, 9.0, 3.0, 1.0])
    with np.errstate(all="raise"):
        scores = joint_scores(distances, epipolar)
    np.testing.assert_array_equal(scores, [np.inf, np.inf, np.nan, 6.0, 0.0, np.nan])


def test_two_view_motion_of_exact_tracks():
    """Static points obey the epipolar geometry, moving ones do not; planes the homography too."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform((-2, -1.5, 3), (2, 1.5, 6), (300, 3))
    velocity = np.zeros((300, 3))
    velocity[290:, 1] = 0.15  # across the camera's motion
    motion = two_view_motion(tracks_of_points(xyz, velocity))
    assert motion.epipolar[:290].max() < 0.1 and motion.epipolar[290:].min() > 2
    assert np.median(motion.planar[:290]) > 1 and motion.inliers < 0.8
    assert motion.scores[:290].max() < 0.5
    assert motion.scores[290:].min() > 2

    xyz[:, 2] = 5 + 0.3 * xyz[:, 0]
    tracks = tracks_of_points(xyz, velocity)
    motion = two_view_motion(tracks)
    assert motion.planar[:290].max() < 0.05 and motion.planar[290:].min() > 2
    assert motion.inliers == pytest.approx(290 / 300, abs=1e-3)
    rows = np.arange(290)
    np.testing.assert_allclose(motion.predict(3, 8, rows), tracks.xy[:290, 8], atol=0.05)
    assert np.isnan(motion.predict(3, 7, rows)).all()  # not one of the gaps


@pytest.mark.parametrize("failing", ["findFundamentalMat", "findHomography"])
def test_views_without_a_model_are_judged_by_the_other_one(monkeypatch, failing):
    """OpenCV raises where no sample gives a model, as on a real clip with a rotating camera."""

    def fail(*args, **options):
        raise cv2.error("Assertion failed")

    monkeypatch.setattr(cv2, failing, fail)
    rng = np.random.default_rng(0)
    xyz = rng.uniform((-2, -1.5, 3), (2, 1.5, 6), (300, 3))
    xyz[:, 2] = 5 + 0.3 * xyz[:, 0]
    velocity = np.zeros((300, 3))
    velocity[290:, 1] = 0.15
    tracks = tracks_of_points(xyz, velocity)
    motion = two_view_motion(tracks)
    assert motion.epipolar[:290].max() < 0.1 and motion.epipolar[290:].min() > 2
    if failing == "findHomography":
        assert np.isnan(motion.planar).all() and motion.homographies == {}
        assert np.isnan(motion.predict(3, 8, np.arange(5))).all()
    else:
        np.testing.assert_array_equal(motion.scores > 1, np.arange(300) >= 290)


@given(st.data())
def test_group_quantile_matches_sorting_each_group(data):
    count = data.draw(st.integers(1, 6))
    group = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=30)), int)
    values = np.array(
        data.draw(st.lists(st.floats(-9, 9), min_size=len(group), max_size=len(group)))
    )
    q = data.draw(st.sampled_from([0.0, 0.5, 0.8, 1.0]))
    result = group_quantile(group, values, q, count)
    for i in range(count):
        own = np.sort(values[group == i])
        expected = np.quantile(own, q, method="lower") if len(own) else np.nan
        np.testing.assert_equal(result[i], expected)


def test_interpolated_odds_are_a_local_mean():
    y, x = np.mgrid[2:60:4, 2:80:4]
    xy = np.stack([x.ravel(), y.ravel()], 1)[:, None].astype(np.float32)
    shape = xy.shape[:2]
    tracks = Tracks.from_dense(
        xy, np.ones(shape, bool), np.ones(shape), np.full(len(xy), -1), np.zeros(len(xy), int)
    )
    odds = np.where(xy[:, 0, 0] < 40, 6.0, -6.0)
    p = interpolate_odds(tracks, odds, 0, (60, 80))
    assert p.shape == (30, 40)
    assert p[:, :16].min() > 0.95 and p[:, 24:].max() < 0.05
    # Tracks that are left out do not change the result of their neighbours.
    odds[::2] = np.nan
    p = interpolate_odds(tracks, odds, 0, (60, 80))
    assert p[:, :14].min() > 0.9 and p[:, 26:].max() < 0.1
    even = interpolate_odds(tracks, np.zeros(len(xy)), 0, (60, 80))
    np.testing.assert_allclose(even, 0.5, atol=1e-4)


def test_regions():
    mask = np.zeros((12, 20), bool)
    mask[1:9, 1:9] = True
    mask[3, 3] = False  # a small hole
    mask[2:10, 12:19] = True
    mask[4:8, 14:17] = False  # a large one
    mask[11, 0] = True
    regions = connected_regions(mask)
    assert regions.max() == 3 and (regions > 0).sum() == mask.sum()
    closed = close_holes(mask, 0.05)
    assert closed[3, 3] and not closed[5, 15]
    kept = drop_specks(mask.astype(np.uint8), 0.05)
    assert kept[11, 0] == 0 and kept[1, 1] == 1 and kept[2, 12] == 1
    filled = fill_from_nearest(regions, regions > 0)
    assert (filled[mask] == regions[mask]).all() and filled[3, 3] == regions[2, 3]
    np.testing.assert_array_equal(fill_from_nearest(regions, np.zeros_like(mask)), regions)


def test_regions_of_smooth_motion():
    y, x = np.mgrid[0:60:5, 0:120:5].reshape(2, -1)
    xy = np.stack([x, y], 1) + np.random.default_rng(0).uniform(-1, 1, (len(x), 2))
    right = xy[:, 0] > 60
    turn = apply(turn_about((60, 30), 12, (3, 1)), xy) - xy  # all as one
    assert (smooth_regions(xy, turn, 0.4) == 1).all()
    hinge = np.where(right[:, None], apply(turn_about((60, 30), 20, (0, 0)), xy) - xy, 0)
    assert (smooth_regions(xy, hinge, 0.4) == 1).mean() > 0.8  # but where it opens or folds
    bend = np.stack([np.zeros(len(xy)), (xy[:, 0] / 30) ** 2], 1)
    assert (smooth_regions(xy, bend, 0.4) == 1).all()
    slide = np.where(right[:, None], [0.0, 6.0], 0.0)
    region = smooth_regions(xy, slide, 0.4)
    assert set(np.unique(region[right])) <= {0, region[-1]} and region[-1] > 0
    assert set(np.unique(region[~right])) <= {0, region[0]} and region[0] > 0
    assert region[0] != region[-1] and (region > 0).mean() > 0.9
    # A track that went astray is in no region and links nothing.
    slide[40] = [9.0, -9.0]
    assert smooth_regions(xy, slide, 0.4)[40] == 0
    for few in (np.zeros((0, 2)), xy[:2], np.stack([np.arange(9.0), np.zeros(9)], 1)):
        assert (smooth_regions(few, 0 * few, 0.4) == 0).all()


@pytest.mark.parametrize("by_motion", [True, False])
@pytest.mark.parametrize(("speed", "border"), [(3.0, 80), (0.0, 80), (3.0, 132)])
def test_what_always_touches_is_split_where_it_slides_if_asked_to(by_motion, speed, border):
    """Two parts of a region in static masks; the right one slides down along the left one.

    They are equally large, or the right one is a bag beside the one who carries it.
    """
    y, x = np.mgrid[4:96:4, 4:156:4].reshape(2, -1)
    start = np.repeat(np.stack([x, y], 1)[:, None], 12, axis=1).astype(float)
    xy = start + np.where(x > border, speed, 0)[:, None, None] * [0, 1] * np.arange(12)[:, None]
    seen, none = (xy[..., 1] < 96), np.zeros(len(xy))
    tracks = Tracks.from_dense(xy * seen[..., None], seen, seen * 1.0, none, none)
    moving = np.zeros((12, 50, 80), bool)
    moving[:, 1:49, 1:79] = True
    labels = np.asarray(split_instances(moving, tracks, 2.0, 24.0, by_motion=by_motion))
    if not (by_motion and speed):
        np.testing.assert_array_equal(labels, moving)
        return
    assert labels.max() == 2
    left, right = labels[0, 25, 10], labels[0, 25, 72]
    assert left != right
    # The upper right runs out of tracks.
    assert (labels[:, 2:48, 2 : border // 2 - 4] == left).mean() > 0.95
    assert (labels[:6, 24:48, border // 2 + 4 : 78] == right).mean() > 0.95


def test_what_two_views_alone_see_stays_whole_or_goes():
    """Two objects: cameras see most of the one, and nothing to speak of of the other."""
    two = np.zeros((12, 40, 60), bool)
    two[:, 5:20, 5:20] = True
    two[:, 22:36, 35:55] = True
    many = two.copy()
    many[:, 5:20, 16:20] = False  # a static part, a quarter
    many[:, 22:36, 37:55] = False
    none = np.zeros((0, 12))
    tracks = Tracks.from_dense(np.zeros((0, 12, 2)), none, none, np.zeros(0), np.zeros(0))
    points = StaticPoints(tracks, Cameras.pinhole(60.0, 60, 40, np.tile(np.eye(4), (12, 1, 1))))
    found = _only_in_two_views(two, many, tracks, points, 24.0)
    expected = two.copy()
    expected[:, 5:20, 5:20] = False
    np.testing.assert_array_equal(np.asarray(found), expected)
    for known in (two, ~two & two):
        assert not np.any(_only_in_two_views(known, two, tracks, points, 24.0))


@pytest.mark.parametrize(
    "speed, wobble, standing, static",
    [
        (0.0, 0.0, True, True),
        (0.5, 0.0, True, False),  # alongside the camera: a static point fits it, twice as far
        (0.0, 0.05, True, False),  # stays where it is, but shakes
        (0.0, 0.0, False, False),  # hangs: its depth is unknown
    ],
)
def test_an_object_on_the_ground_is_static(speed, wobble, standing, static):
    """A board 3 away, a part of the object's own, before a wall 6 away; the camera slides past."""
    rng = np.random.default_rng(0)
    frames, size = 20, (96, 128)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 0, 3] = -0.03 * np.arange(frames)
    cameras = Cameras.pinhole(110.0, size[1], size[0], poses)
    board = np.c_[rng.uniform(-0.2, 0.6, 250), rng.uniform(-0.3, 0.3, 250), np.full(250, 3.0)]
    foot = np.c_[rng.uniform(-0.2, 0.6, 250), rng.uniform(0.3, 0.8, 250), np.full(250, 3.0)]
    wall = np.c_[rng.uniform(-4, 5, 900), rng.uniform(-2.6, 2.6, 900), np.full(900, 6.0)]
    lower = foot if standing else np.zeros((0, 3))
    xyz = np.tile(np.concatenate([board, lower, wall]), (frames, 1, 1))
    xyz[:, :250, 0] += speed * 0.03 * np.arange(frames)[:, None]
    xyz[:, :250] += wobble * np.sin(np.arange(frames))[:, None, None] * [0, 1, 0]
    xy = project(cameras.intrinsics, transform_points(poses, xyz)).swapaxes(0, 1)
    xy += rng.normal(0, 0.1, xy.shape)
    visible = ((xy >= 0) & (xy <= size[::-1])).all(-1)
    # The wall behind the board is occluded.
    corners = xyz[:, :250] + poses[:, None, :3, 3]
    low = 110 * corners.min(1)[:, :2] / 3 + [64, 48]
    high = 110 * corners.max(1)[:, :2] / 3 + [64, 48]
    behind = ((xy[-900:] > low - 1) & (xy[-900:] < high + 1)).all(-1)
    visible[-900:] &= ~behind
    visible = visible[seen := visible.sum(1) > 2]
    xy = np.where(visible[..., None], xy[seen], 0)
    count = len(xy)
    tracks = Tracks.from_dense(
        xy, visible, visible.astype(float), np.full(count, -1), np.zeros(count)
    )
    own = np.zeros((frames, 48, 64), bool)
    for mask, (x0, y0), (x1, y1) in zip(own, low / 2, high / 2, strict=True):
        mask[round(y0) : round(y1) + 1, max(round(x0), 0) : round(x1) + 1] = True
    points = StaticPoints(tracks, cameras)
    assert looks_static(points, tracks, own, own) == static
    assert not looks_static(points, tracks, ~own & own, own)
