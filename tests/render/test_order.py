"""The order of Gaussians in novel views; a plane of overlapping ones against its homography."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluate.exact_fits import three_points
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from msdyn.geometry import Cameras, look_at
from msdyn.render import input_axis, jittered_axes, render_image, steady_axis
from msdyn.render.order import order_along, sort_axis
from msdyn.sequence import Gaussians

SIZE, FOCAL, DISTANCE = 96, 110.0, 3.0


def camera_at(degrees: float, pitch: float = 0.0) -> Cameras:
    """A camera that looks at the origin, along +z where it is at 0 degrees."""
    yaw, pitch = np.radians([degrees, pitch])
    centre = -DISTANCE * np.array(
        [np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)]
    )
    pose = look_at(centre, np.zeros(3), down=np.array([0.0, 1.0, 0.0]))[None]
    k = np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1.0]])
    return Cameras(k[None], pose, SIZE, SIZE)


@pytest.fixture(scope="module")
def plane():
    """Overlapping discs of random colours on the plane z = 0, in front of the first camera."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(-1, 1, 0.05), np.arange(-1, 1, 0.05))
    points = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3)
    points[:, :2] += rng.normal(scale=0.01, size=(len(points), 2))
    points[:, 2] += rng.normal(scale=1e-4, size=len(points))
    gaussians = Gaussians.from_points(
        torch.from_numpy(points).float(),
        torch.from_numpy(rng.random((len(points), 3))).float(),
        torch.full((len(points),), 0.04),
        opacity=0.9,
    )
    with torch.no_grad():
        gaussians.log_scales[:, 2] -= 4
    exact = three_points()
    own = camera_at(0.0)
    cameras = Cameras(
        *(v.repeat(len(exact.cameras), 0) for v in (own.intrinsics, own.cam_from_world)), SIZE, SIZE
    )
    return exact.replaced(static=gaussians).replaced(cameras=cameras)


def warped(image: np.ndarray, source: Cameras, target: Cameras) -> np.ndarray:
    """The image of the plane z = 0 from another camera, by its homography."""
    plane = [
        source.intrinsics[0] @ source.cam_from_world[0, :3][:, [0, 1, 3]],
        target.intrinsics[0] @ target.cam_from_world[0, :3][:, [0, 1, 3]],
    ]
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    at = plane[0] @ np.linalg.inv(plane[1]) @ np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    rows, columns = (at[1] / at[2] - 0.5, at[0] / at[2] - 0.5)
    return np.stack(
        [map_coordinates(c, [rows, columns], order=1, mode="nearest").reshape(SIZE, SIZE)
         for c in image.transpose(2, 0, 1)], -1,
    )  # fmt: skip


@pytest.mark.parametrize("degrees", [-28, 15, 36])
def test_a_plane_looks_in_novel_views_as_in_the_input_camera(plane, degrees):
    def shown(camera, order):
        return render_image(plane, camera, 0.5, background=True, objects=[], order=order).rgb

    novel = camera_at(degrees)
    expected = warped(shown(camera_at(0), "input"), camera_at(0), novel)
    inner = np.s_[32:64, 36:60]  # the plane fills it
    errors = {
        order: np.square(shown(novel, order) - expected)[inner].mean() for order in ("input", "own")
    }
    assert errors["input"] < 0.25 * errors["own"], errors


def test_the_input_camera_is_sorted_by_depth(plane):
    image, other = (render_image(plane, camera_at(0), 0.5, order=o).rgb for o in ("input", "own"))
    # Neighbours whose depths differ by rounding alone may change places.
    assert (np.abs(image - other) > 1e-3).mean() < 0.01
    axis = input_axis(plane, camera_at(0), 0.5)
    np.testing.assert_allclose(axis.numpy(), [[0, 0, 1]], atol=1e-6)


def test_a_camera_that_jumps_gives_no_order(plane):
    turning = [camera_at(90.0 * (i % 3)) for i in range(len(plane.cameras))]
    jumping = Cameras(
        np.concatenate([camera.intrinsics for camera in turning]),
        np.concatenate([camera.cam_from_world for camera in turning]),
        SIZE,
        SIZE,
    )
    novel = camera_at(30)
    axis = input_axis(plane.replaced(cameras=jumping), novel, 0.5)
    np.testing.assert_allclose(axis.numpy()[0], novel.cam_from_world[0, 2, :3], atol=1e-6)


def test_the_axis_of_a_clip_follows_turns_but_not_the_sway():
    """A camera that sways by 4 degrees while it turns by 100."""
    turn = np.linspace(-50, 50, 101)
    sway = 4 * (-1.0) ** np.arange(101)
    poses = [camera_at(degrees).cam_from_world for degrees in turn + sway]
    k = camera_at(0).intrinsics.repeat(101, 0)
    clip = Cameras(k, np.concatenate(poses), SIZE, SIZE)
    axes = [steady_axis(clip, i) for i in range(101)]
    yaws = np.array([np.degrees(np.arctan2(axis[0], axis[2])) for axis in axes if axis is not None])
    given = np.degrees(np.arctan2(*clip.cam_from_world[:, 2, [0, 2]].T))
    assert len(yaws) == 101
    assert np.abs(yaws - turn)[20:-20].max() < 2
    assert np.abs(np.diff(yaws, 2)).mean() < 0.2 * np.abs(np.diff(given, 2)).mean()


@given(yaw=st.floats(-180, 180), pitch=st.floats(-80, 80))
def test_the_axis_is_in_front_for_every_ray(yaw, pitch):
    """It is the nearest such direction on the way from the camera's own axis to the given one."""
    novel = camera_at(yaw, pitch)
    given_axis = np.array([0.0, 0.0, 1.0])
    own = novel.cam_from_world[0, 2, :3]
    axis = sort_axis(novel, given_axis)
    assert np.linalg.norm(axis) == pytest.approx(1)

    def degrees(a, b):
        return np.degrees(np.arccos(np.clip(a @ b, -1, 1)))

    corners = np.array([[sx, sy, 2 * FOCAL / SIZE] for sx in (-1, 1) for sy in (-1, 1)])
    rays = (
        corners / np.linalg.norm(corners, axis=1, keepdims=True) @ novel.cam_from_world[0, :3, :3]
    )
    farthest = max(degrees(ray, axis) for ray in rays)
    assert farthest < 70.01
    half = degrees(rays[0], own)
    if degrees(own, given_axis) < 70 - half:
        np.testing.assert_allclose(axis, given_axis, atol=1e-6)
    elif degrees(own, given_axis) < 179.9:
        assert degrees(axis, own) == pytest.approx(70 - half, abs=1e-3)
        assert np.linalg.det([own, axis, given_axis]) == pytest.approx(0, abs=1e-6)


def test_keys_are_positive_and_ordered_whatever_the_means():
    means = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0))
    means[0, 3], means[1, 5, 0] = float("nan"), float("inf")
    axes = torch.tensor([[0.0, 0.0, 1.0], [0.6, 0.0, 0.8]])
    keys = order_along(means, axes)
    assert bool((keys > 0).all()) and bool(keys.isfinite().all())
    good = means[0].isfinite().all(-1)
    expected = (means[0][good] @ axes[0]).argsort()
    np.testing.assert_array_equal(keys[0][good].argsort(), expected)
    assert order_along(means[:, :0], axes).shape == (2, 0)
    assert bool((order_along(torch.ones(2, 3, 3), axes) > 0).all())


def test_jitter_turns_the_axis_by_its_angle_in_all_directions():
    pose = torch.from_numpy(camera_at(40.0, 20.0).cam_from_world).float().expand(4000, 4, 4)
    axes = jittered_axes(pose, 8.0, (3, 1))
    turned = axes @ pose[0, :3, :3].T
    angles = torch.rad2deg(torch.atan(turned[:, :2] / turned[:, 2:]))
    assert (angles.std(0) - 8).abs().max() < 0.3 and angles.mean(0).abs().max() < 0.4
    assert abs(float(torch.corrcoef(angles.T)[0, 1])) < 0.06
    assert torch.equal(axes, jittered_axes(pose, 8.0, (3, 1)))
    assert not torch.equal(axes, jittered_axes(pose, 8.0, (3, 2)))
