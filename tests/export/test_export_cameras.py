"""Cameras and points, read back by other programs' readers."""

import json

import numpy as np
import pytest
from plyfile import PlyData
from scipy.spatial.transform import Rotation

from msdyn.export import export_cameras, export_points, surface_points, to_open3d
from msdyn.geometry import project, transform_points
from msdyn.io import read_camera_file
from msdyn.reading import read_json
from msdyn.sequence import PartSelection


def test_pycolmap_reads_the_same_cameras_and_points(exact, tmp_path):
    pytest.importorskip("zlib")  # before pycolmap, which else breaks PNG writing
    pycolmap = pytest.importorskip("pycolmap")
    export_cameras(exact, tmp_path, exact.timeline.times)
    model = pycolmap.Reconstruction(str(tmp_path / "colmap" / "sparse" / "0"))
    assert model.num_images() == 8 and model.num_cameras() == 1
    camera = model.cameras[1]
    assert (camera.width, camera.height) == (96, 72)
    k = exact.cameras.intrinsics[0]
    np.testing.assert_array_equal(camera.params, [k[0, 0], k[1, 1], k[0, 2], k[1, 2]])
    for image in model.images.values():
        frame = int(image.name.removesuffix(".png"))
        pose = image.cam_from_world()
        expected = exact.cameras.cam_from_world[frame]
        np.testing.assert_allclose(pose.matrix(), expected[:3], atol=1e-12)
        # Points project to the same pixels.
        point = np.array([0.1, 0.2, 0.3])
        ours = project(k, transform_points(expected, point[None]))[0]
        np.testing.assert_allclose(image.project_point(point), ours, atol=1e-9)
    assert 0 < model.num_points3D() <= 5000
    points = np.array([p.xyz for p in model.points3D.values()])
    assert np.isin(points[0], exact.static.means.detach().double().numpy()).all()


def test_transforms_json_holds_the_same_cameras(exact, tmp_path):
    times = np.array([0.0, 0.35, 1.0])
    export_cameras(exact, tmp_path, times)
    content = json.loads((tmp_path / "transforms.json").read_text())
    assert [frame["file_path"] for frame in content["frames"]] == [
        "images/00000.png", "images/00001.png", "images/00002.png"
    ]  # fmt: skip
    expected = exact.cameras.interpolated(exact.timeline.frame_positions(times))
    for frame, pose in zip(content["frames"], expected.world_from_cam, strict=True):
        # OpenGL cameras look along -z with y up, OpenCV cameras along +z with y down.
        matrix = np.array(frame["transform_matrix"])
        np.testing.assert_allclose(-matrix[:3, 2], pose[:3, 2], atol=1e-12)
        np.testing.assert_allclose(-matrix[:3, 1], pose[:3, 1], atol=1e-12)
        np.testing.assert_allclose(matrix[:3, 3], pose[:3, 3], atol=1e-12)
    again = read_camera_file(tmp_path / "transforms.json")
    np.testing.assert_allclose(again.cameras.cam_from_world, expected.cam_from_world, atol=1e-12)
    np.testing.assert_allclose(again.times, times)


def test_the_trajectory_is_the_cameras(exact, tmp_path):
    export_cameras(exact, tmp_path, exact.timeline.times)
    table = np.loadtxt(tmp_path / "cameras_tum.txt")
    np.testing.assert_allclose(table[:, 0], exact.timeline.seconds, atol=1e-9)
    np.testing.assert_allclose(table[:, 1:4], exact.cameras.centres, atol=1e-8)
    turned = Rotation.from_quat(table[:, 4:]).as_matrix()
    np.testing.assert_allclose(turned, exact.cameras.world_from_cam[:, :3, :3], atol=1e-7)


def test_points_lie_on_the_surfaces_in_their_colours(truth, exact, tmp_path):
    export_points(exact, tmp_path, exact.timeline.times[[3]])
    vertex = PlyData.read(tmp_path / "00000.ply")["vertex"]
    points = np.stack([vertex[n] for n in "xyz"], -1)
    colours = np.stack([vertex[n] for n in ("red", "green", "blue")], -1)
    assert len(points) == 96 * 72 == read_json(tmp_path / "manifest.json")["points"][0]
    camera, depth = truth.clip.cameras[3], truth.clip.depths[3].ravel()
    z = transform_points(camera.cam_from_world[0], points.astype(float))[:, 2]
    # Measured median 1.4 %: the Gaussians of eight frames lie in eight layers.
    assert np.median(np.abs(z - depth) / depth) < 0.02
    difference = np.abs(colours.astype(int) - truth.clip.images[3].reshape(-1, 3))
    # Measured 12 of 255: the shading of eight frames is blended.
    assert np.median(difference) < 16


def test_points_of_one_object(truth, exact):
    time = exact.timeline.times[3]
    points, _ = surface_points(exact, time, PartSelection(objects="1", background="off"))
    count = int((truth.clip.masks[3] == 1).sum())
    assert 0.9 * count < len(points) < 1.5 * count  # rendered alone, not occluded by another


def test_open3d_gets_the_same_points(exact, tmp_path):
    open3d = pytest.importorskip("open3d", exc_type=ImportError)
    points, colours = surface_points(exact, 0.5)
    cloud = to_open3d(points, colours)
    np.testing.assert_allclose(np.asarray(cloud.points), points)
    export_points(exact, tmp_path, np.array([0.5]))
    read = open3d.io.read_point_cloud(str(tmp_path / "00000.ply"))
    np.testing.assert_allclose(np.asarray(read.points), points, atol=1e-6)
    np.testing.assert_allclose(np.asarray(read.colors) * 255, colours, atol=0.51)


def test_without_open3d_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "open3d", None)
    with pytest.raises(ImportError, match=r'pip install "msdyn\[open3d\]"'):
        to_open3d(np.zeros((1, 3)), np.zeros((1, 3), np.uint8))


def test_cleaned_points_are_fewer_and_have_normals(exact, tmp_path):
    open3d = pytest.importorskip("open3d", exc_type=ImportError)
    from msdyn.export import export_as

    plain = export_as(exact, "points", tmp_path / "plain", time=0.0)
    clean = export_as(exact, "points", tmp_path / "clean", time=0.0, clean=True, voxel=0.05)
    before, after = (open3d.io.read_point_cloud(str(w.files[0])) for w in (plain, clean))
    assert 100 < len(after.points) < len(before.points) / 2
    assert not before.has_normals() and after.has_normals() and after.has_colors()
    points, normals = np.asarray(after.points), np.asarray(after.normals)
    centre = exact.cameras.centres[0]
    assert np.all(np.einsum("nd,nd->n", normals, centre - points) > 0)  # towards the camera
    # The table is horizontal: z is up in the synthetic world.
    table = (np.abs(points[:, 2]) < 0.01) & (np.abs(points[:, 0]) < 1)
    assert np.median(normals[table, 2]) > 0.99
    content = json.loads((tmp_path / "clean" / "manifest.json").read_text())
    assert content["points"] == [len(after.points)]
    # Without --voxel, the voxels are as large as pixels.
    pixels = export_as(exact, "points", tmp_path / "pixels", time=0.0, clean=True)
    middle = open3d.io.read_point_cloud(str(pixels.files[0]))
    assert 1.5 * len(after.points) < len(middle.points) < len(before.points)


def test_cleaning_needs_open3d(exact, tmp_path, monkeypatch):
    from msdyn.export import export_points

    monkeypatch.setitem(__import__("sys").modules, "open3d", None)
    with pytest.raises(ImportError, match=r'pip install "msdyn\[open3d\]"'):
        export_points(exact, tmp_path, np.array([0.0]), clean=True)
