"""Positions of tracks, matched between images, against known translations of textures."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from msdyn.fit import track_matching
from msdyn.fit.track_matching import FrameImage, match_tracks
from msdyn.scene import Tracks

FRAMES, HEIGHT, WIDTH, COUNT = 12, 96, 128, 150


def texture(kind, rng):
    if kind == "flat":
        return np.full((200, 240), 128.0)
    values = rng.normal(size=(200, 240))
    if kind == "stripes":
        values[:] = values[:1]
    smooth = gaussian_filter(values, 1.5)
    return 128 + 45 * smooth / smooth.std()


def clip(kind="noise", jitter=0.0, seed=0):
    """Return images that translate by fractions of a pixel, true and given tracks."""
    rng = np.random.default_rng(seed)
    shifts = np.cumsum(rng.uniform(-1.2, 1.2, (FRAMES, 2)), axis=0)
    surface = texture(kind, rng)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    images = []
    for dx, dy in shifts:
        grey = map_coordinates(surface, [rows + 40 - dy, columns + 40 - dx], order=3)
        images.append(np.repeat(grey.clip(0, 255).round().astype(np.uint8)[..., None], 3, -1))
    start = rng.uniform([20, 20], [WIDTH - 20, HEIGHT - 20], (COUNT, 2))
    true = start[:, None] + shifts
    given = true + rng.normal(0, jitter, true.shape) if jitter else true
    visible = np.ones(true.shape[:2], bool)
    visible[: COUNT // 3, 4:7] = False
    ones, zeros = np.ones(visible.shape, np.float32), np.zeros(COUNT, int)
    tracks = Tracks.from_dense(given.astype(np.float32), visible, ones, zeros, zeros)
    return images, true, tracks


def matched(images, tracks, frames=None, mask=None, scale=1.0):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8) if mask is None else mask
    frames = np.arange(FRAMES) if frames is None else frames
    looked = []

    def image_of(frame):
        looked.append(frame)
        return FrameImage(images[frame], mask)

    found, noise = match_tracks(tracks, image_of, frames, np.full(2, scale))
    assert set(looked) <= set(frames.tolist())
    return found, noise


def jitter_of(tracks, true):
    """Return the median error without the constant part: any point of a surface is as good."""
    error = np.where(tracks.visible[..., None], tracks.xy - true, np.nan)
    return float(np.nanmedian(np.abs(error - np.nanmean(error, 1, keepdims=True))))


def test_jitter_of_the_tracker_is_removed():
    images, true, tracks = clip(jitter=0.7)
    found, noise = matched(images, tracks)
    assert noise == pytest.approx(0.7, rel=0.1)
    assert jitter_of(tracks, true) > 0.35
    assert jitter_of(found, true) < 0.08
    # Positions stay where they were on average, and the rest of the tracks is kept.
    assert np.abs((found.xy - tracks.xy)[tracks.visible].mean(0)).max() < 0.05
    np.testing.assert_array_equal(found.visible, tracks.visible)
    np.testing.assert_array_equal(found.query_frame, tracks.query_frame)


def test_tracks_are_matched_some_at_a_time(monkeypatch):
    images, true, tracks = clip(jitter=0.7)
    whole, _ = matched(images, tracks)
    monkeypatch.setattr(track_matching, "_BLOCK", 400)
    parts, noise = matched(images, tracks)
    # Only the measured noise differs from block to block.
    assert np.abs(parts.xy - whole.xy)[tracks.visible].max() < 0.1
    assert noise == pytest.approx(0.7, rel=0.1)


def test_exact_positions_are_kept():
    images, true, tracks = clip()
    found, noise = matched(images, tracks)
    assert noise < 0.05
    assert np.abs(found.xy - tracks.xy)[tracks.visible].max() < 0.05


def test_positions_are_of_the_size_of_the_tracks():
    images, true, tracks = clip(jitter=0.7)
    half = Tracks.from_dense(
        (tracks.xy / 2).astype(np.float32),
        tracks.visible,
        tracks.confidence,
        tracks.object,
        tracks.query_frame,
    )
    found, _ = matched(images, tracks)
    small, _ = matched(images, half, scale=2.0)
    np.testing.assert_allclose(2 * small.xy, found.xy, atol=2e-3)


def test_along_edges_positions_do_not_slide():
    images, true, tracks = clip("stripes", jitter=0.7)
    found, _ = matched(images, tracks)
    before, after = (
        np.nanstd(np.where(t.visible[..., None], t.xy - true, np.nan), axis=1).mean(0)
        for t in (tracks, found)
    )
    assert (after <= 1.02 * before).all()


def test_without_texture_nothing_changes():
    images, _, tracks = clip("flat", jitter=0.7)
    found, noise = matched(images, tracks)
    assert noise == 0 and found is tracks


def test_borders_of_masks_are_not_matched():
    images, _, tracks = clip(jitter=0.7)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[::4] = 1
    found, noise = matched(images, tracks, mask=mask)
    assert noise == 0 and found is tracks


def test_other_frames_are_not_looked_at():
    images, true, tracks = clip(jitter=0.7)
    frames = np.setdiff1d(np.arange(FRAMES), [3, 7])
    found, noise = matched(images, tracks, frames=frames)
    assert noise > 0.5
    np.testing.assert_array_equal(found.xy[:, [3, 7]], tracks.xy[:, [3, 7]])


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_too_few_frames_change_nothing(frames):
    images, _, tracks = clip(jitter=0.7)
    found, noise = matched(images, tracks, frames=np.arange(frames))
    assert noise == 0 and found is tracks
