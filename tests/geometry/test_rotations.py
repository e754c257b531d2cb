"""Rotations and rigid transforms against scipy, and their properties."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from msdyn.geometry import (
    interpolate_rotations,
    multiply_quats_wxyz,
    quats_wxyz_from_rotations,
    rotations_from_quats_wxyz,
    rotations_from_rotvecs,
    rotations_from_sixd,
    rotvecs_from_rotations,
    sixd_from_rotations,
)

seeds = st.integers(0, 2**31)
batches = st.sampled_from([(), (3,), (2, 4)])


def random_rotations(seed, batch):
    rng = np.random.default_rng(seed)
    count = int(np.prod(batch))
    angle = rng.choice([1e-9, 1e-4, 0.3, 3.1], count)  # including nearly 0 and nearly pi
    axis = rng.normal(size=(count, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    matrices = Rotation.from_rotvec(axis * angle[:, None]).as_matrix()
    return torch.from_numpy(matrices).reshape(*batch, 3, 3)


@given(seeds, batches)
def test_sixd_round_trip_is_exact(seed, batch):
    rotations = random_rotations(seed, batch)
    again = rotations_from_sixd(sixd_from_rotations(rotations))
    assert again.shape == rotations.shape
    torch.testing.assert_close(again, rotations, atol=1e-12, rtol=0)


@given(seeds, batches)
def test_sixd_gives_rotations_from_anything(seed, batch):
    sixd = torch.from_numpy(np.random.default_rng(seed).normal(size=(*batch, 6)))
    rotations = rotations_from_sixd(sixd)
    torch.testing.assert_close(
        rotations @ rotations.mT, torch.eye(3).double().expand_as(rotations), atol=1e-9, rtol=0
    )
    assert (torch.linalg.det(rotations) > 0).all()


@given(seeds, batches)
def test_quaternions_agree_with_scipy(seed, batch):
    rotations = random_rotations(seed, batch)
    quats = quats_wxyz_from_rotations(rotations).reshape(-1, 4).numpy()
    expected = Rotation.from_matrix(rotations.reshape(-1, 3, 3).numpy()).as_quat()[:, [3, 0, 1, 2]]
    # Near an angle of pi the sign is arbitrary and scipy's accuracy is about 1e-8.
    same = np.abs((quats * expected).sum(1))
    np.testing.assert_allclose(same, 1, atol=1e-9)
    back = rotations_from_quats_wxyz(torch.from_numpy(quats) * 2.5).reshape(rotations.shape)
    torch.testing.assert_close(back, rotations, atol=1e-9, rtol=0)


@given(seeds)
def test_quaternion_product_is_composition(seed):
    a, b = random_rotations(seed, (5,)), random_rotations(seed + 1, (5,))
    product = multiply_quats_wxyz(quats_wxyz_from_rotations(a), quats_wxyz_from_rotations(b))
    torch.testing.assert_close(rotations_from_quats_wxyz(product), a @ b, atol=1e-9, rtol=0)


@given(seeds, batches)
def test_rotvec_round_trip(seed, batch):
    rotations = random_rotations(seed, batch)
    again = rotations_from_rotvecs(rotvecs_from_rotations(rotations))
    torch.testing.assert_close(again, rotations, atol=1e-7, rtol=0)


@given(seeds, st.floats(0, 1))
def test_interpolation_agrees_with_scipy(seed, fraction):
    rng = np.random.default_rng(seed)
    ends = Rotation.from_rotvec(rng.uniform(-1, 1, (2, 3)))
    start, end = torch.from_numpy(ends.as_matrix())
    value = interpolate_rotations(start, end, torch.tensor(fraction, dtype=torch.float64))
    np.testing.assert_allclose(value, Slerp([0, 1], ends)(fraction).as_matrix(), atol=1e-7)


def test_interpolation_keeps_its_ends():
    start, end = random_rotations(3, (2,))
    fractions = torch.tensor([0.0, 1.0]).double()
    value = interpolate_rotations(start.expand(2, 3, 3), end.expand(2, 3, 3), fractions)
    torch.testing.assert_close(value, torch.stack([start, end]), atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    "function, width",
    [(rotations_from_sixd, 6), (rotations_from_quats_wxyz, 4), (rotations_from_rotvecs, 3)],
)
def test_gradients(function, width):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, width))).requires_grad_()
    assert torch.autograd.gradcheck(function, x)


def test_no_nan_at_degenerate_input():
    sixd = torch.zeros(2, 6, dtype=torch.float64, requires_grad=True)
    rotations_from_sixd(sixd).sum().backward()
    assert torch.isfinite(sixd.grad).all()
    rotvec = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    rotations_from_rotvecs(rotvec).sum().backward()
    assert torch.isfinite(rotvec.grad).all()
