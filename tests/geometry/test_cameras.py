"""Cameras, projection and camera paths."""

import numpy as np
import pytest
import torch
from unchecked import construct_unchecked

from msdyn.errors import InputError
from msdyn.geometry import (
    Cameras,
    depth_in_camera,
    focus_point,
    harmonics_basis,
    look_at,
    make_path,
    nearest_pixels,
    project,
    transform_points,
    unproject,
    world_points_from_depth,
)


def ring(count=8, radius=2.0):
    """Cameras on an arc that look at the origin."""
    angles = np.linspace(-0.4, 0.4, count)
    centres = radius * np.stack([np.sin(angles), 0.1 * angles, -np.cos(angles)], axis=1)
    poses = np.stack([look_at(c, np.zeros(3), np.array([0.0, 1, 0])) for c in centres])
    return Cameras.pinhole(100.0, 64, 48, poses)


def test_projection_and_its_inverse():
    rng = np.random.default_rng(0)
    cameras = ring()
    points = rng.uniform(-0.3, 0.3, (20, 3))
    cam = transform_points(cameras.cam_from_world, points)
    xy = project(cameras.intrinsics, cam)
    np.testing.assert_allclose(unproject(cameras.intrinsics, xy, cam[..., 2]), cam, atol=1e-12)
    k, x = torch.from_numpy(cameras.intrinsics), torch.from_numpy(cam)
    np.testing.assert_allclose(project(k, x), xy)
    np.testing.assert_allclose(unproject(k, torch.from_numpy(xy), x[..., 2]), cam, atol=1e-12)


def test_the_optical_axis_projects_to_the_image_centre():
    cameras = ring()
    xy = project(cameras.intrinsics, transform_points(cameras.cam_from_world, np.zeros((1, 3))))
    np.testing.assert_allclose(xy[:, 0], [[32, 24]] * len(cameras), atol=1e-9)
    np.testing.assert_allclose(focus_point(cameras), 0, atol=1e-9)


def test_depth_maps_unproject_at_pixel_centres():
    camera = Cameras.pinhole(10.0, 4, 2, np.eye(4))
    points = world_points_from_depth(np.full((2, 4), 5.0, np.float32), camera)
    np.testing.assert_allclose(points[0, 0], [(0.5 - 2) / 2, (0.5 - 1) / 2, 5])


def test_resizing_keeps_the_view():
    cameras = ring()
    points = np.random.default_rng(1).uniform(-0.3, 0.3, (5, 3))
    small = cameras.resized(32, 24)
    cam = transform_points(cameras.cam_from_world, points)
    np.testing.assert_allclose(
        project(small.intrinsics, cam), project(cameras.intrinsics, cam) / 2, atol=1e-12
    )


def test_indexing_keeps_a_sequence():
    cameras = ring()
    assert len(cameras[3]) == 1 and len(cameras[2:5]) == 3 and len(cameras[[0, 7]]) == 2
    with pytest.raises(IndexError):
        cameras[8]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"width": 0}, "camera size"),
        ({"intrinsics": np.zeros((8, 2, 2))}, "intrinsics: expected shape"),
        ({"intrinsics": np.full((8, 3, 3), np.nan)}, "finite"),
        ({"intrinsics": np.zeros((8, 3, 3))}, "focal length"),
        ({"cam_from_world": 2 * np.tile(np.eye(4), (8, 1, 1))}, "rotations"),
        ({"cam_from_world": np.tile(np.diag([1.0, 1, -1, 1]), (8, 1, 1))}, "rotations"),
    ],
)
def test_bad_cameras_are_refused(change, message):
    cameras = ring()
    values = {k: getattr(cameras, k) for k in ("intrinsics", "cam_from_world", "width", "height")}
    with pytest.raises(InputError, match=message):
        construct_unchecked(Cameras, **{**values, **change})


def test_look_at_along_the_down_direction_is_refused():
    with pytest.raises(InputError, match="look_at"):
        look_at(np.zeros(3), np.array([0.0, 1, 0]), np.array([0.0, 1, 0]))


@pytest.mark.parametrize("name", ["input", "orbit", "away", "bullet-time"])
def test_paths_keep_looking_at_the_focus(name):
    """With one camera per input frame: interpolated centres would lie on chords of the arc."""
    cameras = ring()
    path = make_path(name, cameras, len(cameras))
    assert len(path) == len(cameras)
    xy = project(path.intrinsics, transform_points(path.cam_from_world, np.zeros((1, 3))))
    np.testing.assert_allclose(xy[:, 0], [[32, 24]] * len(path), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(path.centres, axis=1), 2.0, atol=0.02)


def test_the_away_path_starts_on_the_input_and_leaves_it():
    cameras = ring()
    path = make_path("away", cameras, 8)
    np.testing.assert_allclose(path.cam_from_world[0], cameras.cam_from_world[0], atol=1e-12)
    distance = np.linalg.norm(path.centres - cameras.centres, axis=1)
    assert (np.diff(distance) > 0).all() and distance[-1] > 0.5


def test_parallel_axes_have_a_focus_in_front():
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 0, 3] = np.arange(4)
    assert focus_point(Cameras.pinhole(50.0, 64, 48, poses))[2] > 0


@pytest.mark.parametrize("arguments", [("spin", 5), ("orbit", 0)])
def test_bad_paths_are_refused(arguments):
    with pytest.raises(InputError, match="camera path"):
        make_path(arguments[0], ring(), arguments[1])


def test_harmonics_are_orthonormal():
    """Quadrature over the sphere: the integral of products is the identity, up to sign."""
    cosines, weights = np.polynomial.legendre.leggauss(16)
    azimuth = np.arange(32) * 2 * np.pi / 32
    z, phi = np.meshgrid(cosines, azimuth, indexing="ij")
    r = np.sqrt(1 - z**2)
    directions = np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=-1).reshape(-1, 3)
    basis = harmonics_basis(3, torch.from_numpy(directions)).numpy()
    weight = np.repeat(weights * 2 * np.pi / 32, 32)
    np.testing.assert_allclose((weight[:, None] * basis).T @ basis, np.eye(16), atol=1e-6)


def test_nearest_pixels():
    xy = np.array([[0.0, 0.0], [0.99, 3.0], [5.0, 1.0], [4.999, -0.1], [np.nan, 2.0], [1e300, 2]])
    row, column, inside = nearest_pixels(xy, 4, 5)
    assert inside.tolist() == [True, True, False, False, False, False]
    assert list(zip(row, column, strict=True))[:2] == [(0, 0), (3, 0)]
    assert (row >= 0).all() and (row < 4).all() and (column >= 0).all() and (column < 5).all()
    assert nearest_pixels(xy.reshape(2, 3, 2), 4, 5)[0].shape == (2, 3)


def test_depth_in_camera_is_the_third_camera_coordinate():
    rng = np.random.default_rng(0)
    poses = np.stack([look_at(rng.normal(size=3), np.zeros(3), np.array([0, 1.0, 0]))] * 2)
    points = rng.normal(size=(2, 7, 3))
    expected = transform_points(poses, points)[..., 2]
    np.testing.assert_allclose(depth_in_camera(poses, points), expected, atol=1e-12)
    tensors = torch.from_numpy(poses), torch.from_numpy(points)
    np.testing.assert_allclose(depth_in_camera(*tensors), expected, atol=1e-12)


def test_cameras_as_tensors():
    cameras = ring(3)
    tensors = cameras.tensors()
    assert len(tensors) == 3 and (tensors.width, tensors.height) == (64, 48)
    np.testing.assert_allclose(tensors.centres, cameras.centres, atol=1e-6)
    np.testing.assert_allclose(tensors[1:].centres, cameras[1:].centres, atol=1e-6)
