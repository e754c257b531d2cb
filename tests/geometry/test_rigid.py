"""Rigid transforms and similarities: group axioms, action on points, numpy and torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from msdyn.geometry import Rigid, Similarity

seeds = st.integers(0, 2**31)


def random_rigid(seed, *batch):
    rng = np.random.default_rng(seed)
    rotations = Rotation.random(int(np.prod(batch)), random_state=seed)
    return Rigid(rotations.as_matrix().reshape(*batch, 3, 3), rng.normal(size=(*batch, 3)))


def random_similarity(seed):
    rng = np.random.default_rng(seed)
    return Similarity(float(np.exp(rng.normal())), random_rigid(seed, 1)[0])


@given(seeds, st.sampled_from([(1,), (4,), (2, 3)]), st.booleans())
def test_the_group_acts_on_points(seed, batch, tensors):
    a, b = random_rigid(seed, *batch), random_rigid(seed + 1, *batch)
    x = np.random.default_rng(seed).normal(size=(*batch, 5, 3))
    if tensors:
        a, b, x = a.tensors(), b.tensors(), torch.from_numpy(x)
    close = {"rtol": 0, "atol": 1e-12}
    np.testing.assert_allclose((a @ b).apply(x), a.apply(b.apply(x)), **close)
    np.testing.assert_allclose(a.inverse().apply(a.apply(x)), x, **close)
    np.testing.assert_allclose(
        (a @ a.inverse()).matrix, np.tile(np.eye(4), (*batch, 1, 1)), **close
    )
    assert isinstance(a.apply(x), torch.Tensor if tensors else np.ndarray)
    # Homogeneous matrices are the independent reference.
    np.testing.assert_allclose((a @ b).matrix, np.asarray(a.matrix) @ np.asarray(b.matrix), **close)
    again = Rigid.from_matrix(a.matrix)
    np.testing.assert_array_equal(again.rotation, a.rotation)
    np.testing.assert_array_equal(again.translation, a.translation)


def test_batches_broadcast_and_are_indexed():
    many, one = random_rigid(0, 6), random_rigid(1, 1)
    assert len(many) == 6
    np.testing.assert_allclose((one @ many)[2].matrix, (one[0] @ many[2]).matrix, atol=1e-14)
    x = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(many.apply(x)[3], many[3].apply(x))
    np.testing.assert_array_equal(Rigid.identity(2).apply(x), np.stack([x, x]))


@given(seeds, st.floats(0, 1))
def test_interpolation_agrees_with_scipy(seed, fraction):
    start, end = random_rigid(seed, 1), random_rigid(seed + 1, 1)
    between = start.interpolated(end, np.array([fraction]))
    rotations = Rotation.from_matrix(np.concatenate([start.rotation, end.rotation]))
    expected = Slerp([0, 1], rotations)(fraction).as_matrix()
    np.testing.assert_allclose(between.rotation[0], expected, atol=1e-6)
    np.testing.assert_allclose(
        between.translation, (1 - fraction) * start.translation + fraction * end.translation
    )


def test_gradients_pass_through():
    rigid = random_rigid(3, 2).tensors()
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 4, 3))).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rigid.inverse().apply((rigid @ rigid).apply(x)), x)


@given(seeds)
def test_similarities_are_a_group(seed):
    a, b = random_similarity(seed), random_similarity(seed + 1)
    x = np.random.default_rng(seed).normal(size=(7, 3))
    np.testing.assert_allclose((a @ b).apply(x), a.apply(b.apply(x)), atol=1e-9)
    np.testing.assert_allclose(a.inverse().apply(a.apply(x)), x, atol=1e-9)
    np.testing.assert_array_equal(Similarity.identity().apply(x), x)
    np.testing.assert_allclose(Similarity.of(2.0, [1, 2, 3]).apply(x), 2 * x + [1, 2, 3])


@given(seeds)
def test_conjugation_changes_the_world_of_a_motion(seed):
    world, motion = random_similarity(seed), random_rigid(seed + 1, 5)
    x = np.random.default_rng(seed).normal(size=(7, 3))
    conjugated = world.conjugate(motion)
    np.testing.assert_allclose(
        conjugated.apply(world.apply(x)), world.apply(motion.apply(x)), atol=1e-9
    )
    for name in ("rotation", "translation"):
        back = getattr(world.inverse().conjugate(conjugated), name)
        np.testing.assert_allclose(back, getattr(motion, name), atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    rigid = Rigid(torch.eye(3, dtype=dtype)[None], torch.zeros(1, 3, dtype=dtype))
    assert (rigid @ rigid.inverse()).matrix.dtype == dtype
