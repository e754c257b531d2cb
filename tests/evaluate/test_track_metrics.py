"""Track metrics: closed forms, plain loops as the oracle, and invariances."""

import itertools

import numpy as np
import pytest

from msdyn.evaluate import (
    image_track_metrics,
    normalised_track_metrics,
    pck_transfer,
    track_metrics,
    transfer_metrics,
)

THRESHOLDS = (4, 8, 16, 32, 64)


def random_tracks(seed=0, frames=5, points=12, lost=0.1):
    """Return truth [T, J, 2|3], visibility, and estimates [Q, T, J, 2|3], some of them missing."""
    rng = np.random.default_rng(seed)
    visible = rng.random((frames, points)) < 0.6
    xyz = rng.normal(size=(frames, points, 3)) * 0.3
    found = xyz + 0.07 * rng.normal(size=(frames, *xyz.shape))
    found[rng.random(found.shape[:3]) < lost] = np.nan
    xy = rng.random((frames, points, 2)) * 100
    near = xy + rng.normal(size=(frames, *xy.shape)) * 15
    predicted = rng.random((frames, frames, points)) < 0.7
    return xyz, visible, found, xy, near, predicted


def test_distances_and_shares_in_closed_form():
    truth = np.zeros((1, 4, 3))
    tracks = truth.copy()
    tracks[0, :, 0] = [0.02, 0.05, 0.07, 0.30]
    result = track_metrics(tracks, truth)
    assert result["epe3d"] == pytest.approx(0.11)
    # The threshold itself is excluded, as in the code of DyCheck and shape-of-motion.
    assert (result["delta_0.05"], result["delta_0.10"]) == (0.25, 0.75)
    tracks[0, 0] = np.nan
    lost = track_metrics(tracks, truth)
    assert lost["epe3d"] == pytest.approx(0.42 / 3)  # over existing estimates
    assert (lost["delta_0.05"], lost["delta_0.10"]) == (0, 0.5)  # a missing estimate is wrong
    nothing = track_metrics(tracks, truth, np.zeros((1, 4), bool))
    assert all(np.isnan(value) for value in nothing.values())


def test_normalised_tracks_need_no_scale():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(30, 7, 3)) + [0, 0, 3]
    tracks = truth + 0.05 * rng.normal(size=truth.shape)
    plain, scaled = (normalised_track_metrics(t, truth) for t in (tracks, 17 * tracks))
    assert scaled == pytest.approx(plain)
    assert normalised_track_metrics(3 * truth, truth)["epe3d"] == pytest.approx(0)
    # Three points at distances 1, 2, 3 and one estimate off by 1 at the median distance of 2.
    line = np.array([[1.0, 0, 0], [2, 0, 0], [3, 0, 0]])
    off = line + [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert normalised_track_metrics(off, line)["epe3d"] == pytest.approx(1 / 2 / 3)
    assert normalised_track_metrics(off, line)["delta_0.05"] == pytest.approx(2 / 3)
    off[0] = np.nan  # medians: 3 of the estimate, 2.5 of the truth where there is an estimate
    expected = (abs(2 / 3 - 2 / 2.5) + abs(4 / 3 - 3 / 2.5)) / 2
    assert normalised_track_metrics(off, line)["epe3d"] == pytest.approx(expected)
    assert np.isnan(normalised_track_metrics(off * np.nan, line)["epe3d"])
    assert normalised_track_metrics(off * np.nan, line)["delta_0.10"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_transfer_agrees_with_a_plain_loop(seed):
    xyz, visible, found, *_ = random_tracks(seed)
    errors, close, closer = [], [], []
    frames, points = visible.shape
    for q, t in itertools.product(range(frames), repeat=2):
        distances = []
        for j in range(points):
            if visible[q, j] and visible[t, j]:
                d = sum((found[q, t, j, k] - xyz[t, j, k]) ** 2 for k in range(3)) ** 0.5
                distances.append(d)
        if not distances:
            continue
        drawn = [d for d in distances if not np.isnan(d)]
        if drawn:
            errors.append(sum(drawn) / len(drawn))
        close.append(sum(d < 0.1 for d in distances) / len(distances))
        closer.append(sum(d < 0.05 for d in distances) / len(distances))
    result = transfer_metrics(found, xyz, visible)
    assert result["epe3d"] == pytest.approx(np.mean(errors))
    assert result["delta_0.10"] == pytest.approx(np.mean(close))
    assert result["delta_0.05"] == pytest.approx(np.mean(closer))


def test_transfer_averages_pairs_of_frames_not_points():
    """Frame 0 and 1 share one point that is 1 off, frame 1 and 2 three that are exact."""
    visible = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 1]], bool)
    xyz = np.zeros((3, 4, 3))
    found = np.zeros((3, 3, 4, 3))
    found[0, 1, 0] = found[1, 0, 0] = [1, 0, 0]
    # Ordered pairs: (0,0) (0,1) (1,0) (1,1) (1,2) (2,1) (2,2); 0 and 2 share nothing.
    assert transfer_metrics(found, xyz, visible)["epe3d"] == pytest.approx(2 / 7)
    assert transfer_metrics(found, xyz, visible)["delta_0.05"] == pytest.approx(5 / 7)


def test_keypoint_transfer_in_closed_form():
    """The threshold is .05 of the longer side: 5 px of 100x60."""
    visible = np.ones((2, 2), bool)
    truth = np.zeros((2, 2, 2))
    xy = np.zeros((2, 2, 2, 2))
    xy[0, 1, 0] = [4.99, 0]
    xy[0, 1, 1] = [5.01, 0]
    assert pck_transfer(xy, truth, visible, (100, 60)) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert pck_transfer(xy, truth, visible, (60, 200)) == 1
    xy[1, 1, 0] = np.nan
    assert pck_transfer(xy, truth, visible, (60, 200)) == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    visible[1, 0] = False
    assert pck_transfer(xy, truth, visible, (60, 200)) == 1
    assert np.isnan(pck_transfer(xy, truth, np.zeros((2, 2), bool), (60, 200)))


@pytest.mark.parametrize("seed", range(3))
def test_image_tracks_agree_with_a_plain_loop(seed):
    *_, xy, near, predicted = random_tracks(seed)
    visible = random_tracks(seed)[1]
    near[0, 1, :3] = np.nan
    frames, points = visible.shape
    jaccard, pck = [], []
    for limit in THRESHOLDS:
        true_positives = false_positives = positives = right = 0
        for q, t, j in itertools.product(range(frames), range(frames), range(points)):
            if q == t or not visible[q, j]:
                continue
            within = np.hypot(*(near[q, t, j] - xy[t, j])) < limit
            positives += visible[t, j]
            right += bool(visible[t, j] and within)
            true_positives += bool(visible[t, j] and within and predicted[q, t, j])
            false_positives += bool(predicted[q, t, j] and (not visible[t, j] or not within))
        jaccard.append(true_positives / (positives + false_positives))
        pck.append(right / positives)
    agree = [
        predicted[q, t, j] == visible[t, j]
        for q, t, j in itertools.product(range(frames), range(frames), range(points))
        if q != t and visible[q, j]
    ]
    result = image_track_metrics(near, predicted, xy, visible)
    assert result["average_jaccard"] == pytest.approx(np.mean(jaccard))
    assert result["average_pck"] == pytest.approx(np.mean(pck))
    assert result["occlusion_accuracy"] == pytest.approx(np.mean(agree))


def test_image_tracks_in_closed_form():
    """Perfect tracks score 1; predicting all as visible scores less."""
    visible = np.array([[True, True], [True, False]])
    truth = np.zeros((2, 2, 2))
    xy, predicted = np.zeros((2, 2, 2, 2)), np.broadcast_to(visible, (2, 2, 2))
    assert set(image_track_metrics(xy, predicted, truth, visible).values()) == {1.0}
    # Counted: point 0 from 0 to 1 and back, point 1 from 0 to 1, where it is occluded.
    result = image_track_metrics(xy, np.ones((2, 2, 2), bool), truth, visible)
    assert result["occlusion_accuracy"] == pytest.approx(2 / 3)
    assert result["average_jaccard"] == pytest.approx(2 / 3)
    result = image_track_metrics(xy + 10, predicted, truth, visible)  # 14 px: within 16, 32 and 64
    assert result["average_pck"] == pytest.approx(3 / 5)
    assert result["average_jaccard"] == pytest.approx(3 / 5)
    nothing = image_track_metrics(xy, predicted, truth, np.zeros((2, 2), bool))
    assert all(np.isnan(value) for value in nothing.values())


def test_the_order_of_points_does_not_matter():
    xyz, visible, found, xy, near, predicted = random_tracks(7)
    order = np.random.default_rng(0).permutation(visible.shape[1])
    assert transfer_metrics(found[:, :, order], xyz[:, order], visible[:, order]) == pytest.approx(
        transfer_metrics(found, xyz, visible)
    )
    mixed = image_track_metrics(
        near[:, :, order], predicted[:, :, order], xy[:, order], visible[:, order]
    )
    assert mixed == pytest.approx(image_track_metrics(near, predicted, xy, visible))
