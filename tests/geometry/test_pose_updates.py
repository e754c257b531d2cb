"""Updates of camera poses against scipy's matrix exponential, torch's Adam and their properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from msdyn.geometry import PoseSteps, cosine_decay, pose_updates_between, updated_poses

seeds = st.integers(0, 2**31)


def random_poses(seed, count=3):
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.random(count, random_state=seed % 2**31).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(count, 3))
    return torch.from_numpy(poses)


@settings(max_examples=20)
@given(seeds, st.sampled_from([1e-8, 1e-3, 0.5]))
def test_an_update_rotates_about_the_camera_and_translates(seed, size):
    poses = random_poses(seed)
    updates = size * torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 6)))
    moved = updated_poses(poses, updates, 2.0)
    for pose, update, result in zip(poses, updates.numpy(), moved, strict=True):
        x, y, z = update[:3]
        exp = expm(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]))
        expected = np.eye(4)
        expected[:3, :3], expected[:3, 3] = exp, 2 * update[3:]
        np.testing.assert_allclose(result, expected @ pose.numpy(), atol=1e-12)
    torch.testing.assert_close(
        pose_updates_between(poses, moved, 2.0), updates, rtol=1e-6, atol=1e-14
    )


def test_the_gradient_at_zero():
    poses = random_poses(0)
    zero = torch.zeros(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: updated_poses(poses, u, 0.7), (zero,))


def test_steps_are_those_of_adam_and_others_stay():
    """Small steps of one pose, against torch's Adam of its update; a pose without steps stays."""
    poses = random_poses(1)
    steps = PoseSteps(poses, 0.5)
    parameter = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([parameter], lr=1e-6, eps=1e-15)
    rng = np.random.default_rng(2)
    for _ in range(5):
        gradient = torch.from_numpy(rng.normal(size=(1, 6)))
        steps.step(torch.tensor([1]), gradient, 1e-6)
        parameter.grad = gradient
        adam.step()
    expected = updated_poses(poses[1:2], parameter.detach(), 0.5)
    torch.testing.assert_close(steps.cam_from_world[1:2], expected, rtol=0, atol=1e-10)
    assert (steps.cam_from_world[1:2] - poses[1:2]).abs().max() > 1e-6
    torch.testing.assert_close(steps.cam_from_world[[0, 2]], poses[[0, 2]], rtol=0, atol=0)


def test_poses_stay_rigid_and_resume_exactly():
    steps = PoseSteps(random_poses(3))
    rng = np.random.default_rng(4)

    def go_on(which, count):
        for number in range(count):
            gradient = torch.from_numpy(np.random.default_rng(number).normal(size=(2, 6)))
            which.step(torch.from_numpy(rng.permutation(3)[:2]), gradient, 0.05)

    go_on(steps, 200)
    kept = {name: value.clone() for name, value in steps.tensors().items()}
    rng = np.random.default_rng(5)
    go_on(steps, 20)
    again = PoseSteps(random_poses(6))
    again.restore(kept)
    rng = np.random.default_rng(5)
    go_on(again, 20)
    assert torch.equal(again.cam_from_world, steps.cam_from_world)
    rotation = steps.cam_from_world[:, :3, :3]
    eye = torch.eye(3, dtype=torch.float64).expand(3, 3, 3)
    torch.testing.assert_close(rotation @ rotation.mT, eye, rtol=0, atol=1e-12)
    with pytest.raises(RuntimeError, match="steps: expected finite numbers"):
        again.restore(kept | {"steps": torch.full((3, 1), math.nan)})
    with pytest.raises(RuntimeError, match=r"poses: .*\(3, 4, 4\), got \(2, 4, 4\)"):
        again.restore(kept | {"poses": kept["poses"][:2]})


def test_the_given_poses_are_not_changed():
    poses = random_poses(7)
    before = poses.clone()
    PoseSteps(poses).step(torch.arange(3), torch.ones(3, 6), 0.1)
    assert torch.equal(poses, before)


def test_the_decay_of_the_rate():
    assert [cosine_decay(p, start=0.5, end=0.1) for p in (0, 0.5, 1, 2)] == [1, 1, 0.1, 0.1]
    assert cosine_decay(0.75, start=0.5, end=0.1) == pytest.approx(0.55)
