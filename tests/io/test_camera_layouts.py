"""Cameras in the formats of other programs, written here by their conventions; invalid files."""

import json

import numpy as np
import pytest
from camera_writers import (
    HEIGHT,
    WIDTH,
    K,
    nerfstudio_content,
    write_colmap_text,
    write_tum,
)
from scipy.spatial.transform import Rotation

from msdyn.errors import InputError
from msdyn.geometry import Cameras, Lens, project, transform_points
from msdyn.io import (
    load_pycolmap,
    read_colmap,
    read_depth_anything3,
    read_megasam,
    read_nerfstudio,
    read_posed_images,
    read_tum,
)
from msdyn.scene import write_cameras

COUNT = 7


@pytest.fixture
def cameras():
    """Cameras with random poses, so that any confusion of axes or order is an error."""
    poses = np.tile(np.eye(4), (COUNT, 1, 1))
    poses[:, :3, :3] = Rotation.random(COUNT, rng=3).as_matrix()
    poses[:, :3, 3] = np.random.default_rng(1).normal(size=(COUNT, 3))
    return Cameras(np.tile(K, (COUNT, 1, 1)), poses, WIDTH, HEIGHT)


def same(found, cameras, atol=1e-6):
    assert (found.width, found.height) == (cameras.width, cameras.height)
    np.testing.assert_allclose(found.cam_from_world, cameras.cam_from_world, atol=atol)
    np.testing.assert_allclose(found.intrinsics, cameras.intrinsics, atol=atol)


def test_colmap_text(cameras, tmp_path):
    names = [f"frame{i}.png" for i in (10, 2, 1, 30, 4, 5, 6)]
    write_colmap_text(tmp_path / "sparse" / "0", cameras, names=names, qvec_sign=-1)
    for folder in (tmp_path, tmp_path / "sparse" / "0"):
        posed = read_posed_images(folder)
        order = np.argsort([10, 2, 1, 30, 4, 5, 6])
        assert posed.layout == "COLMAP" and posed.names == tuple(names[i] for i in order)
        same(posed.cameras, cameras[order])


def test_colmap_binary_as_pycolmap_writes_it(cameras, tmp_path):
    text = write_colmap_text(tmp_path / "text", cameras)
    (tmp_path / "binary").mkdir()
    load_pycolmap().Reconstruction(str(text)).write_binary(str(tmp_path / "binary"))
    assert (tmp_path / "binary" / "cameras.bin").is_file()
    same(read_colmap(tmp_path / "binary").cameras, cameras)


def test_colmap_projects_as_pycolmap_does(cameras, tmp_path):
    folder = write_colmap_text(tmp_path / "m", cameras)
    posed = read_colmap(folder)
    reconstruction = load_pycolmap().Reconstruction(str(folder))
    points = np.random.default_rng(0).normal(size=(30, 3))
    for image in reconstruction.images.values():
        row = posed.names.index(image.name)
        local = transform_points(posed.cameras.cam_from_world[row], points)
        ours = project(posed.cameras.intrinsics[row], local)
        for point, xy, depth in zip(points, ours, local[:, 2], strict=True):
            if depth > 0.1:
                np.testing.assert_allclose(image.project_point(point), xy, atol=1e-6)


def test_the_lens_of_distorted_images_is_read(cameras, tmp_path):
    params = [70.0, 31, 25]
    write_colmap_text(tmp_path / "distorted", cameras, "SIMPLE_RADIAL", [*params, 0.1])
    posed = read_colmap(tmp_path / "distorted")
    assert set(posed.lenses) == {Lens("SIMPLE_RADIAL", (*params, 0.1), WIDTH, HEIGHT)}
    np.testing.assert_allclose(posed.cameras.intrinsics[0], [[70, 0, 31], [0, 70, 25], [0, 0, 1]])
    write_colmap_text(tmp_path / "undistorted", cameras, "SIMPLE_RADIAL", [*params, 1e-6])
    posed = read_colmap(tmp_path / "undistorted")
    assert posed.lenses is None and posed.cameras.intrinsics[0, 0, 0] == 70
    write_colmap_text(tmp_path / "folded", cameras, "SIMPLE_RADIAL", [*params, -9])
    with pytest.raises(InputError, match="camera 1: .*can be inverted on .* of the image"):
        read_colmap(tmp_path / "folded")
    write_colmap_text(tmp_path / "unknown", cameras, "OPENCV", [70, 70, 31, 25, 0, 0, 0, 0])
    path = tmp_path / "unknown" / "cameras.txt"
    path.write_text(path.read_text().replace("OPENCV", "SPHERICAL"))
    with pytest.raises(InputError, match="expected one of the models SIMPLE_PINHOLE, .* EUCM, got"):
        read_colmap(tmp_path / "unknown")


def test_invalid_colmap_models(cameras, tmp_path):
    with pytest.raises(FileNotFoundError, match="no COLMAP model"):
        read_colmap(tmp_path)
    folder = write_colmap_text(tmp_path / "m", cameras)
    (folder / "images.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"images\.bin or images\.txt is missing"):
        read_colmap(folder)
    (folder / "images.txt").write_text("1 nonsense\n")
    with pytest.raises(
        InputError, match="images.txt: line 1: not a readable line of a COLMAP model"
    ):
        read_colmap(folder)
    (folder / "images.txt").write_text("# no image\n")
    with pytest.raises(InputError, match="at least one registered image"):
        read_colmap(folder)


def test_nerfstudio(cameras, tmp_path):
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps(nerfstudio_content(cameras)))
    posed = read_posed_images(path)
    assert posed.layout == "nerfstudio json" and posed.names[0] == "images/frame_00001.png"
    same(posed.cameras, cameras)


def test_nerfstudio_by_field_of_view_and_per_frame(cameras, tmp_path):
    content = nerfstudio_content(cameras)
    for key in ("fl_x", "fl_y", "cx", "cy"):
        del content[key]
    content["camera_angle_x"] = 2 * np.arctan(WIDTH / 2 / 80)
    content["frames"][2] |= {"fl_x": 90.0, "cx": 30.0}
    (tmp_path / "t.json").write_text(json.dumps(content))
    k = read_nerfstudio(tmp_path / "t.json").cameras.intrinsics
    np.testing.assert_allclose(k[0], [[80, 0, 32], [0, 80, 24], [0, 0, 1]])
    np.testing.assert_allclose(k[2], [[90, 0, 30], [0, 90, 24], [0, 0, 1]])


@pytest.mark.parametrize(
    "change, model, params",
    [
        ({"k1": 0.2, "p2": 0.01}, "OPENCV", (0.2, 0, 0, 0.01)),
        ({"k1": 0.2, "k3": 0.03}, "FULL_OPENCV", (0.2, 0, 0, 0, 0.03, 0, 0, 0)),
        ({"k2": 0.1, "camera_model": "OPENCV_FISHEYE"}, "OPENCV_FISHEYE", (0, 0.1, 0, 0)),
        ({"k4": 0.1, "is_fisheye": True}, "OPENCV_FISHEYE", (0, 0, 0, 0.1)),
    ],
)
def test_the_lens_of_nerfstudio(cameras, tmp_path, change, model, params):
    (tmp_path / "t.json").write_text(json.dumps(nerfstudio_content(cameras) | change))
    posed = read_nerfstudio(tmp_path / "t.json")
    assert {lens.model for lens in posed.lenses} == {model}
    assert {lens.params[4:] for lens in posed.lenses} == {params}
    assert all(
        lens.pinhole == (k[0, 0], k[1, 1], k[0, 2], k[1, 2])
        for lens, k in zip(posed.lenses, posed.cameras.intrinsics, strict=True)
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"frames": []}, "frames: expected a list of at least one"),
        ({"w": None}, "w: expected a number, got None"),
        ({"k4": 0.3}, "k4: expected 0 with this camera_model"),
        ({"k1": -9}, "can be inverted on .* of the image"),
        ({"camera_model": "EQUIRECTANGULAR"}, "expected one of OPENCV, .*, got 'EQUIRECTANGULAR'"),
        ({"fl_x": -5}, "expected positive fx and fy"),
    ],
)
def test_invalid_nerfstudio_files(cameras, tmp_path, change, message):
    (tmp_path / "t.json").write_text(json.dumps(nerfstudio_content(cameras) | change))
    with pytest.raises(InputError, match=message) as error:
        read_nerfstudio(tmp_path / "t.json")
    assert "\n" not in str(error.value)


def test_nerfstudio_without_a_pose(cameras, tmp_path):
    content = nerfstudio_content(cameras)
    del content["frames"][3]["transform_matrix"]
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="frame 3: transform_matrix is missing"):
        read_nerfstudio(tmp_path / "t.json")


def test_tum(cameras, tmp_path):
    seconds = 1.3e9 + np.arange(COUNT) / 24
    path = write_tum(tmp_path / "t.txt", cameras, seconds)
    times, poses = read_tum(path)
    np.testing.assert_allclose(times, seconds, atol=1e-6)
    np.testing.assert_allclose(poses, cameras.world_from_cam, atol=1e-6)
    posed = read_posed_images(path, (70, 72, 31, 25), (HEIGHT, WIDTH))
    same(posed.cameras, cameras)
    with pytest.raises(InputError, match="add --intrinsics FX FY CX CY"):
        read_posed_images(path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("# nothing\n", "no poses in it"),
        ("0 1 2 3 0 0 0\n", "line 1: expected"),
        ("0 1 2 3 0 0 0 x\n", "line 1: expected"),
        ("0 1 2 nan 0 0 0 1\n", "cam_from_world: expected finite numbers"),
        ("1 1 2 3 0 0 0 1\n1 1 2 3 0 0 0 1\n", "increasing timestamps"),
        ("0 1 2 3 0 0 0 0\n", "line 1: expected seconds tx ty tz qx qy qz qw"),
    ],
)
def test_invalid_tum_files(tmp_path, text, message):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_posed_images(tmp_path / "t.txt", (70, 72, 31, 25), (HEIGHT, WIDTH))


def test_megasam(cameras, tmp_path):
    depths = np.random.default_rng(0).uniform(0.5, 9, (COUNT, HEIGHT, WIDTH)).astype(np.float16)
    np.savez(
        tmp_path / "m.npz",
        images=np.zeros((COUNT, HEIGHT, WIDTH, 3), np.uint8),
        depths=depths,
        intrinsic=K.astype(np.float32),
        cam_c2w=cameras.world_from_cam.astype(np.float32),
    )
    posed = read_posed_images(tmp_path / "m.npz")
    assert posed.layout == "MegaSaM npz"
    same(posed.cameras, cameras, atol=1e-5)
    np.testing.assert_array_equal(posed.depths, depths)
    np.savez(tmp_path / "n.npz", depths=depths[:3], intrinsic=K, cam_c2w=cameras.world_from_cam)
    with pytest.raises(InputError, match=r"cam_c2w: expected \(3, 4, 4\), got \(7, 4, 4\)"):
        read_megasam(tmp_path / "n.npz")


def test_depth_anything_3(cameras, tmp_path):
    depth = np.random.default_rng(0).uniform(0.5, 9, (COUNT, HEIGHT, WIDTH)).astype(np.float32)
    np.savez_compressed(
        tmp_path / "results.npz",
        depth=depth,
        conf=np.ones_like(depth),
        extrinsics=cameras.cam_from_world[:, :3].astype(np.float32),
        intrinsics=cameras.intrinsics.astype(np.float32),
    )
    posed = read_posed_images(tmp_path / "results.npz")
    assert posed.layout == "Depth Anything 3 npz"
    same(posed.cameras, cameras, atol=1e-5)
    np.testing.assert_array_equal(posed.depths, depth)
    k = cameras.intrinsics.copy()
    k[:, 0, 1] = 5
    np.savez(tmp_path / "skew.npz", depth=depth, extrinsics=cameras.cam_from_world, intrinsics=k)
    with pytest.raises(InputError, match="intrinsics: expected pinhole cameras without skew"):
        read_depth_anything3(tmp_path / "skew.npz")


def test_msdyn_cameras_and_unknown_formats(cameras, tmp_path):
    write_cameras(tmp_path / "cameras.json", cameras)
    posed = read_posed_images(tmp_path / "cameras.json")
    assert posed.layout == "cameras.json"
    same(posed.cameras, cameras)
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "text.npz").write_text("no npz")
    for name, message in (
        ("empty", "no cameras in this folder; expected cameras.json"),
        ("other.npz", r"no cameras in this npz \(it holds a\)"),
        ("text.npz", "not a readable npz file"),
    ):
        with pytest.raises(InputError, match=message):
            read_posed_images(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read_posed_images(tmp_path / "gone.json")
