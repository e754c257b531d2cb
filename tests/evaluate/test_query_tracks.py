"""Track queries of a sequence, against paths in closed form."""

import numpy as np
import pytest
import torch
from exact_fits import moving_points, three_points

from msdyn.evaluate import epe3d
from msdyn.geometry import project
from msdyn.render import query_objects, query_tracks

FRAMES = 11


def pixels(sequence, frame):
    """Return the projections of the Gaussians in a frame, [N, 2] px."""
    means = sequence.posed(torch.tensor([float(frame)])).means[0].detach().double().numpy()
    return project(sequence.cameras.intrinsics[0], means)


def paths(sequence):
    times = torch.arange(float(len(sequence.timeline)))
    return sequence.posed(times).means.detach().numpy().swapaxes(0, 1)


def test_epe3d_in_closed_form():
    truth = np.zeros((2, 4, 3))
    tracks = truth + [3.0, 0, 4.0]
    tracks[1] = [0, 1.0, 0]
    assert epe3d(tracks, truth) == pytest.approx(3.0)
    valid = np.array([[True] * 4, [False] * 4])
    assert epe3d(tracks, truth, valid) == pytest.approx(5.0)
    assert np.isnan(epe3d(tracks, truth, ~valid & valid))
    assert np.isnan(epe3d(tracks[:0], truth[:0]))


@pytest.mark.parametrize("frame", [0, 4, FRAMES - 1])
def test_a_query_in_any_frame_returns_the_path(frame):
    sequence = three_points(FRAMES)
    found = query_tracks(sequence, np.full(3, frame), pixels(sequence, frame))
    # 11 frames take two passes of the rasterizer; largest error 4e-7.
    np.testing.assert_allclose(found, paths(sequence), atol=5e-6)


def test_queries_of_many_frames_keep_their_order():
    sequence = three_points(FRAMES)
    frames = np.array([7, 0, 3, 7])
    rows = np.array([2, 0, 1, 0])
    xy = np.stack([pixels(sequence, f)[i] for f, i in zip(frames, rows, strict=True)])
    found = query_tracks(sequence, frames, xy)
    np.testing.assert_allclose(found, paths(sequence)[rows], atol=5e-6)


def test_a_query_returns_the_nearest_surface():
    """Two points on one ray: the near one, almost opaque, occludes the far one."""
    translations = np.zeros((2, 3, 3))
    translations[0, :, 0], translations[1, :, 0] = [0, 0.1, 0.2], [0, -0.1, -0.2]
    sequence = moving_points([[0, 0, 2.0], [0, 0, 3.0]], translations, scale=0.2)
    query = np.zeros(1, int), np.array([[32.0, 24.0]])
    near, far = paths(sequence)
    np.testing.assert_allclose(query_tracks(sequence, *query)[0], near, atol=1e-6)
    # At (32, 24), the corner of four pixels, the near one covers 0.998 exp(-d^2 / 2 s^2).
    sigma2 = (0.2 * 60 / 2) ** 2 + 0.3
    cover = 0.998 * np.exp(-0.5 * 0.5 / sigma2)
    behind = 0.998 * np.exp(-0.5 * 0.5 / ((0.2 * 60 / 3) ** 2 + 0.3)) * (1 - cover)
    expected = (cover * near + behind * far) / (cover + behind)
    found = query_tracks(sequence, *query, blended=True)[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("front", "shown"), [(0.7, 1), (0.4, 2)])
def test_a_point_at_a_silhouette_belongs_to_the_object_of_the_largest_weight(front, shown):
    """A half transparent point moves sideways in front of another one."""
    translations = np.zeros((2, 3, 3))
    translations[0, :, 0] = [0, 0.1, 0.2]
    sequence = moving_points([[0, 0, 2.0], [0, 0, 3.0]], translations, scale=0.3)
    sequence.moving.opacity_logits.data[0] = np.log(front / (1 - front))
    query = np.zeros(1, int), np.array([[32.0, 24.0]])
    assert query_objects(sequence, *query).tolist() == [shown]
    found = query_tracks(sequence, *query)[0]
    np.testing.assert_allclose(found, paths(sequence)[shown - 1], atol=1e-6)
    depth = query_tracks(sequence, *query, blended=True)[0, 0, 2]
    assert 2.2 < depth < 2.7  # between the two


def test_a_wide_gaussian_does_not_pull_a_point_to_its_centre():
    """A pixel off its centre: the point on the pixel's ray at its depth, with its motion."""
    translations = np.zeros((1, 3, 3))
    translations[0, :, 1] = [0, 0.1, 0.2]
    sequence = moving_points([[0, 0, 2.0]], translations, scale=0.3)
    query = np.zeros(1, int), np.array([[38.0, 24.0]])  # 6 px off, which is 0.2 at this depth
    expected = translations[0] + [0.2, 0, 2]
    np.testing.assert_allclose(query_tracks(sequence, *query)[0], expected, atol=1e-6)
    blended = query_tracks(sequence, *query, blended=True)[0]
    np.testing.assert_allclose(blended, paths(sequence)[0], atol=1e-6)


def test_levels_and_empty_pixels():
    sequence = three_points(FRAMES)
    at_rest = query_tracks(sequence, np.zeros(3, int), pixels(sequence, 0), levels=0)
    np.testing.assert_allclose(at_rest, np.repeat(paths(sequence)[:, :1], FRAMES, 1), atol=5e-6)
    nothing = query_tracks(sequence, np.zeros(1, int), np.array([[2.0, 46.0]]))
    assert nothing.shape == (1, FRAMES, 3) and np.isnan(nothing).all()
    assert query_tracks(sequence, np.zeros(0, int), np.zeros((0, 2))).shape == (0, FRAMES, 3)


def test_an_exact_motion_gives_the_true_tracks(boxes_fit, boxes_truth):
    """Up to the resolution: half a pixel is 1.6 cm here."""
    tracks = boxes_truth.tracks
    found = query_tracks(boxes_fit, tracks.query_frame, tracks.query_xy)
    for instance in (1, 2):
        own = tracks.object == instance
        error = np.linalg.norm(found - tracks.xyz, axis=-1)[own].mean(1)
        moved = np.linalg.norm(tracks.xyz[own, -1] - tracks.xyz[own, 0], axis=-1)
        assert moved.mean() > 0.3
        assert np.median(error) < 0.03  # measured: 0.022 and 0.024
