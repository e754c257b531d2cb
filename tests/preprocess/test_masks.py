"""Masks on layered clips whose moving parts are known exactly."""

from dataclasses import replace

import numpy as np
import pytest
from moving import MARGIN, iou, panning, paste, texture, warped, write_scene

from msdyn.geometry import Cameras
from msdyn.preprocess.contracts import CameraSolution, SparsePoints, Verdict
from msdyn.preprocess.masks import motion
from msdyn.preprocess.masks.instances import VELOCITY_FRAMES, _Component
from msdyn.preprocess.masks.motion import MotionMasks, NoMasks
from msdyn.preprocess.multiview.two_view import two_view_motion
from msdyn.preprocess.tracks.chained_flow import FlowTracks
from msdyn.scene import Tracks

SIZE = (120, 160)


def segment(directory, frames, solution=None):
    """Return the masks [T, H, W] of a clip and the backend's result."""
    scene = write_scene(directory, frames)
    result = MotionMasks().segment(scene, FlowTracks().track(scene).tracks, solution)
    return np.stack(list(result.masks)), result


def crossing(frames=26):
    """Return a panned clip of two squares that pass each other, touching, and the truth."""
    clip, _ = panning(frames, SIZE, degrees=0.2, shift=(1.2, 0.3))
    sprites = texture(34, 34, seed=5), texture(30, 30, seed=6)
    truth = np.zeros((frames, *SIZE), np.uint8)
    images = []
    for t, empty in enumerate(clip):
        with_one, first = paste(empty, sprites[0], (12 + 4 * t, 28))
        with_both, second = paste(with_one, sprites[1], (118 - 4 * t, 58))
        truth[t] = np.where(second, 2, np.where(first, 1, 0))
        images.append(with_both)
    return np.stack(images), truth


def test_one_square_over_a_panned_background(tmp_path):
    clip, _ = panning(14, SIZE, shift=(1.3, -0.4))
    sprite = texture(44, 44, seed=4)
    pasted = [paste(image, sprite, (20 + 4 * t, 40)) for t, image in enumerate(clip)]
    masks, result = segment(tmp_path / "s", np.stack([image for image, _ in pasted]))
    overlaps = [iou(mask > 0, true) for mask, (_, true) in zip(masks, pasted, strict=True)]
    # Measured: mean 0.987, lowest 0.932.
    assert np.mean(overlaps) > 0.95 and min(overlaps) > 0.88
    assert masks.max() == 1
    assert not result.needs_cameras and result.better_with_cameras
    figures = result.masks.figures
    assert figures["views"] == "two"
    assert figures["moving_share"] == pytest.approx((masks > 0).mean(), abs=1e-3)


def test_objects_keep_their_numbers_while_they_touch(tmp_path):
    clip, truth = crossing()
    masks, _ = segment(tmp_path / "s", clip)
    assert set(np.unique(masks)) == {0, 1, 2}
    first = 1 if iou(masks == 1, truth == 1) > iou(masks == 2, truth == 1) else 2
    # Measured: 0.98 and 0.97 over the clip.
    assert iou(masks == first, truth == 1) > 0.93
    assert iou(masks == 3 - first, truth == 2) > 0.93


def test_what_slides_over_another_thing_is_an_object_of_its_own(tmp_path):
    """A square crosses a larger one that moves too; they touch in every frame."""
    clip, _ = panning(22, SIZE, degrees=0.2, shift=(1.2, 0.3))
    below, above = texture(64, 84, seed=5), texture(32, 32, seed=6)
    truth, images = np.zeros((len(clip), *SIZE), np.uint8), []
    for t, empty in enumerate(clip):
        with_one, first = paste(empty, below, (4 + 3 * t, 34 + t // 2))
        with_both, second = paste(with_one, above, (60 - t, 40 + t))
        truth[t] = np.where(second, 2, np.where(first, 1, 0))
        images.append(with_both)
    masks, _ = segment(tmp_path / "s", np.stack(images))
    assert set(np.unique(masks)) == {0, 1, 2}
    # Measured: 0.95 and 0.80 over the clip.
    assert iou(masks == 1, truth == 1) > 0.9 and iou(masks == 2, truth == 2) > 0.7


def test_tracks_are_known_to_move_in_the_first_and_the_last_frame_too():
    """Tracks on an object that moves by (3, -1) px per frame have that velocity."""
    y, x = np.mgrid[20:60:5, 10:50:5].reshape(2, -1)
    xy = np.stack([x, y], 1)[:, None] + np.arange(8)[:, None] * [3.0, -1.0]
    shown, none = np.ones(xy.shape[:2], bool), np.zeros(len(xy))
    shown[::7, 3:] = False  # some end early
    tracks = Tracks.from_dense(xy * shown[..., None], shown, shown * 1.0, none, none)
    component = _Component(np.ones((8, 50, 60), bool), tracks, 2.0, 0.0, gap=5)
    for t in range(8):
        velocity = component._motion(t)[:, 2:] / VELOCITY_FRAMES
        np.testing.assert_allclose(velocity, np.tile([3, -1], (len(velocity), 1)), atol=1e-6)


def test_nothing_is_found_where_nothing_moves(tmp_path):
    clip, _ = panning(10, SIZE, degrees=0.5, shift=(2.0, 1.0))
    masks, result = segment(tmp_path / "s", clip)
    assert masks.max() == 0 and result.masks.figures["moving_share"] == 0


def test_a_camera_on_a_tripod_sees_what_moves(tmp_path):
    clip, _ = panning(12, SIZE, shift=(0.0, 0.0))
    sprite = texture(40, 40, seed=4)
    pasted = [paste(image, sprite, (20 + 4 * t, 40)) for t, image in enumerate(clip)]
    masks, _ = segment(tmp_path / "s", np.stack([image for image, _ in pasted]))
    assert np.mean([iou(m > 0, t) for m, (_, t) in zip(masks, pasted, strict=True)]) > 0.95


def parallax_clip(frames=16):
    """Return a clip of walls at several depths and a moving square, the truth, and the cameras.

    The walls are four strips at depths between 1 and 4 in front of a camera of focal length 160 px
    that moves by 0.03 to the right every frame.
    """
    height, width = SIZE
    focal, step = 160.0, 0.03
    images, truth = [], []
    walls = [texture(height + 2 * MARGIN, width + 2 * MARGIN, seed=20 + i) for i in range(4)]
    sprite = texture(30, 30, seed=8)
    for t in range(frames):
        image = np.zeros((height, width, 3), np.uint8)
        for i, depth in enumerate((1.5, 4.0, 1.0, 2.5)):
            shift = np.eye(3)
            shift[0, 2] = -focal * step * t / depth
            rows = slice(i * height // 4, (i + 1) * height // 4)
            image[rows] = warped(walls[i], shift, SIZE)[rows]
        image, mask = paste(image, sprite, (60 - 2 * t, 20 + 4 * t))
        images.append(image)
        truth.append(mask)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 0, 3] = -step * np.arange(frames)
    cameras = Cameras.pinhole(focal, width, height, poses)
    solution = CameraSolution(cameras, "moving", SparsePoints.empty(), Verdict("good"))
    return np.stack(images), np.stack(truth), solution


@pytest.mark.slow
def test_strong_parallax_needs_cameras_and_cameras_resolve_it(tmp_path):
    clip, truth, solution = parallax_clip()
    early, result = segment(tmp_path / "two", clip)
    assert result.needs_cameras and result.masks.figures["homography_inliers"] < 0.65
    masks, result = segment(tmp_path / "many", clip, solution)
    assert result.masks.figures["views"] == "many" and not result.better_with_cameras
    overlap, before = (
        np.mean([iou(m > 0, t) for m, t in zip(found, truth, strict=True)])
        for found in (masks, early)
    )
    # Measured: 0.98, and 0.16 from two views.
    assert overlap > 0.93 and before < 0.5


def test_two_views_are_looked_at_once(square, monkeypatch):
    """Once for the masks without and with cameras; again for other tracks or another scene."""
    scene, tracks = square
    calls = []

    def counted(given):
        calls.append(given)
        return two_view_motion(given)

    monkeypatch.setattr(motion, "two_view_motion", counted)
    height, width = scene.size
    poses = np.tile(np.eye(4), (len(scene), 1, 1))
    poses[:, 0, 3] = -0.01 * np.arange(len(scene))  # one px a frame at depth 1
    cameras = Cameras.pinhole(100.0, width, height, poses)
    solution = CameraSolution(cameras, "moving", SparsePoints.empty(), Verdict("good"))
    backend = MotionMasks()
    backend.segment(scene, tracks, None)
    again = backend.segment(scene, replace(tracks, object=np.ones(len(tracks))), solution)
    assert len(calls) == 1
    fresh = MotionMasks().segment(scene, tracks, solution)
    assert len(calls) == 2
    for mask, same in zip(again.masks, fresh.masks, strict=True):
        np.testing.assert_array_equal(mask, same)
    backend.segment(scene, tracks.select(np.arange(len(tracks) - 1)), None)
    backend.segment(scene, replace(tracks, run_xy=tracks.run_xy + 1), None)
    assert len(calls) == 4


def test_masks_of_a_clip_too_short_for_any_pair(tmp_path):
    clip, _ = panning(2, SIZE)
    masks, result = segment(tmp_path / "s", clip)
    assert masks.shape == (2, *SIZE) and masks.max() == 0
    assert result.masks.figures["homography_inliers"] == 1.0


def test_no_masks_are_static(tmp_path):
    scene = write_scene(tmp_path / "s", panning(3, SIZE)[0])
    result = NoMasks().segment(scene, FlowTracks().track(scene).tracks, None)
    assert [mask.max() for mask in result.masks] == [0, 0, 0]
