"""Procrustes alignment against scipy and roma, and its defined degenerate cases."""

import numpy as np
import pytest
import roma
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from msdyn.geometry import (
    Cameras,
    Rigid,
    Similarity,
    align_camera_paths,
    nearest_rotations,
    procrustes,
    similarity_from_points,
)


def problem(seed, count=12, noise=0.0):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(count, 3))
    rotation = Rotation.random(random_state=seed).as_matrix()
    translation = rng.normal(size=3)
    target = source @ rotation.T + translation + noise * rng.normal(size=(count, 3))
    weights = rng.uniform(0.1, 1, count)
    return tuple(torch.from_numpy(v) for v in (source, target, weights, rotation, translation))


@given(st.integers(0, 2**31))
def test_exact_motion_is_recovered(seed):
    source, target, weights, rotation, translation = problem(seed)
    found = procrustes(source, target, weights)
    rigid, rank = found.rigid, found.rank
    found, shift = rigid.rotation, rigid.translation
    torch.testing.assert_close(found, rotation, atol=1e-12, rtol=0)
    torch.testing.assert_close(shift, translation, atol=1e-11, rtol=0)
    assert rank == 3


@given(st.integers(0, 2**31))
def test_noisy_motion_agrees_with_roma_and_scipy(seed):
    source, target, weights, *_ = problem(seed, noise=0.3)
    found = procrustes(source, target, weights)
    rigid, _ = found.rigid, found.rank
    found, shift = rigid.rotation, rigid.translation
    expected_rotation, expected_translation = roma.rigid_points_registration(
        source, target, weights=weights
    )
    torch.testing.assert_close(found, expected_rotation, atol=1e-9, rtol=0)
    torch.testing.assert_close(shift, expected_translation, atol=1e-9, rtol=0)
    normalised = weights / weights.sum()
    centred = [(v - (normalised[:, None] * v).sum(0)).numpy() for v in (target, source)]
    expected = Rotation.align_vectors(*centred, weights=weights.numpy())[0].as_matrix()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_batches_broadcast():
    source, target, weights, rotation, _ = problem(1)
    batch = torch.stack([target, source])
    found = procrustes(source[None], batch, weights.expand(2, -1)).rigid.rotation
    torch.testing.assert_close(found, torch.stack([rotation, torch.eye(3).double()]))


def test_points_without_weight_are_ignored_even_nan():
    source, target, weights, rotation, translation = problem(2)
    target, weights = target.clone(), weights.clone()
    target[0], weights[0] = torch.nan, 0
    found = procrustes(source, target, weights)
    rigid, _ = found.rigid, found.rank
    found, shift = rigid.rotation, rigid.translation
    torch.testing.assert_close(found, rotation)
    torch.testing.assert_close(shift, translation)


def test_no_weight_gives_the_identity():
    source, target, weights, *_ = problem(3)
    found = procrustes(source, target, 0 * weights)
    rigid, rank = found.rigid, found.rank
    rotation, translation = rigid.rotation, rigid.translation
    assert torch.equal(rotation, torch.eye(3).double())
    assert torch.equal(translation, torch.zeros(3).double())
    assert rank == -1


def test_one_point_gives_a_translation():
    source, target, weights, *_ = problem(4, count=1)
    found = procrustes(source, target, weights)
    rigid, rank = found.rigid, found.rank
    rotation, translation = rigid.rotation, rigid.translation
    torch.testing.assert_close(rotation, torch.eye(3).double())
    torch.testing.assert_close(translation, (target - source)[0])
    assert rank == 0


@pytest.mark.parametrize("direction", [[0.0, 1, 0], [-1.0, 0, 0], [0.6, 0.8, 0]])
def test_collinear_points_are_not_rotated_about_their_line(direction):
    steps = torch.linspace(-1, 1, 7).double()[:, None]
    source = steps * torch.tensor([[1.0, 0, 0]])
    target = steps * torch.tensor([direction]) + 2
    found = procrustes(source, target, torch.ones(7).double())
    rigid, rank = found.rigid, found.rank
    rotation, translation = rigid.rotation, rigid.translation
    assert rank == 1
    torch.testing.assert_close(Rigid(rotation, translation).apply(source), target)
    angle = np.linalg.norm(Rotation.from_matrix(rotation.numpy()).as_rotvec())
    expected = np.arccos(np.clip(direction[0], -1, 1))
    np.testing.assert_allclose(angle, expected, atol=1e-6)


def test_a_plane_determines_a_proper_rotation():
    source, _, weights, rotation, translation = problem(5)
    source = source * torch.tensor([1.0, 1, 0])
    found = procrustes(source, Rigid(rotation, translation).apply(source), weights)
    rigid, rank = found.rigid, found.rank
    found, shift = rigid.rotation, rigid.translation
    assert rank == 2
    torch.testing.assert_close(found, rotation)
    torch.testing.assert_close(shift, translation)


def test_a_mirrored_point_set_gives_a_proper_rotation():
    source, _, weights, *_ = problem(6)
    found = procrustes(source, source * torch.tensor([-1.0, 1, 1]), weights).rigid.rotation
    assert torch.linalg.det(found) == pytest.approx(1)


def test_the_prior_shrinks_the_rotation():
    source, target, weights, rotation, _ = problem(7)

    def angle(prior):
        found = procrustes(source, target, weights, torch.tensor(prior).double()).rigid.rotation
        return np.linalg.norm(Rotation.from_matrix(found.numpy()).as_rotvec())

    full = np.linalg.norm(Rotation.from_matrix(rotation.numpy()).as_rotvec())
    angles = [angle(p) for p in (0.0, 0.5, 5.0, 1e6)]
    assert angles[0] == pytest.approx(full)
    assert angles == sorted(angles, reverse=True)
    assert angles[-1] < 1e-5


def test_similarity_is_recovered():
    source, target, *_ = problem(8)
    found = similarity_from_points(source.numpy(), 3 * target.numpy())
    assert found.scale == pytest.approx(3)
    np.testing.assert_allclose(found.apply(source.numpy()), 3 * target, atol=1e-9)


@pytest.mark.parametrize("spread", [1.0, 0.0])
def test_camera_paths_align_even_if_collinear(spread):
    rng = np.random.default_rng(9)
    poses = np.tile(np.eye(4), (6, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(0.2 * rng.normal(size=(6, 3))).as_matrix()
    centres = np.arange(6)[:, None] * [1.0, 0, 0] + spread * rng.normal(size=(6, 3))
    poses[:, :3, 3] = -(poses[:, :3, :3] @ centres[..., None])[..., 0]
    source = Cameras.pinhole(100.0, 64, 48, poses)
    rotation = Rotation.from_rotvec([0.3, -0.5, 1.0]).as_matrix()
    world = Similarity(2.5, Rigid(rotation, np.array([1.0, 2, 3])))
    target = source.transformed(world)
    found = align_camera_paths(source, target)
    assert found.scale == pytest.approx(2.5)
    np.testing.assert_allclose(found.rigid.matrix, world.rigid.matrix, atol=1e-9)
    np.testing.assert_allclose(
        source.transformed(found).cam_from_world, target.cam_from_world, atol=1e-9
    )


def test_the_nearest_rotation_of_a_weighted_mean_is_scipys_mean():
    rng = np.random.default_rng(4)
    rotations = Rotation.from_rotvec(rng.normal(0, 0.8, (3, 7, 3)).reshape(-1, 3))
    matrices = rotations.as_matrix().reshape(3, 7, 3, 3)
    weights = rng.random(7)
    found = nearest_rotations(np.einsum("t,btij->bij", weights, matrices))
    for own, mean in zip(matrices, found, strict=True):
        expected = Rotation.from_matrix(own).mean(weights).as_matrix()
        np.testing.assert_allclose(mean, expected, atol=1e-12)
    # A reflection gives a proper rotation too.
    assert np.linalg.det(nearest_rotations(np.diag([1.0, 0.9, -0.5]))) == pytest.approx(1)


def test_arrays_give_arrays_of_the_same_values():
    tensors = problem(3)[:3]
    expected = procrustes(*tensors)
    found = procrustes(*(t.numpy() for t in tensors))
    assert isinstance(found.rigid.rotation, np.ndarray)
    np.testing.assert_array_equal(found.rigid.matrix, expected.rigid.matrix.numpy())
