"""TAPVid-3D's protocol: a hand-computed case, invariances, cameras of the subsets."""

import numpy as np
import pytest
import torch
from benchmark_writers import write_tapvid3d
from exact_fits import three_points

from msdyn.errors import InputError
from msdyn.evaluate import cameras_of_clip, evaluate_tapvid3d, tracker_of
from msdyn.geometry import Cameras, look_at, project, transform_points
from msdyn.io import read_tapvid3d_clip

FRAMES, WIDTH, HEIGHT = 4, 32, 24


def written(path, xyz, visible, cameras, poses=True):
    """Write a clip of black images, and read it."""
    images = np.zeros((len(cameras), HEIGHT, WIDTH, 3), np.uint8)
    frame = np.zeros(len(xyz), int)
    start = transform_points(cameras.cam_from_world[0], xyz[:, 0])
    xy = project(cameras.intrinsics[0], start)
    write_tapvid3d(path, images, cameras, xyz, visible, frame, xy, poses)
    return read_tapvid3d_clip(path)


def moving_cameras(frames=FRAMES):
    centres = np.column_stack([np.linspace(0, 1, frames), np.zeros(frames), np.zeros(frames)])
    poses = np.stack([look_at(c, np.array([0, 0, 4.0]), np.array([0, 1.0, 0])) for c in centres])
    return Cameras.pinhole(30.0, WIDTH, HEIGHT, poses)


def test_a_case_by_hand(tmp_path):
    """Three points on the axis of a static camera at depths 1, 2 and 4; one estimate is off by .6.

    Their median norm is 2 in truth and 2 in the estimate, which is twice as large: 4.
    """
    cameras = Cameras.pinhole(30.0, WIDTH, HEIGHT, np.tile(np.eye(4), (2, 1, 1)))
    xyz = np.zeros((3, 2, 3))
    xyz[:, :, 2] = [[1, 1], [2, 2], [4, 4]]
    clip = written(tmp_path / "a.npz", xyz, np.ones((3, 2), bool), cameras, poses=False)
    estimate = 2 * xyz
    estimate[2, 1, 0] = 0.6
    found = evaluate_tapvid3d(clip, cameras_of_clip(clip, "pstudio"), lambda f, xy: estimate)
    error = 0.6 / 4
    assert found["epe3d"] == pytest.approx(error / 6)
    assert found["delta_0.05"] == found["delta_0.10"] == pytest.approx(5 / 6)
    assert found["world"]["epe3d"] == pytest.approx(found["epe3d"])
    assert (found["tracks"], found["positions"], found["found"]) == (3, 6, 1.0)


def test_positions_that_are_not_visible_do_not_count(tmp_path):
    rng = np.random.default_rng(0)
    xyz = rng.normal(size=(9, FRAMES, 3)) * 0.3 + [0, 0, 4]
    visible = rng.random((9, FRAMES)) < 0.6
    cameras = moving_cameras()
    clip = written(tmp_path / "a.npz", xyz, visible, cameras)
    estimate = xyz.copy()
    estimate[~visible] = 99
    found = evaluate_tapvid3d(clip, cameras, lambda f, xy: estimate)
    assert found["epe3d"] == pytest.approx(0, abs=1e-12) and found["delta_0.05"] == 1
    assert found["positions"] == visible.sum()
    estimate[visible] = np.nan
    lost = evaluate_tapvid3d(clip, cameras, lambda f, xy: estimate)
    assert np.isnan(lost["epe3d"]) and lost["delta_0.10"] == 0 and lost["found"] == 0


def test_neither_the_scale_of_the_estimate_nor_the_world_of_the_cameras_counts(tmp_path):
    """Of a camera that moves, positions in its frames; with a plain loop as the reference."""
    rng = np.random.default_rng(1)
    xyz = rng.normal(size=(7, FRAMES, 3)) * 0.3 + [0, 0, 4]
    visible = rng.random((7, FRAMES)) < 0.8
    cameras = moving_cameras()
    clip = written(tmp_path / "a.npz", xyz, visible, cameras)
    estimate = xyz + 0.1 * rng.normal(size=xyz.shape)
    found = evaluate_tapvid3d(clip, cameras, lambda f, xy: estimate)
    pairs = []
    for track in range(7):
        for frame in range(FRAMES):
            if visible[track, frame]:
                pose = cameras.cam_from_world[frame]
                pairs.append(
                    [pose[:3, :3] @ p[track, frame] + pose[:3, 3] for p in (estimate, xyz)]
                )
    a, b = np.array(pairs).swapaxes(0, 1)
    a, b = (v / np.median(np.sqrt((v**2).sum(1))) for v in (a, b))
    distance = np.sqrt(((a - b) ** 2).sum(1))
    assert found["epe3d"] == pytest.approx(distance.mean())
    assert found["delta_0.05"] == pytest.approx((distance < 0.05).mean())
    # The first camera is at the origin: there, too, only the scale of the estimate is undone.
    larger = Cameras(cameras.intrinsics, cameras.cam_from_world.copy(), WIDTH, HEIGHT)
    larger.cam_from_world[:, :3, 3] *= 3
    scaled = evaluate_tapvid3d(clip, larger, lambda f, xy: 3 * estimate)
    assert scaled["epe3d"] == pytest.approx(found["epe3d"])


def test_cameras_of_the_subsets(tmp_path):
    xyz = np.full((1, FRAMES, 3), 2.0)
    cameras = moving_cameras()
    with_poses = written(tmp_path / "a.npz", xyz, np.ones((1, FRAMES), bool), cameras)
    without = written(tmp_path / "b.npz", xyz, np.ones((1, FRAMES), bool), cameras, poses=False)
    for subset in ("adt", "drivetrack", "pstudio"):
        found = cameras_of_clip(with_poses, subset)
        np.testing.assert_allclose(found.cam_from_world, cameras.cam_from_world)
    assert cameras_of_clip(without, "pstudio").share_pose
    with pytest.raises(InputError, match="b: extrinsics_w2c is missing and the cameras of adt"):
        cameras_of_clip(without, "adt")
    with pytest.raises(InputError, match="subset: expected one of adt, drivetrack, pstudio"):
        cameras_of_clip(without, "kinetics")


def test_a_sequence_is_a_tracker(tmp_path):
    """A sequence of which the paths are known has no error on its own points."""
    sequence = three_points(11)
    means = sequence.posed(torch.arange(11.0)).means.detach().double().numpy()
    images = np.zeros((11, sequence.cameras.height, sequence.cameras.width, 3), np.uint8)
    xy = project(sequence.cameras.intrinsics[0], means[0])
    write_tapvid3d(
        tmp_path / "a.npz", images, sequence.cameras, means.swapaxes(0, 1),
        np.ones((3, 11), bool), np.zeros(3, int), xy,
    )  # fmt: skip
    clip = read_tapvid3d_clip(tmp_path / "a.npz")
    found = evaluate_tapvid3d(clip, clip.cameras, tracker_of(sequence))
    assert found["epe3d"] < 1e-5 and found["delta_0.05"] == 1 and found["found"] == 1


def test_tracks_of_another_number_of_frames(tmp_path):
    xyz = np.full((1, FRAMES, 3), 2.0)
    clip = written(tmp_path / "a.npz", xyz, np.ones((1, FRAMES), bool), moving_cameras())
    with pytest.raises(InputError, match=r"expected tracks \(4, 1, 3\), got \(3, 1, 3\)"):
        evaluate_tapvid3d(clip, moving_cameras(), lambda f, xy: np.zeros((1, 3, 3)))
