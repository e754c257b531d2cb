"""Camera paths: start, viewing direction, smoothness."""

import numpy as np
import pytest

from msdyn.errors import InputError
from msdyn.geometry import (
    PATHS,
    Cameras,
    cropped,
    focus_point,
    look_at,
    make_path,
    mean_camera,
    project,
    stabilised,
    swung,
    transform_points,
)

FOCUS = np.array([0.5, 0.2, 0.3])
DOWN = np.array([0, 0, -1.0])


@pytest.fixture
def cameras():
    """An arc about a point, with jitter."""
    rng = np.random.default_rng(0)
    angles = np.linspace(-0.4, 0.4, 24)
    centres = FOCUS + 3 * np.stack([np.sin(angles), -np.cos(angles), 0.2 + 0 * angles], -1)
    centres += 0.01 * rng.normal(size=centres.shape)
    targets = FOCUS + 0.02 * rng.normal(size=centres.shape)
    poses = [look_at(c, t, DOWN) for c, t in zip(centres, targets, strict=True)]
    return Cameras.pinhole(60.0, 64, 48, np.stack(poses))


def steps(cameras):
    return np.linalg.norm(np.diff(cameras.centres, axis=0), axis=1)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("count", [1, 2, 31])
def test_every_path_views_the_scene(cameras, name, count):
    path = make_path(name, cameras, count)
    assert len(path) == count and (path.width, path.height) == (64, 48)
    forward = path.cam_from_world[:, 2, :3]
    to_focus = FOCUS - path.centres
    distance = (forward * to_focus).sum(1)
    lateral = np.linalg.norm(to_focus - distance[:, None] * forward, axis=1)
    assert (distance > 1.5).all() and (lateral < 0.2).all()
    assert (path.cam_from_world[:, 1, 2] < 0).all()  # upright


@pytest.mark.parametrize("name", ["orbit", "spiral", "dolly", "stabilised", "bullet-time"])
def test_paths_are_smooth(cameras, name):
    path = make_path(name, cameras, 60)
    change = np.linalg.norm(np.diff(path.centres, n=2, axis=0), axis=1)
    assert change.max() < 0.02 * 3
    assert np.ptp(path.centres, axis=0).max() > 0.2


def test_the_stabilised_path_follows_the_input_with_less_jitter(cameras):
    path = make_path("stabilised", cameras, 24)
    jitter = np.abs(np.diff(path.centres, n=2, axis=0)).mean()
    assert jitter < 0.2 * np.abs(np.diff(cameras.centres, n=2, axis=0)).mean()
    middle = slice(4, -4)  # the temporal filter is truncated at the ends
    assert np.abs(path.centres - cameras.centres)[middle].max() < 0.05
    np.testing.assert_allclose(path.intrinsics, cameras.intrinsics, atol=1e-9)


def test_closed_paths_end_where_they_start(cameras):
    for name in ("dolly", "bullet-time"):
        path = make_path(name, cameras, 20)
        middle = cameras[len(cameras) // 2]
        for end in (0, -1):
            np.testing.assert_allclose(
                path.cam_from_world[end], middle.cam_from_world[0], atol=1e-9
            )
    dolly = make_path("dolly", cameras, 21)
    focus = focus_point(cameras)
    distance = np.linalg.norm(dolly.centres - focus, axis=1)
    assert distance[10] == pytest.approx(0.7 * distance[0], rel=0.01)


def test_a_swing_keeps_each_focus_at_its_pixel(cameras):
    focus = FOCUS + 0.1 * np.random.default_rng(1).normal(size=(24, 3))
    path = swung(cameras, focus, 12.0, cycles=2)

    def pixels(of):
        return project(of.intrinsics, transform_points(of.cam_from_world, focus[:, None]))[:, 0]

    np.testing.assert_allclose(pixels(path), pixels(cameras), atol=1e-6)
    relative = path.cam_from_world[:, :3, :3] @ cameras.cam_from_world[:, :3, :3].swapaxes(1, 2)
    angle = np.degrees(np.arccos((np.trace(relative, axis1=1, axis2=2).clip(-1, 3) - 1) / 2))
    assert 10 < angle.max() < 14 and angle[0] < 1e-4 > angle[-1]
    # Of two swings, the second repeats the first.
    assert (angle > 6).sum() > 10 and angle[11:13].max() < 4
    # Upwards, never below the input.
    up = (path.centres - cameras.centres) @ -DOWN
    assert up.min() > -0.03 and up.max() > 0.1
    with pytest.raises(InputError, match=r"expected shape \(24, 3\)"):
        swung(cameras, focus[:3], 12.0)


def test_the_mean_camera_and_the_stabilised_one(cameras):
    mean = mean_camera(cameras)
    assert len(mean) == 1
    np.testing.assert_allclose(mean.centres[0], cameras.centres.mean(0), atol=1e-9)
    forward = cameras.cam_from_world[:, 2, :3].mean(0)
    cosine = mean.cam_from_world[0, 2, :3] @ forward / np.linalg.norm(forward)
    assert cosine > 0.999
    half = stabilised(cameras, np.array([11.5]))
    np.testing.assert_allclose(
        half.centres[0], cameras.interpolated(np.array([11.5])).centres[0], atol=0.05
    )


def test_a_crop_enlarges_about_the_principal_point(cameras):
    points = np.array([[0.1, -0.2, 2.0], [0, 0, 1.0]])
    before = project(cameras.intrinsics[0], points) - [32, 24]
    after = project(cropped(cameras, 1.25).intrinsics[0], points) - [32, 24]
    np.testing.assert_allclose(after, 1.25 * before, atol=1e-9)
    assert cropped(cameras, 1.25).width == 64


def test_interpolated_cameras(cameras):
    same = cameras.interpolated(np.arange(24.0))
    np.testing.assert_array_equal(same.cam_from_world, cameras.cam_from_world)
    # Halfway between two cameras whose orientations differ by 45 degrees.
    poses = np.stack([look_at(np.array([i, 0, 0.0]), np.array([i, 1.0, t]), DOWN)
                      for i, t in ((0.0, 0.0), (1.0, 1.0))])  # fmt: skip
    pair = Cameras.pinhole(np.array([50.0, 70.0]), 64, 48, poses)
    half = pair.interpolated(np.array([0.5]))
    np.testing.assert_allclose(half.centres[0], [0.5, 0, 0], atol=1e-12)
    forward = half.cam_from_world[0, 2, :3]
    assert np.degrees(np.arctan2(forward[2], forward[1])) == pytest.approx(22.5)
    assert half.intrinsics[0, 0, 0] == 60
    with pytest.raises(InputError, match="expected 0 to 23"):
        cameras.interpolated(np.array([23.5]))
