"""Registration of coloured surfaces."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from msdyn.geometry import (
    Rigid,
    SurfaceSamples,
    register_surfaces,
    sample_normals,
    surface_agreement,
)

SIZE, RESOLUTION = 0.1, 0.006


def relief(rng, count, left, right):
    """Samples of a bumpy, textured sheet facing -z, for x between `left` and `right`."""
    x, y = rng.uniform(left, right, count), rng.uniform(-0.1, 0.1, count)
    z = 0.01 * np.sin(40 * x) * np.cos(35 * y)
    xyz = np.c_[x, y, z]
    phase = np.array([0.0, 1.7, 3.1])
    rgb = 0.5 + 0.25 * (np.sin(90 * x[:, None] + phase) + np.cos(70 * y[:, None] - 2 * phase))
    return SurfaceSamples(xyz, rgb, sample_normals(xyz, np.array([0, 0, -5.0])))


@pytest.mark.parametrize("seed", range(4))
def test_partially_overlapping_surfaces_are_registered(seed):
    rng = np.random.default_rng(seed)
    target, source = relief(rng, 2500, -0.1, 0.06), relief(rng, 2000, -0.05, 0.1)
    rotation = Rotation.from_rotvec(rng.normal(size=3))
    rotation = Rotation.from_rotvec(
        np.radians(12) * rotation.as_rotvec() / rotation.magnitude()
    ).as_matrix()
    translation = rng.uniform(-0.02, 0.02, 3)
    # A tenth are outliers; the rest has noise of 1 mm.
    noisy = source.xyz + rng.normal(0, 0.001, source.xyz.shape)
    noisy[::10] = rng.uniform(-0.15, 0.15, noisy[::10].shape)
    source = SurfaceSamples(noisy, source.rgb, source.normals)
    # The true registration is the inverse of this motion.
    moved = source.moved(Rigid(rotation, translation))
    found = register_surfaces(moved, target, reach=SIZE, resolution=RESOLUTION)
    error = found.rigid @ Rigid(rotation, translation)
    assert np.degrees(Rotation.from_matrix(error.rotation).magnitude()) < 0.5
    centre = source.xyz.mean(0, keepdims=True)
    assert np.linalg.norm(error.apply(centre) - centre) < 0.002
    assert found.agreement > 3 * found.agreement_before
    assert found.agreement == pytest.approx(
        surface_agreement(moved.moved(found.rigid), target, RESOLUTION)
    )


def test_registering_a_surface_to_itself_is_the_identity():
    sheet = relief(np.random.default_rng(0), 1000, -0.1, 0.1)
    found = register_surfaces(sheet, sheet, reach=SIZE, resolution=RESOLUTION)
    np.testing.assert_allclose(found.rigid.matrix, np.eye(4), atol=1e-9)
    assert found.agreement_before == pytest.approx(1) and found.agreement == pytest.approx(1)


def test_surfaces_of_opposite_normals_do_not_agree():
    sheet = relief(np.random.default_rng(0), 1000, -0.1, 0.1)
    behind = SurfaceSamples(sheet.xyz, sheet.rgb, -sheet.normals)
    found = register_surfaces(behind, sheet, reach=SIZE, resolution=RESOLUTION)
    assert found.agreement < 0.05


def test_normals_of_a_sphere_point_towards_the_viewpoint():
    rng = np.random.default_rng(1)
    out = rng.normal(size=(4000, 3))
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    out = out[out[:, 2] < -0.2]
    normals = sample_normals(0.3 * out + [0.1, 0.2, 2.0], np.zeros(3))
    assert np.degrees(np.arccos((normals * out).sum(1).clip(-1, 1))).mean() < 4
    inside = sample_normals(0.3 * out, np.zeros(3))
    assert ((inside * out).sum(1) < 0).mean() > 0.99
    for few in (0, 1, 2):  # too few points for a plane: towards the viewpoint
        points = rng.normal(size=(few, 3))
        normals = sample_normals(points, np.array([0, 0, -9.0]))
        assert normals.shape == (few, 3) and np.isfinite(normals).all()


def test_icp_of_open3d_finds_the_same_pose():
    """An independent registration; it knows no colours, so the start is near and both overlap."""
    open3d = pytest.importorskip("open3d", exc_type=ImportError)
    rng = np.random.default_rng(5)
    target, source = relief(rng, 6000, -0.1, 0.1), relief(rng, 3000, -0.08, 0.08)
    motion = Rigid(
        Rotation.from_rotvec([0.02, -0.03, 0.04]).as_matrix(), np.array([2, -3, 2]) / 1e3
    )
    moved = source.moved(motion)
    ours = register_surfaces(moved, target, reach=0.02, resolution=RESOLUTION).rigid
    clouds = []
    for samples in (moved, target):
        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(samples.xyz))
        cloud.normals = open3d.utility.Vector3dVector(samples.normals)
        clouds.append(cloud)
    kernel = open3d.pipelines.registration.TransformationEstimationPointToPlane()
    theirs = open3d.pipelines.registration.registration_icp(
        *clouds, 0.01, np.eye(4), kernel
    ).transformation
    for found in (ours.matrix, theirs):
        error = Rigid.from_matrix(np.asarray(found)) @ motion
        assert np.degrees(Rotation.from_matrix(error.rotation).magnitude()) < 0.3
        assert np.linalg.norm(error.apply(np.zeros((1, 3)))) < 0.001
    between = Rigid.from_matrix(np.asarray(theirs)).inverse() @ ours
    assert np.degrees(Rotation.from_matrix(between.rotation).magnitude()) < 0.3
