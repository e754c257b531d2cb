"""Blurred frames: found, bridged by tracks, and not taken for moving objects or for cuts."""

import cv2
import imageio.v3 as iio
import numpy as np
import pytest
from moving import MARGIN, apply, panning, paste, texture, turn_about, warped, write_scene

from msdyn.preprocess import Footage
from msdyn.preprocess.frames.footage import steps_between
from msdyn.preprocess.frames.shots import find_cuts
from msdyn.preprocess.imaging.blur import mark_blurred
from msdyn.preprocess.imaging.flow import grey
from msdyn.preprocess.masks.motion import MotionMasks
from msdyn.preprocess.tracks.chained_flow import BRIDGED_CONFIDENCE, FlowTracks

SIZE = (96, 144)


def shaken(image, length, degrees=30.0):
    """Return an image blurred along a line of `length` px, with the noise of a sensor."""
    side = 2 * int(length) + 3
    kernel = np.zeros((side, side), np.float32)
    half = length / 2 * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    ends = [tuple(int(v) for v in np.round(side // 2 + sign * half)) for sign in (-1, 1)]
    cv2.line(kernel, *ends, 1.0)
    noise = np.random.default_rng(0).normal(0, 2, image.shape)
    blurred = cv2.filter2D(image, -1, kernel / kernel.sum()) + noise
    return np.clip(blurred, 0, 255).astype(np.uint8)


def write_images(folder, frames):
    """Write images to a folder, and return it."""
    folder.mkdir()
    for i, frame in enumerate(frames):
        iio.imwrite(folder / f"{i}.png", frame)
    return folder


def marked(frames):
    return [i for i, (_, blurred) in enumerate(mark_blurred(frames)) if blurred]


@pytest.fixture(scope="module")
def pan():
    return panning(16, SIZE, degrees=0.5, shift=(1.5, 0.4))


@pytest.mark.parametrize("run", [1, 2, 3])
@pytest.mark.parametrize("length", [6, 9, 14, 25])
def test_blurred_frames_are_found(pan, run, length):
    frames = pan[0].copy()
    for i in range(7, 7 + run):
        frames[i] = shaken(frames[i], length, degrees=40 * i)
    assert marked(frames) == list(range(7, 7 + run))
    out_of_focus = pan[0].copy()
    for i in range(7, 7 + run):
        out_of_focus[i] = cv2.GaussianBlur(out_of_focus[i], (0, 0), length / 4)
    assert marked(out_of_focus) == list(range(7, 7 + run))


def test_sharp_frames_are_not(pan):
    frames = pan[0]
    assert marked(frames) == []
    assert marked([shaken(f, 9) for f in frames]) == []  # all alike
    # A clip that loses focus for good, and one that ends blurred: there is nothing to bridge to.
    assert marked([f if i < 9 else shaken(f, 9) for i, f in enumerate(frames)]) == []
    assert marked([*frames[:-1], shaken(frames[-1], 9)]) == []
    # A wall without texture passes through a third of the image within three frames.
    wall = np.full((SIZE[0], 50, 3), 90, np.uint8)
    assert marked([paste(f, wall, (50 * (i - 6), 0))[0] for i, f in enumerate(frames)]) == []
    # A moving object alone is blurred.
    blurred = frames.copy()
    blurred[7, 30:70, 40:90] = shaken(blurred[7, 30:70, 40:90], 14)
    assert marked(blurred) == []
    assert marked(frames[:1]) == [] and marked(frames[:2]) == [] and marked([]) == []
    assert marked(np.full((9, 48, 64, 3), 120, np.uint8)) == []


def test_mark_blurred_yields_every_image_once(pan):
    images = [image for image, _ in mark_blurred(iter(pan[0]))]
    np.testing.assert_array_equal(images, pan[0])


@pytest.fixture(scope="module")
def shake():
    """Frames of a square that moves by 3 px per frame; in frame 8 the camera shakes by 9 px."""
    background = texture(SIZE[0] + 2 * MARGIN, SIZE[1] + 2 * MARGIN)
    sprite = texture(34, 34, seed=4)
    maps = [turn_about((72, 48), 0.0, (1.0 * t, 0.3 * t)) for t in range(16)]
    frames = [
        paste(warped(background, m, SIZE), sprite, (20 + 3 * t, 30))[0] for t, m in enumerate(maps)
    ]
    frames[8] = shaken(np.roll(frames[8], (4, 8), (0, 1)), 16)
    return np.stack(frames), np.stack(maps)


def test_tracks_continue_over_a_blurred_frame(shake, tmp_path):
    frames, maps = shake
    result = FlowTracks().track(write_scene(tmp_path / "s", frames))
    tracks = result.tracks
    assert result.figures["bridged_frames"] == [8]
    rows, before, after = tracks.between(7, 9)
    there = tracks.at(7)[0]
    assert len(rows) > 0.85 * len(there)  # measured: 0.93; without bridging 0.01
    own = (before[:, 0] < 35) | (before[:, 0] > 85)  # the square is elsewhere
    error = np.linalg.norm(after - apply(maps[9] @ np.linalg.inv(maps[7]), before), axis=1)[own]
    assert np.median(error) < 0.1 and np.quantile(error, 0.95) < 0.7
    middle, visible = tracks.look_up(rows, 8)
    assert visible.all()
    # The positions after it have been matched again to an earlier frame since.
    assert np.quantile(np.linalg.norm(middle - (before + after) / 2, axis=1), 0.95) < 0.3
    confidence = tracks.select(rows).confidence
    assert confidence[:, 8].max() <= BRIDGED_CONFIDENCE < np.median(confidence[:, 9])
    assert not (tracks.query_frame == 8).any()


def test_a_blurred_frame_does_not_move(shake, tmp_path):
    frames, _ = shake
    scene = write_scene(tmp_path / "s", frames)
    tracks = FlowTracks().track(scene).tracks
    shares = [(mask > 0).mean() for mask in MotionMasks().segment(scene, tracks, None).masks]
    square = 34 * 34 / (SIZE[0] * SIZE[1])
    # The blurred frame has about as many moving pixels as its neighbours.
    assert 0.5 * square < shares[8] < 2 * square
    assert abs(shares[8] - shares[7]) < 0.03 and abs(shares[8] - shares[9]) < 0.03


def test_blurred_frames_between_the_kept_ones_are_skipped(shake, tmp_path):
    frames, maps = shake
    scene = write_scene(tmp_path / "s", frames[::5])  # 0 5 10 15
    kept = np.arange(0, 16, 5)
    footage = Footage(scene, steps_between(kept, 8), kept, write_images(tmp_path / "all", frames))
    result = FlowTracks().track(scene, footage)
    assert result.figures["bridged_frames"] == [] and result.figures["frames_between"] == 12
    rows, before, after = result.tracks.between(1, 2)
    own = (before[:, 0] < 28) | (before[:, 0] > 80)
    error = np.linalg.norm(after - apply(maps[10] @ np.linalg.inv(maps[5]), before), axis=1)[own]
    assert np.quantile(error, 0.95) < 1
    assert len(rows) > 0.8 * len(result.tracks.at(1)[0])


def test_blurred_frames_are_no_cut():
    """Neither at full strength nor where only the step out of them looks like a cut."""
    frames = panning(20, (72, 120), shift=(2.0, 1.0))[0]
    for run in (1, 2, 3):
        shown = frames.copy()
        for i in range(9, 9 + run):
            shown[i] = shaken(np.roll(shown[i], (9, 14), (0, 1)), 30)
        assert find_cuts(np.stack([grey(f) for f in shown])).tolist() == []
    other = panning(10, (72, 120), seed=3)[0]
    shown = np.concatenate([frames[:10], other])
    shown[9] = shaken(shown[9], 30)  # blurred until the cut
    assert find_cuts(np.stack([grey(f) for f in shown])).tolist() in ([9], [10], [9, 10])
