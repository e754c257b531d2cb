"""Camera files of other programs, written here from known cameras, and TUM and flo files."""

import json

import numpy as np
import pytest

from msdyn.errors import InputError
from msdyn.geometry import Cameras, look_at
from msdyn.io import read_camera_file, read_flo, read_tum, write_flo, write_tum
from msdyn.scene import write_cameras

DOWN = np.array([0, 0, -1.0])


@pytest.fixture
def cameras():
    poses = [look_at(np.array([2.0, i, 1]), np.zeros(3), DOWN) for i in (0.0, 0.5, 1.0)]
    return Cameras.pinhole(50.0, 64, 48, np.stack(poses))


def opengl(cameras):
    """Return world_from_cam with OpenGL's camera axes."""
    return [(pose * [1, -1, -1, 1]).tolist() for pose in cameras.world_from_cam]


def write(tmp_path, content):
    path = tmp_path / "camera.json"
    path.write_text(json.dumps(content))
    return path


def msdyn_camera(camera, **more):
    k = camera.intrinsics[0]
    return {
        "fx": k[0, 0], "fy": k[1, 1], "cx": k[0, 2], "cy": k[1, 2],
        "cam_from_world": camera.cam_from_world[0].tolist(), **more,
    }  # fmt: skip


def assert_same(found, cameras):
    np.testing.assert_allclose(found.cam_from_world, cameras.cam_from_world, atol=1e-12)
    np.testing.assert_allclose(found.intrinsics, cameras.intrinsics, atol=1e-9)
    assert (found.width, found.height) == (64, 48)


def test_msdyn_cameras_with_times(tmp_path, cameras):
    write_cameras(tmp_path / "a.json", cameras, np.array([0.1, 0.5, 0.2]))
    found = read_camera_file(tmp_path / "a.json")
    assert_same(found.cameras, cameras)
    np.testing.assert_array_equal(found.times, [0.1, 0.5, 0.2])
    write_cameras(tmp_path / "a.json", cameras)
    assert read_camera_file(tmp_path / "a.json").times is None


def test_a_list_of_cameras_with_times(tmp_path, cameras):
    size = {"width": 64, "height": 48}
    content = [
        msdyn_camera(c, time=t, **size) for c, t in zip(cameras, (0.0, 0.5, 1.0), strict=True)
    ]
    found = read_camera_file(write(tmp_path, content))
    assert_same(found.cameras, cameras)
    np.testing.assert_array_equal(found.times, [0, 0.5, 1])


def test_nerfstudio_camera_path(tmp_path, cameras):
    fov = np.degrees(2 * np.arctan(48 / 2 / 50.0))
    content = {
        "camera_type": "perspective", "render_width": 64, "render_height": 48, "fps": 24,
        "camera_path": [
            {"camera_to_world": np.ravel(pose).tolist(), "fov": fov, "aspect": 4 / 3,
             "render_time": time}
            for pose, time in zip(opengl(cameras), (0.0, 0.4, 0.8), strict=True)
        ],
    }  # fmt: skip
    found = read_camera_file(write(tmp_path, content))
    assert_same(found.cameras, cameras)
    np.testing.assert_allclose(found.times, [0, 0.4, 0.8])
    del content["camera_path"][1]["render_time"]
    assert read_camera_file(write(tmp_path, content)).times is None


@pytest.mark.parametrize("intrinsics", ["per frame", "shared", "field of view"])
def test_nerfstudio_transforms(tmp_path, cameras, intrinsics):
    k = {"w": 64, "h": 48, "fl_x": 50.0, "fl_y": 50.0, "cx": 32.0, "cy": 24.0}
    if intrinsics == "field of view":
        k = {"w": 64, "h": 48, "camera_angle_x": 2 * np.arctan(64 / 2 / 50.0)}
    frames = [
        {
            "file_path": f"{i}.png",
            "transform_matrix": pose,
            **(k if intrinsics == "per frame" else {}),
        }
        for i, pose in enumerate(opengl(cameras))
    ]
    content = {"frames": frames, **({} if intrinsics == "per frame" else k)}
    found = read_camera_file(write(tmp_path, content))
    assert_same(found.cameras, cameras)


def test_dycheck_camera(tmp_path, cameras):
    content = {
        "orientation": cameras.cam_from_world[1, :3, :3].tolist(),
        "position": cameras.centres[1].tolist(),
        "focal_length": 50.0, "principal_point": [32.0, 24.0], "skew": 0.0,
        "pixel_aspect_ratio": 1.0, "radial_distortion": [0, 0, 0],
        "tangential_distortion": [0, 0], "image_size": [64, 48],
    }  # fmt: skip
    found = read_camera_file(write(tmp_path, content))
    assert_same(found.cameras, cameras[1])


@pytest.mark.parametrize(
    "content, text",
    [
        ({"a": 1}, "width: expected an integer"),
        ("text", "expected a JSON object or list, got str"),
        ([], "at least one camera"),
        ({"frames": [{"transform_matrix": np.eye(4).tolist()}], "w": 4, "h": 3}, "fl_x is missing"),
        ({"frames": [{"transform_matrix": [[1, 2]]}], "w": 4, "h": 3, "fl_x": 5}, "a 4x4 matrix"),
        ({"frames": [{"transform_matrix": np.eye(4).tolist()}], "h": 3, "fl_x": 5}, "w is missing"),
        (
            {"frames": [{"transform_matrix": np.eye(4).tolist()}], "w": 4, "h": 3, "fl_x": 5,
             "k1": 0.1},
            "undistort",
        ),
        ({"camera_path": [{"fov": 50}], "render_width": 4, "render_height": 3}, "camera_to_world"),
        (
            {"camera_path": [{"camera_to_world": np.eye(4).tolist()}], "render_width": 4,
             "render_height": 3},
            "fov is missing",
        ),
        ({"camera_path": [{"fov": 50}], "camera_type": "fisheye"}, "expected perspective"),
        ({"orientation": np.eye(3).tolist()}, "position is missing"),
        (
            {"frames": [{"transform_matrix": (2 * np.eye(4)).tolist()}], "w": 4, "h": 3, "fl_x": 5},
            "expected rotations",
        ),
    ],
)  # fmt: skip
def test_errors_name_the_missing_key_and_the_supported_formats(tmp_path, content, text):
    path = write(tmp_path, content)
    with pytest.raises(InputError) as error:
        read_camera_file(path)
    line = str(error.value)
    assert str(path) in line and text in line
    for form in ("msdyn's", "transforms.json", "camera_path.json", "DyCheck's", "with time"):
        assert form in line


def test_tum_round_trip(tmp_path, cameras):
    seconds = np.array([0.0, 0.1, 0.25])
    write_tum(tmp_path / "a.txt", seconds, cameras.world_from_cam, comment="cameras")
    read_seconds, poses = read_tum(tmp_path / "a.txt")
    np.testing.assert_allclose(read_seconds, seconds, atol=1e-9)
    np.testing.assert_allclose(poses, cameras.world_from_cam, atol=2e-9)


def test_flo_has_the_bytes_of_middlebury(tmp_path):
    flow = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    valid = np.array([[True, True, False], [True, True, True]])
    write_flo(tmp_path / "a.flo", flow, valid)
    raw = (tmp_path / "a.flo").read_bytes()
    assert np.frombuffer(raw, "<f4", 1)[0] == np.float32(202021.25)  # "PIEH" as a number
    assert np.frombuffer(raw, "<i4", 2, 4).tolist() == [3, 2]
    found, known = read_flo(tmp_path / "a.flo")
    np.testing.assert_array_equal(known, valid)
    np.testing.assert_array_equal(found[valid], flow[valid])
    (tmp_path / "a.flo").write_bytes(raw[:-4])
    with pytest.raises(InputError, match="expected 3x2 pixels"):
        read_flo(tmp_path / "a.flo")
