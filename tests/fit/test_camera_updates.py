"""Cameras that are optimised with the Gaussians: gradients, gauge, held-out frames, resuming."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import two_boxes
from interrupted_fits import interrupted_and_resumed
from scipy.spatial.transform import Rotation

from msdyn.fit import FitConfig, MotionConfig, fit_scene, preset
from msdyn.fit.camera_updates import CameraUpdates
from msdyn.fit.data import load_fit_data
from msdyn.fit.exposure import FrameExposure
from msdyn.fit.objective import Objective
from msdyn.geometry import (
    pose_updates_between,
    quats_wxyz_from_rotations,
    rotations_from_quats_wxyz,
    transform_points,
    updated_poses,
)
from msdyn.reading import read_json
from msdyn.render import draw
from msdyn.scene import Scene
from msdyn.sequence import PosedGaussians, load_sequence
from msdyn.synthetic import write_priors

RATE = 1e-2


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Twelve frames with the errors of casual input."""
    folder = tmp_path_factory.mktemp("joint") / "scene"
    write_priors(two_boxes(12, 96, 72), folder, level="casual", seed=0)
    return Scene(folder)


@pytest.fixture
def data(scene):
    return load_fit_data(scene, long_side=48, holdout_every=4, device=torch.device("cpu"))


def gaussians(data, frames, labels):
    """Return opaque Gaussians, in view of all cameras, of which some move."""
    rng = np.random.default_rng(0)
    count = len(labels)
    labels = torch.tensor(sorted(labels))
    moving = int((labels > 0).sum())
    camera = data.cameras[int(frames[0])]
    ray = np.linalg.inv(camera.intrinsics[0]) @ np.stack(
        [rng.uniform(10, 38, count), rng.uniform(8, 28, count), np.ones(count)]
    )
    points = (ray * rng.uniform(0.8, 1.2, count)).T
    world = camera.world_from_cam[0]
    means = torch.from_numpy(points @ world[:3, :3].T + world[:3, 3]).float()
    times = len(frames)
    eye = torch.eye(3).expand(times, moving, 3, 3)
    return PosedGaussians(
        means.expand(times, -1, -1).clone(),
        torch.from_numpy(rng.normal(size=(times, count, 4))).float(),
        torch.from_numpy(rng.uniform(0.01, 0.06, (count, 3))).float(),
        torch.full((1, count), 0.7),
        torch.from_numpy(rng.normal(size=(count, 4, 3))).float(),
        eye,
        labels,
    )


def weighted_sum(image):
    weight = torch.from_numpy(np.random.default_rng(1).normal(size=image.depth.shape)).float()
    return (weight[..., None] * image.features).sum() + (weight * image.depth).sum()


def gradient(data, posed, frames):
    """Return values and the gradient to the cameras of a sum of all that is rendered."""
    cameras = CameraUpdates(data, RATE)
    own = data.on_device[torch.as_tensor(frames)]
    shown, moved = cameras.attach(posed, own, frames)
    assert cameras._used is not None
    image = draw(shown, moved)
    (found,) = torch.autograd.grad(weighted_sum(image), cameras._used[1])
    plain = draw(posed, own)
    torch.testing.assert_close(image.features, plain.features, rtol=0, atol=0)
    return found


def test_moving_gaussians_do_not_pull_the_cameras(data):
    frames = np.array([1, 6])
    moving = gaussians(data, frames, [1] * 20)
    static = gaussians(data, frames, [0] * 20)
    pulled, still = gradient(data, static, frames), gradient(data, moving, frames)
    assert pulled.abs().min(0).values.min() > 0
    assert still.abs().max() < 1e-4 * pulled.abs().max()


def test_static_gaussians_pull_as_moving_the_world_would(data):
    """The gradient to the camera is that of moving all Gaussians instead, past a fixed camera."""
    frames = np.array([1])
    posed = gaussians(data, frames, [0] * 20)
    posed = replace(posed, harmonics=posed.harmonics[:, :1])
    found = gradient(data, posed, frames)[0]
    own = data.on_device[torch.as_tensor(frames)]
    update = torch.zeros(6, requires_grad=True)
    cam_from_world = own.cam_from_world[0]
    moved = torch.linalg.inv(cam_from_world) @ updated_poses(cam_from_world, update)
    rotations = moved[:3, :3] @ rotations_from_quats_wxyz(posed.quats_wxyz[0])
    carried = replace(
        posed,
        means=transform_points(moved[None], posed.means),
        quats_wxyz=quats_wxyz_from_rotations(rotations)[None],
    )
    total = weighted_sum(draw(carried, own))
    (expected,) = torch.autograd.grad(total, update)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert expected.abs().min() > 0.1


def test_gradients_of_a_batch_are_those_of_its_frames(data):
    frames = np.array([1, 6])
    posed = gaussians(data, frames, [0] * 12 + [2] * 8)
    both = gradient(data, posed, frames)
    assert both.shape == (2, 6) and (both[0] - both[1]).abs().max() > 1e-3


def test_the_mean_of_the_cameras_stays(data):
    """Steps of single frames: the others follow, so that the mean rotation and shift are zero."""
    updates = CameraUpdates(data, RATE)
    given = data.cameras
    rng = np.random.default_rng(2)
    for number in range(30):
        frame = data.frames[[number % len(data.frames)]]
        index = torch.as_tensor(frame)
        leaf = torch.zeros(1, 6, requires_grad=True)
        leaf.grad = torch.from_numpy(rng.normal(0.3, 1, (1, 6))).float()
        updates._used = index, leaf
        updates.step(0.5)
    moved = updates.corrected(given, 1.0)
    fitted = data.frames
    relative = given.world_from_cam[fitted, :3, :3] @ moved.cam_from_world[fitted, :3, :3]
    rotation = Rotation.from_matrix(relative).as_rotvec()
    assert np.abs(rotation).max() > 5e-3
    assert np.abs(rotation.mean(0)).max() < 2e-4
    shift = moved.centres[fitted] - given.centres[fitted]
    assert np.abs(shift).max() > 5e-3 and np.abs(shift.mean(0)).max() < 1e-9
    # What the losses read, of rendered and of target frames, are the same cameras.
    np.testing.assert_allclose(
        data.batch(fitted).cameras.cam_from_world, moved.cam_from_world[fitted], atol=1e-6
    )


def test_held_out_frames_and_the_world_of_the_scene(data):
    """A correction that grows linearly over time is that of the held-out frames too."""
    updates = CameraUpdates(data, RATE)
    slope = torch.tensor([1e-3, -2e-3, 5e-4, 2e-3, 1e-3, -1e-3], dtype=torch.float64)
    expected = torch.arange(len(data.cameras))[:, None] * slope
    fitted = torch.as_tensor(data.frames)
    poses = updates.poses.poses(fitted, expected[fitted])
    updates.poses.cam_from_world[fitted] = poses
    world = data.fit_from_scene.inverse()
    scene_cameras = data.cameras.transformed(world)
    corrected = updates.corrected(scene_cameras, data.fit_from_scene.scale)
    in_fit = corrected.transformed(data.fit_from_scene)
    start, end = (torch.as_tensor(c.cam_from_world) for c in (data.cameras, in_fit))
    found = pose_updates_between(start, end)
    assert data.held_out == [3, 7]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def config(**changes) -> FitConfig:
    few = replace(
        preset("quick"),
        epochs=2,
        static_gaussians=600,
        moving_gaussians=300,
        long_side=48,
        motion=MotionConfig(prefit_steps=5, joint_refinement="off"),
        refine="joint",
        device="cpu",
    )
    few = replace(few, density=replace(few.density, every=10, start=0.1, stop=0.9))
    return replace(few, **changes)


def test_a_camera_that_stands_still_is_not_moved(data):
    still = replace(data, cameras=data.cameras[[0] * len(data.cameras)])
    for given, options, moved in (
        (still, config(), False),
        (data, config(refine="auto"), False),
        (data, config(), True),
    ):
        objective = Objective(given, options, FrameExposure(given, options, None), 10)
        assert (objective.cameras is not None) is moved


@pytest.mark.reliability
def test_an_interrupted_joint_fit_resumes_exactly(scene, tmp_path):
    options = config(holdout_every=4)
    whole = fit_scene(scene, replace(options, out=tmp_path / "whole"))
    resumed = interrupted_and_resumed(scene, replace(options, out=tmp_path / "resumed"), 13)
    np.testing.assert_array_equal(resumed.cameras.cam_from_world, whole.cameras.cam_from_world)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    written = load_sequence(tmp_path / "whole").cameras.cam_from_world
    np.testing.assert_array_equal(written, whole.cameras.cam_from_world)
    refinement = read_json(tmp_path / "whole" / "refinement.json")
    assert 0 < refinement["joint"]["degrees"] < 1


@pytest.mark.reliability
def test_without_a_rate_it_is_the_refinement_before_the_fit(scene, tmp_path):
    options = config(epochs=1)
    still = replace(options, rate=replace(options.rate, cameras=0.0), out=tmp_path / "joint")
    joint = fit_scene(scene, still)
    auto = fit_scene(scene, replace(options, refine="auto", out=tmp_path / "auto"))
    np.testing.assert_allclose(
        joint.cameras.cam_from_world, auto.cameras.cam_from_world, rtol=0, atol=1e-9
    )
    assert joint.num_gaussians == auto.num_gaussians
    torch.testing.assert_close(joint.static.means, auto.static.means, rtol=0, atol=1e-4)
    assert "joint" not in read_json(tmp_path / "auto" / "refinement.json")
