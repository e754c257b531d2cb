"""Memory on long clips: what is settled in parts is what it would be at once, and takes less."""

import tracemalloc

import numpy as np
import pytest

from msdyn.geometry import Cameras
from msdyn.preprocess.imaging.connected_components import connected_in_clip, connected_regions
from msdyn.preprocess.imaging.mask_stack import MaskStack
from msdyn.preprocess.masks import static_tests
from msdyn.preprocess.masks.instances import split_instances
from msdyn.preprocess.masks.static_tests import StaticPoints
from msdyn.preprocess.multiview import two_view
from msdyn.preprocess.multiview.two_view import LifeQuantile, group_quantile
from msdyn.preprocess.tracks.chained_flow import FlowTracks
from msdyn.scene import Tracks


def random_tracks(rng, count, frames, life):
    """Tracks that live up to `life` frames, somewhere in the clip, with holes."""
    start = rng.integers(0, frames, count)
    age = np.arange(frames) - start[:, None]
    visible = (age >= 0) & (age < rng.integers(0, life, count)[:, None])
    visible &= rng.random(visible.shape) < 0.9
    xy = rng.uniform(0, 60, (*visible.shape, 2))
    return Tracks.from_dense(xy, visible, visible * 1.0, np.zeros(count), start)


@pytest.mark.parametrize("life", [6, 80])
@pytest.mark.parametrize("q", [0.0, 0.5, 0.8, 1.0])
def test_quantiles_over_lives_that_come_and_go(monkeypatch, q, life):
    rng = np.random.default_rng(0)
    tracks = random_tracks(rng, 600, 80, life)
    monkeypatch.setattr(two_view, "PENDING", 200)
    voted, rows, values, waiting = LifeQuantile(tracks, q), [], [], []
    for frame in range(80):
        for later in (frame, min(frame + 3, 79)):  # twice per frame
            rows.append(tracks.between(frame, later)[0])
            values.append(rng.normal(size=len(rows[-1])))
            voted.add(frame, rows[-1], values[-1])
            waiting.append(voted._count)
    once = group_quantile(np.concatenate(rows), np.concatenate(values), q, 600)
    np.testing.assert_array_equal(voted.result(), once)
    assert np.isnan(once).any() and np.isfinite(once).any()
    if life == 6:
        assert max(waiting) < 350  # of 1589


def test_quantiles_without_any_value():
    tracks = random_tracks(np.random.default_rng(0), 3, 4, 3)
    assert np.isnan(LifeQuantile(tracks, 0.5).result()).all()
    assert len(LifeQuantile(tracks.select(slice(0)), 0.5).result()) == 0


def test_still_points_in_blocks_are_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    tracks = random_tracks(rng, 200, 30, 12)
    poses = np.tile(np.eye(4), (30, 1, 1))
    poses[:, 0, 3] = 0.1 * np.arange(30)
    cameras = Cameras.pinhole(60.0, 60, 60, poses)
    whole = StaticPoints(tracks, cameras)
    monkeypatch.setattr(static_tests, "BLOCK", 50)
    parts = StaticPoints(tracks, cameras)
    np.testing.assert_array_equal(parts.distances, whole.distances)
    rows = np.flatnonzero(tracks.lifetimes)
    np.testing.assert_array_equal(parts.depth(3, rows), whole.depth(3, rows))
    np.testing.assert_array_equal(np.isnan(whole.distances), tracks.lifetimes == 0)
    assert np.isinf(whole.distances).any()


def test_masks_of_a_clip_read_as_an_array_and_take_little():
    rng = np.random.default_rng(0)
    labels = np.zeros((20, 90, 120), np.uint8)
    for t in range(20):
        labels[t, 20 + t : 50 + t, 30:80] = rng.integers(1, 4)
    for array in (labels, labels > 0, labels.astype(np.int64), labels[:0]):
        stack = MaskStack(array)
        assert len(stack) == len(array)
        np.testing.assert_array_equal(np.asarray(stack).reshape(array.shape), array)
        for t, frame in enumerate(stack):
            assert frame.dtype == array.dtype
            np.testing.assert_array_equal(frame, array[t])
    assert sum(len(packed) for packed in MaskStack(labels)._packed) < labels.size / 40


def test_regions_through_a_clip_are_those_of_the_whole_volume():
    rng = np.random.default_rng(0)
    for share in (0.1, 0.3, 0.5):
        masks = rng.random((9, 14, 17)) < share
        masks[4] &= share > 0.2  # nothing in the middle
        expected = connected_regions(masks)
        found = np.asarray(connected_in_clip(masks))
        pairs = np.unique(np.stack([expected.ravel(), found.ravel()], 1), axis=0)
        assert len(pairs) == expected.max() + 1 == found.max() + 1  # the same, numbered anyhow
        np.testing.assert_array_equal(found > 0, masks)


@pytest.mark.reliability
def test_splitting_takes_less_than_a_byte_a_pixel():
    """Nine objects that never touch, in 15 and in 30 frames."""
    peaks = []
    for frames in (5, 15, 30):  # the first imports what it needs
        moving = np.zeros((frames, 120, 160), bool)
        for row in (5, 45, 85):
            for column in (5, 55, 105):
                moving[:, row : row + 25, column : column + 30] = True
        y, x = (2 * axis.ravel() for axis in np.mgrid[2:120:6, 2:160:6])
        xy = np.repeat(np.stack([x, y], 1)[:, None], frames, axis=1)
        shown, none = np.ones(xy.shape[:2], bool), np.zeros(len(xy))
        tracks = Tracks.from_dense(xy, shown, shown * 1.0, none, none)
        tracemalloc.start()
        try:
            labels = split_instances(moving, tracks, 2.0, 24.0)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert sorted(np.unique(labels)) == list(range(10)) and labels.dtype == np.uint8
        np.testing.assert_array_equal(np.asarray(labels) > 0, moving)
    growth = (peaks[2] - peaks[1]) / 15
    assert growth < 0.3 * moving[0].size  # an array of labels takes 1


@pytest.mark.reliability
def test_any_regions_and_tracks_are_split():
    """Squares that drift and random tracks; some labels end up without a pixel of their own."""
    for seed in range(100, 210):
        rng = np.random.default_rng(seed)
        frames = int(rng.integers(1, 14))
        moving = np.zeros((frames, 24, 32), bool)
        for _ in range(int(rng.integers(1, 5))):
            y, x, side = rng.integers(0, 18), rng.integers(0, 24), rng.integers(3, 12)
            down, right = rng.integers(-1, 2, 2)
            for t in range(frames):
                top, left = max(0, y + down * t), max(0, x + right * t)
                moving[t, top : top + side, left : left + side] = True
        count = int(rng.integers(0, 120))
        born = rng.integers(0, frames, count)
        age = np.arange(frames) - born[:, None]
        seen = (age >= 0) & (age < rng.integers(1, 10, count)[:, None])
        speed = rng.choice([[2, 0], [-2, 1], [0, 0]], count)
        xy = rng.uniform(0, [64, 48], (count, 1, 2)) + speed[:, None] * np.arange(frames)[:, None]
        tracks = Tracks.from_dense(
            xy.clip(0, 48) * seen[..., None], seen, seen * 1.0, np.zeros(count), born
        )
        labels = np.asarray(split_instances(moving, tracks, 2.0, 24.0))
        mass = np.bincount(labels.ravel())[1:]
        assert labels.shape == moving.shape and not labels[~moving].any()
        assert (mass > 0).all() and (np.diff(mass) <= 0).all()


def test_flow_tracks_are_runs_without_holes(square):
    tracks = square[1]
    assert (tracks.lifetimes == tracks.stop - tracks.start).all()
    assert (tracks.lifetimes >= FlowTracks().min_life).all()
    assert (tracks.query_frame == tracks.start).all() and tracks.run_visible.all()
