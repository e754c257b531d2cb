"""Joints from relative motion."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from msdyn.geometry import Rigid, Similarity
from msdyn.geometry.joints import Moments, fit_joint

TIMES = 20
TOLERANCE = 0.005
AXIS = np.array([0.6, 0.0, 0.8])
POINT = np.array([0.1, -0.2, 1.0])
CONTACT = POINT + 0.3 * AXIS
CLOUD = np.random.default_rng(0).normal(size=(200, 3)) * [0.1, 0.05, 0.02] + [0.3, 0, 1]
CHILD = Moments.of(CLOUD, np.ones(200))
SWEEP = np.radians(np.linspace(-40, 70, TIMES))


def about(point, rotvecs):
    rotation = Rotation.from_rotvec(rotvecs).as_matrix()
    return Rigid(rotation, point - rotation @ point)


def relative(kind):
    rng = np.random.default_rng(1)
    if kind == "fixed":
        return about(POINT, np.zeros((TIMES, 3)))
    if kind == "hinge":
        return about(POINT, SWEEP[:, None] * AXIS)
    if kind == "slider":
        shift = np.linspace(-0.05, 0.2, TIMES)[:, None] * AXIS
        return Rigid(np.tile(np.eye(3), (TIMES, 1, 1)), shift)
    if kind == "ball":
        return about(POINT, rng.normal(size=(TIMES, 3)) * 0.5)
    turned = about(POINT, rng.normal(size=(TIMES, 3)) * 0.5)
    return Rigid(turned.rotation, turned.translation + rng.normal(size=(TIMES, 3)) * 0.2)


def noisy(motion, rng, degrees, units):
    """Perturb a motion about the child's middle."""
    turn = about(CHILD.mean, np.radians(degrees) * rng.normal(size=(TIMES, 3)) / np.sqrt(3))
    shift = rng.normal(size=(TIMES, 3)) * units / np.sqrt(3)
    return Rigid(turn.rotation, turn.translation + shift) @ motion


def test_moments_keep_mean_and_covariance():
    points = CHILD.points
    np.testing.assert_allclose(points.mean(0), CLOUD.mean(0), atol=1e-12)
    np.testing.assert_allclose(np.cov(points.T, bias=True), np.cov(CLOUD.T, bias=True), atol=1e-12)


@pytest.mark.parametrize("kind", ["fixed", "hinge", "slider", "ball", "free"])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_the_kind_is_found(kind, noise):
    rng = np.random.default_rng(2)
    motion = noisy(relative(kind), rng, 1.0 * noise, 0.003 * noise)
    joint = fit_joint(motion, CHILD, CONTACT, TOLERANCE)
    assert joint.kind == kind
    assert joint.residual < (1e-6 if noise == 0 else 0.005)
    assert joint.residual_degrees < (1e-3 if noise == 0 else 1.5)


def test_an_exact_hinge():
    joint = fit_joint(relative("hinge"), CHILD, CONTACT, TOLERANCE)
    sign = np.sign(joint.axis @ AXIS)
    np.testing.assert_allclose(joint.axis * sign, AXIS, atol=1e-6)
    np.testing.assert_allclose(joint.point, CONTACT, atol=1e-6)  # the point nearest the contact
    np.testing.assert_allclose(joint.positions * sign, SWEEP, atol=1e-6)
    assert joint.range == pytest.approx((min(SWEEP * sign), max(SWEEP * sign)), abs=1e-6)
    np.testing.assert_allclose(joint.rest.matrix, np.eye(4), atol=1e-6)
    modelled = joint.motion(joint.positions) @ joint.rest
    np.testing.assert_allclose(modelled.matrix, relative("hinge").matrix, atol=1e-6)


def test_a_hinge_with_outliers_and_noise():
    """A tenth of the times is wrong by 30 degrees and 10 cm, the others by 1 degree and 3 mm."""
    rng = np.random.default_rng(3)
    motion = noisy(relative("hinge"), rng, 1.0, 0.003)
    wrong = noisy(relative("hinge"), rng, 30.0, 0.1)
    rotation, translation = motion.rotation.copy(), motion.translation.copy()
    for row in (4, 13):
        rotation[row], translation[row] = wrong.rotation[row], wrong.translation[row]
    joint = fit_joint(Rigid(rotation, translation), CHILD, CONTACT, TOLERANCE)
    assert joint.kind == "hinge"
    assert np.degrees(np.arccos(abs(joint.axis @ AXIS))) < 1.5  # 0.6
    apart = joint.point - CONTACT
    assert np.linalg.norm(apart - apart @ AXIS * AXIS) < 0.01  # 0.002


def test_a_rest_pose_beside_the_hinge_is_kept():
    """The canonical frame may have the child where the hinge does not lead it."""
    off = about(CHILD.mean, np.radians([[0.0, 4.0, 0.0]]))[0]
    joint = fit_joint(relative("hinge") @ off, CHILD, CONTACT, TOLERANCE)
    assert joint.kind == "hinge"
    assert np.degrees(np.arccos(min(1.0, abs(joint.axis @ AXIS)))) < 1e-3
    modelled = joint.motion(joint.positions) @ joint.rest
    np.testing.assert_allclose(modelled.matrix, (relative("hinge") @ off).matrix, atol=1e-6)


def test_a_slider_has_its_axis_and_positions():
    joint = fit_joint(relative("slider"), CHILD, CONTACT, TOLERANCE)
    sign = np.sign(joint.axis @ AXIS)
    np.testing.assert_allclose(joint.axis * sign, AXIS, atol=1e-6)
    np.testing.assert_allclose(joint.positions * sign, np.linspace(-0.05, 0.2, TIMES), atol=1e-6)


def test_the_centre_of_a_ball():
    joint = fit_joint(relative("ball"), CHILD, POINT + 0.05, TOLERANCE)
    np.testing.assert_allclose(joint.point, POINT, atol=1e-3)


def test_other_coordinates():
    turn = Rotation.from_euler("xyz", [20, 30, 40], degrees=True).as_matrix()
    world = Similarity(2.0, Rigid(turn, np.array([1.0, 2.0, 3.0])))
    for kind in ("hinge", "slider"):
        joint = fit_joint(relative(kind), CHILD, CONTACT, TOLERANCE)
        moved = joint.transformed(world)
        expected = world.conjugate(relative(kind))
        modelled = moved.motion(moved.positions) @ moved.rest
        np.testing.assert_allclose(modelled.matrix, expected.matrix, atol=1e-6)


def test_one_time_is_a_fixed_joint():
    joint = fit_joint(relative("hinge")[:1], CHILD, CONTACT, TOLERANCE)
    assert joint.kind == "fixed" and joint.residual < 1e-9
