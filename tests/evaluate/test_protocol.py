"""Protocols on scenes that a sequence matches exactly, or with a known error."""

import dataclasses
import shutil

import imageio.v3 as iio
import numpy as np
import pytest
from exact_fits import exact_sequence, three_points, write_scene_of

from msdyn.errors import InputError
from msdyn.evaluate import (
    Variant,
    evaluate_frames,
    evaluate_tracks,
    evaluate_views,
    masked_psnr,
    masked_ssim,
)
from msdyn.geometry import Cameras, Similarity
from msdyn.render import render_image
from msdyn.scene import Scene, Timeline, frame_path, read_cameras, write_cameras, write_image

FRAMES = 11


@pytest.fixture
def points():
    return three_points(FRAMES)


@pytest.fixture
def points_scene(points, tmp_path):
    return write_scene_of(points, tmp_path / "points")


def brighten(path, rows, by):
    """Add `by` grey levels to the first rows of an 8-bit image."""
    image = iio.imread(path).astype(int)
    assert image[:rows].max() + by <= 255
    image[:rows] += by
    write_image(path, image.astype(np.uint8))


def test_a_sequence_has_no_error_against_itself(points, points_scene):
    views = evaluate_views(points, points_scene)
    assert views["mpsnr"] == np.inf and views["images"] == FRAMES and views["covisible"] == 1
    assert views["mssim"] == pytest.approx(1) and views["ssim"] == pytest.approx(1)
    assert views["mlpips"] is None
    frames = evaluate_frames(points, points_scene, [0, 5])
    assert frames["frames"] == {"0": np.inf, "5": np.inf} and frames["images"] == 2
    tracks = evaluate_tracks(points, points_scene)
    assert tracks is not None and tracks["drawn"] == 1 and tracks["tracks"] == 3
    assert tracks["epe3d"] == pytest.approx(0, abs=5e-6)


def test_a_known_error_on_covisible_pixels(points, points_scene):
    """51 of 255 levels on the upper half: -10 log10(.04 / 2), and .04 under a mask of that half."""
    view = points_scene.directory / "views" / "beside"
    for frame in range(FRAMES):
        brighten(frame_path(view / "images", frame, ".png"), 24, 51)
    assert evaluate_views(points, points_scene)["mpsnr"] == pytest.approx(-10 * np.log10(0.02))
    mask = np.zeros((48, 64), np.uint8)
    mask[:24] = 255
    for frame in range(FRAMES):
        write_image(frame_path(view / "covisible", frame, ".png"), mask)
    masked = evaluate_views(points, Scene(points_scene.directory))
    assert masked["mpsnr"] == pytest.approx(-10 * np.log10(0.04))
    assert masked["covisible"] == 0.5


def test_images_without_covisible_pixels_do_not_count(points, points_scene):
    view = points_scene.directory / "views" / "beside"
    brighten(frame_path(view / "images", 2, ".png"), 24, 51)
    brighten(frame_path(view / "images", 3, ".png"), 48, 51)
    for frame in range(FRAMES):
        if frame not in (2, 4):
            empty = np.zeros((48, 64), np.uint8)
            write_image(frame_path(view / "covisible", frame, ".png"), empty)
    shown = []
    result = evaluate_views(points, points_scene, keep=lambda v, f, i: shown.append((v.name, f)))
    assert result["images"] == 2 and result["views"]["beside"]["images"] == 2
    assert result["mpsnr"] == np.inf  # frame 4 is exact, and a mean with infinity is infinite
    assert shown == [("beside", frame) for frame in range(FRAMES)]
    write_image(frame_path(view / "covisible", 4, ".png"), np.zeros((48, 64), np.uint8))
    result = evaluate_views(points, points_scene)
    assert result["mpsnr"] == pytest.approx(-10 * np.log10(0.02)) and result["images"] == 1
    write_image(frame_path(view / "covisible", 2, ".png"), np.zeros((48, 64), np.uint8))
    result = evaluate_views(points, points_scene)
    assert np.isnan(result["mpsnr"]) and result["images"] == 0


def test_only_frames_with_an_image_are_measured(points, points_scene):
    for frame in (0, 1, 5):
        frame_path(points_scene.directory / "views/beside/images", frame, ".png").unlink()
    assert evaluate_views(points, points_scene)["images"] == FRAMES - 3


def test_the_mean_is_over_images_of_all_views(boxes, boxes_fit):
    for frame in range(6):
        frame_path(boxes.directory / "views/left15/images", frame, ".png").unlink()
    result = evaluate_views(boxes_fit, boxes)
    rows = []
    for view in boxes.views.values():
        for frame in view.frames:
            time = boxes_fit.timeline.time_of_frame(frame)
            image = render_image(boxes_fit, view.cameras[frame], time).rgb8 / 255
            truth, mask = view.image(frame) / 255, view.covisible(frame)
            rows.append((masked_psnr(image, truth, mask), masked_ssim(image, truth, mask)))
    assert len(rows) == result["images"] == 10
    assert (result["mpsnr"], result["ssim"]) == pytest.approx(tuple(np.mean(rows, 0)))
    assert result["views"]["left15"]["mpsnr"] == pytest.approx(np.mean(rows[:2], 0)[0])


def test_motion_improves_images_and_tracks(boxes, boxes_fit):
    """The exact motion beats none, in images and in tracks; the number of levels matters."""
    frozen = Variant(frozen=True)
    full, frozen_views = (
        evaluate_views(boxes_fit, boxes),
        evaluate_views(boxes_fit, boxes, variant=frozen),
    )
    assert full["mpsnr"] > frozen_views["mpsnr"] + 0.8  # measured: 15.0 and 13.9 dB
    assert evaluate_views(boxes_fit, boxes, variant=Variant(levels=0)) == frozen_views
    assert evaluate_views(boxes_fit, boxes, variant=Variant(levels=1)) == full
    tracks = [evaluate_tracks(boxes_fit, boxes, variant=v) for v in (Variant(), frozen)]
    assert tracks[0] is not None and tracks[1] is not None
    assert tracks[1]["epe3d_moving"] > 6 * tracks[0]["epe3d_moving"]  # 0.31 and 0.04 m
    assert tracks[0]["epe3d_moving"] == pytest.approx(0.0302, rel=0.1)
    assert tracks[0]["epe3d_moving_blended"] == pytest.approx(0.0387, rel=0.1)
    assert tracks[0]["drawn"] == 1


def test_the_error_of_tracks_is_the_offset_of_the_fit(points, points_scene):
    """Fit and cameras are translated by a known vector: queries still hit the points."""
    moved = points.rescaled(Similarity.of(1.0, [0.3, 0, -0.4]))
    tracks = evaluate_tracks(moved, points_scene)
    assert tracks is not None
    for key in ("epe3d", "epe3d_moving", "epe3d_moving_visible"):
        assert tracks[key] == pytest.approx(0.5, abs=1e-5)


def test_another_world_is_aligned_and_measured_in_the_units_of_the_truth(points, points_scene):
    """The cameras of the clip move here, which determines the similarity."""
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, 0, 3] = -np.linspace(0, 0.1, FRAMES)
    poses[:, 1, 3] = 0.05 * np.linspace(0, 1, FRAMES) ** 2
    points.cameras = Cameras(points.cameras.intrinsics, poses, 64, 48)
    scene = write_scene_of(points, points_scene.directory.parent / "moving")
    other = points.rescaled(Similarity.of(2.5, [1.0, 2.0, -0.5]))
    off = evaluate_views(other, scene)
    aligned = evaluate_views(other, scene, align=True)
    assert not off["mpsnr"] > 40 and aligned["mpsnr"] > 60
    tracks = evaluate_tracks(other, scene, align=True)
    assert tracks is not None and tracks["epe3d"] < 1e-4
    variant = dataclasses.replace(Variant(), frozen=True)
    frozen = evaluate_tracks(other, scene, align=True, variant=variant)
    expected = evaluate_tracks(points, scene, variant=variant)
    assert frozen is not None and expected is not None
    assert frozen["epe3d"] == pytest.approx(expected["epe3d"], rel=1e-4)


def test_frames_between_key_frames_are_rendered_at_their_own_time_and_camera(boxes, boxes_truth):
    """Motion at a frame that is no key frame is interpolated: a translation and a rotation."""
    keys = [0, 1, 2, 3, 4, 6, 7]
    between = exact_sequence(boxes_truth, keys)
    assert between.motion.key_frames.tolist() == keys
    found = evaluate_frames(between, boxes, [5])
    assert set(found["frames"]) == {"5"}
    known = evaluate_frames(exact_sequence(boxes_truth), boxes, [5])["mpsnr"]
    frozen = evaluate_frames(between, boxes, [5], variant=Variant(levels=0))["mpsnr"]
    assert frozen + 1 < found["mpsnr"] == pytest.approx(known, abs=0.5)


def test_input_that_cannot_be_measured(points, points_scene):
    wrong = three_points(FRAMES - 1)
    for measure in (evaluate_views, evaluate_tracks, lambda *a: evaluate_frames(*a, [0])):
        with pytest.raises(InputError, match="expected the 10 frames of the fit, got 11"):
            measure(wrong, points_scene)
    (points_scene.directory / "views/beside/tracks3d.npz").unlink()
    assert evaluate_tracks(points, Scene(points_scene.directory)) is None
    shutil.rmtree(points_scene.directory / "views")
    with pytest.raises(InputError, match="no held-out views"):
        evaluate_views(points, Scene(points_scene.directory))
    assert evaluate_tracks(points, Scene(points_scene.directory)) is None


def test_points_that_are_not_rendered_are_left_out(points, points_scene):
    """The third Gaussian is transparent: it has no track, the others are exact."""
    points.moving.opacity_logits.data[2] = -20.0
    tracks = evaluate_tracks(points, points_scene)
    assert tracks is not None and tracks["drawn"] == pytest.approx(2 / 3)
    assert tracks["epe3d"] == pytest.approx(0, abs=5e-6)


def test_uneven_timestamps(points, tmp_path):
    """A frame is rendered at its own time, which is not proportional to its index."""
    points.timeline = Timeline(np.linspace(0, 1, FRAMES) ** 2)
    scene = write_scene_of(points, tmp_path / "uneven")
    np.testing.assert_allclose(read_cameras(scene.directory / "cameras.json").centres, 0)
    assert evaluate_frames(points, scene, list(range(FRAMES)))["mpsnr"] == np.inf
    moved = Cameras(points.cameras.intrinsics, np.roll(points.cameras.cam_from_world, 1, 0), 64, 48)
    write_cameras(scene.directory / "cameras.json", moved)
    assert evaluate_views(points, Scene(scene.directory))["mpsnr"] == np.inf
