"""Refinement of cameras and depth on static tracks, against the truth of a synthetic scene."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import two_boxes
from scipy.spatial.transform import Rotation

from msdyn.fit import MotionConfig, fit_scene, preset, static_observations
from msdyn.fit.data import load_fit_data
from msdyn.fit.refine import adjust_depth, refine_on_static_tracks
from msdyn.geometry import Cameras
from msdyn.reading import read_json
from msdyn.scene import Scene, stamp_stage
from msdyn.synthetic import PriorLevel, make_priors, write_priors

POSE_NOISE = PriorLevel(pose_degrees=0.2, pose_shift=0.005)


@pytest.fixture(scope="module")
def truth():
    return two_boxes(10, 96, 72)


def refined(priors, **options):
    frames = options.pop("frames", np.arange(len(priors.cameras)))
    return refine_on_static_tracks(
        priors.tracks, priors.depths, priors.masks, priors.cameras, frames, **options
    )


def pose_error(cameras: Cameras, truth) -> tuple[float, float]:
    """RMS error of orientations (degrees) and centres (metres), without the mean error."""
    true = truth.clip.cameras
    rotvec = Rotation.from_matrix(
        cameras.cam_from_world[:, :3, :3] @ true.world_from_cam[:, :3, :3]
    )
    rotvec = rotvec.as_rotvec(degrees=True)
    offset = cameras.centres - true.centres
    return tuple(float(np.sqrt(((v - v.mean(0)) ** 2).sum(1).mean())) for v in (rotvec, offset))


def test_poses_are_recovered_from_exact_tracks(truth):
    priors = make_priors(truth, POSE_NOISE)
    result = refined(priors)
    before, after = pose_error(priors.cameras, truth), pose_error(result.cameras, truth)
    # Initially 0.2 degrees and 6 mm. 2 % and 5 % of the error remain, because depth is sampled at
    # the nearest pixel and pixels are 2 cm wide.
    assert after[0] < 0.03 * before[0] and after[1] < 0.08 * before[1]
    assert result.pixels_after < 0.05 * result.pixels_before
    # The mean of the poses is not observable and is kept by the prior.
    drift = (result.cameras.centres - priors.cameras.centres).mean(0)
    assert np.linalg.norm(drift) < 0.1 * before[1]


def test_the_drift_of_depth_scale_is_corrected(truth):
    priors = make_priors(truth, PriorLevel(depth_drift=0.03, depth_scale=0.02), seed=3)
    result = refined(priors)
    scale = np.array(
        [np.median(d / t) for d, t in zip(priors.depths, truth.clip.depths, strict=True)]
    )
    adjusted = [adjust_depth(d, result, f) for f, d in enumerate(priors.depths)]
    remaining = np.array(
        [np.median(d / t) for d, t in zip(adjusted, truth.clip.depths, strict=True)]
    )
    assert np.std(scale) > 0.015 and np.std(remaining) < 0.05 * np.std(scale)
    assert abs(remaining.mean() - 1) < 0.01


def test_smooth_distortions_of_depth_are_corrected(truth):
    level = PriorLevel(depth_distortion=0.03, depth_shift=0.03, depth_noise=0.005)
    priors = make_priors(truth, replace(level, track_outliers=0.1, pose_degrees=0.2), seed=1)
    result = refined(priors)
    assert result.distortion is not None
    static = truth.clip.masks == 0
    adjusted = np.stack([adjust_depth(d, result, f) for f, d in enumerate(priors.depths)])
    before = np.abs(np.log(priors.depths / truth.clip.depths))[static].mean()
    after = np.abs(np.log(adjusted / truth.clip.depths))[static].mean()
    assert after < 0.4 * before
    without = replace(result, distortion=None)
    scaled = np.stack([adjust_depth(d, without, f) for f, d in enumerate(priors.depths)])
    assert after < 0.6 * np.abs(np.log(scaled / truth.clip.depths))[static].mean()


@pytest.mark.parametrize("level", [PriorLevel(), PriorLevel(depth_noise=0.01, depth_drift=0.02)])
def test_without_distortion_none_is_found(truth, level):
    assert refined(make_priors(truth, level)).distortion is None


def test_poses_are_improved_by_noisy_tracks_and_depth(truth):
    sensor = replace(
        POSE_NOISE,
        depth_noise=0.01,
        depth_holes=0.05,
        depth_drift=0.02,
        mask_border=2.0,
        track_jitter=0.3,
        track_outliers=0.1,
    )
    priors = make_priors(truth, sensor)
    before, after = pose_error(priors.cameras, truth), pose_error(refined(priors).cameras, truth)
    assert after[0] < 0.3 * before[0] and after[1] < 0.3 * before[1]


def test_exact_cameras_and_depth_are_kept(truth):
    priors = make_priors(truth, PriorLevel())
    result = refined(priors)
    degrees, metres = pose_error(result.cameras, truth)
    assert degrees < 0.005 and metres < 5e-4
    np.testing.assert_allclose(result.log_scale, 0, atol=1e-3)


@pytest.mark.parametrize("poses, depth", [(True, False), (False, True), (False, False)])
def test_poses_and_depth_can_be_refined_separately(truth, poses, depth):
    priors = make_priors(truth, replace(POSE_NOISE, depth_drift=0.03))
    result = refined(priors, poses=poses, depth=depth)
    same = np.array_equal(result.cameras.cam_from_world, priors.cameras.cam_from_world)
    assert same != poses
    assert result.log_scale.any() == depth
    unchanged = adjust_depth(priors.depths[2], result, 2)
    assert np.allclose(unchanged, priors.depths[2], rtol=1e-6) != depth


def test_corrections_of_held_out_frames_are_interpolated(truth):
    priors = make_priors(truth, PriorLevel(depth_drift=0.03))
    frames = np.array([0, 1, 2, 4, 5, 6, 8, 9])
    result = refined(priors, frames=frames)
    for frame in (3, 7):
        between = result.log_scale[[frame - 1, frame + 1]].mean()
        assert result.log_scale[frame] == pytest.approx(between)


def test_without_static_tracks_nothing_changes(truth):
    priors = make_priors(truth, replace(POSE_NOISE, depth_drift=0.03))
    moving = priors.tracks.select(priors.tracks.object > 0)
    result = refined(replace(priors, tracks=moving))
    assert result.tracks == 0
    np.testing.assert_array_equal(result.cameras.cam_from_world, priors.cameras.cam_from_world)
    np.testing.assert_array_equal(adjust_depth(priors.depths[1], result, 1), priors.depths[1])


def test_unknown_depth_stays_unknown(truth):
    priors = make_priors(truth, PriorLevel(depth_drift=0.03, depth_holes=0.2))
    result = refined(priors)
    adjusted = adjust_depth(priors.depths[4], result, 4)
    np.testing.assert_array_equal(adjusted == 0, priors.depths[4] == 0)


@pytest.mark.slow
def test_a_fit_keeps_the_refined_cameras(truth, tmp_path):
    write_priors(truth, tmp_path / "scene", level=POSE_NOISE)
    scene = Scene(tmp_path / "scene")
    config = replace(
        preset("quick"),
        scene=scene.directory,
        epochs=1,
        static_gaussians=500,
        moving_gaussians=200,
        motion=MotionConfig(levels=1, prefit_steps=0),
        device="cpu",
    )
    sequence = fit_scene(scene, config)
    assert pose_error(sequence.cameras, truth)[0] < 0.1 * pose_error(scene.cameras, truth)[0]
    written = read_json(scene.directory / "fit" / "refinement.json")
    assert written["pixels_after"] < 0.1 * written["pixels_before"]
    # Cameras from structure from motion are not refined.
    stamp_stage(scene.directory, "cameras", backend="sfm", options={}, input_hash="", seconds=0.0)
    untouched = fit_scene(Scene(scene.directory), config)
    np.testing.assert_array_equal(untouched.cameras.cam_from_world, scene.cameras.cam_from_world)


def test_only_the_longest_static_tracks_are_matched(truth, monkeypatch):
    monkeypatch.setattr(static_observations, "_MAX_TRACKS", 40)
    priors = make_priors(truth, POSE_NOISE)
    seen = []

    def match(tracks):
        seen.append(tracks)
        return tracks

    same, given = refined(priors, match=match), refined(priors)
    assert len(seen) == 1 and len(seen[0]) == 120 and (seen[0].object == 0).all()
    static = priors.tracks.select(priors.tracks.object == 0)
    assert seen[0].lifetimes.min() >= np.sort(static.lifetimes)[-120]
    np.testing.assert_array_equal(same.cameras.cam_from_world, given.cameras.cam_from_world)
    assert refined(priors, poses=False, depth=False, match=match).tracks == 0 and len(seen) == 1


def test_matching_makes_poses_more_accurate(tmp_path):
    """Tracks with 0.7 px of noise: what is left of the errors of the cameras, with and without."""
    truth = two_boxes(10, 96, 72)
    write_priors(truth, tmp_path, level="sensor", seed=0)
    errors = {}
    for positions in ("given", "matched"):
        data = load_fit_data(
            Scene(tmp_path),
            long_side=None,
            holdout_every=0,
            device=torch.device("cpu"),
            refine="both",
            static_tracks=positions,
        )
        errors[positions] = pose_error(data.refinement.cameras, truth)
    assert errors["matched"][0] < 0.6 * errors["given"][0]
