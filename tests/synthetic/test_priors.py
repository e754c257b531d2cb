"""Perturbed priors have errors of the sizes of their level, and no others."""

import dataclasses

import numpy as np
import pytest

from msdyn.errors import InputError
from msdyn.scene import Scene, check_scene
from msdyn.synthetic import (
    LEVELS,
    PHONE,
    PriorLevel,
    make_priors,
    project_tracks,
    write_priors,
)


def angles(a, b):
    """Return the angles [T], degrees, between the cameras of two clips."""
    relative = a.cam_from_world[:, :3, :3] @ b.cam_from_world[:, :3, :3].swapaxes(1, 2)
    cosine = (np.trace(relative, axis1=1, axis2=2) - 1) / 2
    return np.degrees(np.arccos(cosine.clip(-1, 1)))


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def test_exact_priors_are_the_truth(boxes):
    priors = make_priors(boxes, LEVELS["exact"])
    np.testing.assert_array_equal(priors.depths, boxes.clip.depths)
    np.testing.assert_array_equal(priors.masks, boxes.clip.masks)
    np.testing.assert_array_equal(priors.cameras.cam_from_world, boxes.spec.cameras.cam_from_world)
    np.testing.assert_array_equal(priors.tracks.visible, boxes.tracks.visible)
    visible = boxes.tracks.visible
    np.testing.assert_allclose(
        priors.tracks.xy[visible], project_tracks(boxes.spec, boxes.tracks)[visible], rtol=1e-6
    )
    assert (priors.tracks.confidence[visible] == 1).all()


def test_sizes_of_the_named_levels():
    sensor, casual = LEVELS["sensor"], LEVELS["casual"]
    assert (sensor.pose_degrees, sensor.pose_shift, sensor.depth_drift) == (0.2, 0.005, 0.02)
    assert (sensor.track_jitter, sensor.track_outliers) == (0.7, 0.05)
    assert (casual.pose_degrees, casual.pose_shift) == (0.4, 0.01)
    assert casual.track_outliers == 0.10
    assert min(casual.depth_scale, casual.depth_shift, casual.depth_distortion) > 0
    assert PHONE.pose_degrees < sensor.pose_degrees and PHONE.track_jitter == 0


@pytest.mark.parametrize("name", ["sensor", "casual"])
def test_poses(boxes, name):
    """Measured over many seeds, because one clip has few independent errors."""
    level, depth = LEVELS[name], np.median(boxes.clip.depths)
    only = PriorLevel(pose_degrees=level.pose_degrees, pose_shift=level.pose_shift)
    perturbed = [make_priors(boxes, only, seed).cameras for seed in range(30)]
    true = boxes.clip.cameras
    angle = rms([angles(cameras, true) for cameras in perturbed])
    shift = rms([np.linalg.norm(c.centres - true.centres, axis=1) for c in perturbed]) / depth
    mean = [(c.centres - true.centres).mean(0) for c in perturbed]
    assert np.abs(mean).max() < 1e-9  # the errors do not move the world frame
    assert angle == pytest.approx(level.pose_degrees, rel=0.15)
    assert shift == pytest.approx(level.pose_shift, rel=0.15)


def test_sensor_depth(boxes):
    level = LEVELS["sensor"]
    depths, true = make_priors(boxes, level).depths, boxes.clip.depths
    known = depths > 0
    # Blobs over five per cent of the image, and the far side of depth edges.
    assert 0.05 < 1 - known.mean() < 0.20
    ratio = np.array([np.median((d / t)[k]) for d, t, k in zip(depths, true, known, strict=True)])
    assert np.abs(ratio - 1).max() == pytest.approx(level.depth_drift, rel=0.2)
    # Slow, of zero mean: white noise would change by sqrt(2) standard deviations per frame.
    assert rms(np.diff(ratio)) < 0.9 * np.std(ratio)
    assert ratio.mean() == pytest.approx(1, abs=1e-3)
    noise = (depths / true / ratio[:, None, None])[known] - 1
    assert rms(noise) == pytest.approx(level.depth_noise, rel=0.1)


def test_casual_depth(boxes):
    """After fitting scale and offset per frame, the smooth distortion and the noise remain."""
    level = LEVELS["casual"]
    scales, shifts, rest = [], [], []
    for seed in range(8):
        depths = make_priors(boxes, level, seed).depths
        assert (depths > 0).all()
        for depth, true in zip(depths, boxes.clip.depths, strict=True):
            fit = np.polyfit(true.ravel(), depth.ravel(), 1)
            scales.append(fit[0])
            shifts.append(fit[1])
            rest.append(rms(depth / np.polyval(fit, true) - 1))
    # The fit absorbs part of the distortion: scale and offset vary more than the level's sizes.
    assert level.depth_scale < np.std(scales) < 2.5 * level.depth_scale
    assert np.std(shifts) > level.depth_shift * np.median(boxes.clip.depths)
    expected = np.hypot(level.depth_distortion, level.depth_noise)
    assert 0.7 * expected < np.mean(rest) < 1.1 * expected


@pytest.mark.parametrize("name", ["sensor", "casual"])
def test_tracks(boxes, name):
    level, true = LEVELS[name], boxes.tracks
    tracks = make_priors(boxes, level).tracks
    error = (tracks.xy - project_tracks(boxes.spec, true)) * tracks.visible[..., None]
    outlier = np.abs(error).max((1, 2)) > 6 * level.track_jitter
    # Some outliers drift so late, or are occluded so early, that their error is not detected.
    assert 0.3 * level.track_outliers < outlier.mean() <= level.track_outliers
    jitter = error[~outlier][tracks.visible[~outlier]]
    assert rms(jitter) == pytest.approx(level.track_jitter, rel=0.1)

    # Tracks end at occlusions: they are visible in one run of frames around the query.
    assert not (tracks.visible & ~true.visible).any()
    starts = np.diff(tracks.visible.astype(int), axis=1, prepend=0) == 1
    assert (starts.sum(1) == 1).all()
    assert tracks.visible[np.arange(len(tracks)), true.query_frame].all()
    assert tracks.visible.sum() < true.visible.sum()


def test_masks(boxes):
    """Masks are eroded and dilated by at most two pixels."""
    from scipy.ndimage import binary_dilation, binary_erosion

    perturbed, square = make_priors(boxes, LEVELS["sensor"]).masks, np.ones((7, 7), bool)
    grew = shrank = 0
    for mask, true in zip(perturbed, boxes.clip.masks, strict=True):
        for instance in (1, 2):
            own, was = mask == instance, true == instance
            assert not (own & ~binary_dilation(was, square)).any()
            assert not (binary_erosion(was, square, border_value=1) & ~own).any()
            grew += own.sum() > was.sum()
            shrank += own.sum() < was.sum()
    assert grew >= 5 and shrank >= 5


def test_each_kind_of_error_has_its_own_random_numbers(boxes):
    """Setting one size to zero does not change the other errors."""
    level = LEVELS["sensor"]
    both = make_priors(boxes, level, seed=3)
    steady = make_priors(boxes, dataclasses.replace(level, pose_degrees=0, pose_shift=0), seed=3)
    np.testing.assert_array_equal(both.depths, steady.depths)
    np.testing.assert_array_equal(both.masks, steady.masks)
    np.testing.assert_array_equal(both.tracks.xy, steady.tracks.xy)
    assert (make_priors(boxes, level, seed=4).depths != both.depths).any()


@pytest.mark.parametrize("level", ["exact", "sensor", "casual"])
def test_scene_directories_are_valid(boxes, tmp_path, level):
    scene = Scene(write_priors(boxes, tmp_path / level, level=level))
    report = check_scene(scene)
    assert not report.warnings
    assert set(scene.info.stages) == {"frames", "tracks", "masks", "cameras", "depth"}
    assert scene.info.world_units == "metric"
    assert scene.info.stages["depth"]["options"]["depth_drift"] == LEVELS[level].depth_drift
    np.testing.assert_array_equal(scene.images(), boxes.clip.images)
    for name, shot in boxes.views.items():
        view = scene.views[name]
        np.testing.assert_array_equal(view.image(5), shot.images[5])
        np.testing.assert_array_equal(view.covisible(5), shot.covisible[5])
        np.testing.assert_array_equal(view.tracks3d.xyz, boxes.tracks.xyz)
        np.testing.assert_allclose(view.cameras.cam_from_world, shot.cameras.cam_from_world)


def test_an_unknown_level_is_refused(boxes, tmp_path):
    with pytest.raises(InputError, match="exact, sensor, casual, got 'perfect'"):
        write_priors(boxes, tmp_path / "x", level="perfect")
