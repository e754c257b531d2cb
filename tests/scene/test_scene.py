"""The scene directory: round trips, and one clear error for each kind of invalid content."""

import json

import imageio.v3 as iio
import numpy as np
import pytest

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.reading import read_json
from msdyn.scene import (
    Scene,
    Timeline,
    Tracks,
    Tracks3D,
    check_scene,
    create_scene,
    read_cameras,
    read_tracks,
    stamp_stage,
    unstamp_stage,
    write_cameras,
    write_depth,
    write_posed_clip,
    write_tracks,
    write_view,
)
from msdyn.writing import atomic_path, write_json


def test_round_trip(plane_scene):
    scene = plane_scene
    assert (len(scene), scene.size) == (6, (24, 32))
    assert scene.images().shape == (6, 24, 32, 3)
    assert scene.depths().dtype == np.float32 and scene.masks().max() == 1
    assert scene.cameras.centres[3] == pytest.approx([0.06, 0, 0])
    report = check_scene(scene)
    assert not report.warnings
    assert report.facts["masks"] == "1 moving object(s)"


def test_cameras_round_trip_exactly(tmp_path):
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, :3, 3] = rng.normal(size=(3, 3))
    cameras = Cameras.pinhole(rng.uniform(50, 60, 3), 64, 48, poses, centre=(30.1, 23.7))
    write_cameras(tmp_path / "c.json", cameras)
    again = read_cameras(tmp_path / "c.json")
    np.testing.assert_array_equal(again.intrinsics, cameras.intrinsics)
    np.testing.assert_array_equal(again.cam_from_world, cameras.cam_from_world)


def test_a_single_camera_may_be_at_the_top_level(tmp_path):
    camera = {"fx": 50, "fy": 50, "cx": 32, "cy": 24, "cam_from_world": np.eye(4).tolist()}
    write_json(tmp_path / "novel.json", {**camera, "width": 64, "height": 48})
    assert len(read_cameras(tmp_path / "novel.json")) == 1


@pytest.mark.parametrize(
    "content, message",
    [
        ([1, 2], "expected a JSON object"),
        ({"frames": []}, "at least one camera"),
        ({"camera_angle_x": 0.7, "frames": [{"transform_matrix": []}]}, "width"),
        ({"width": 4, "height": 4, "frames": [{"fx": 1}]}, "frame 0: fy is missing"),
        (
            {"width": 4, "height": 4, "fx": 1, "fy": 1, "cx": 1, "cy": 1, "cam_from_world": [1]},
            r"expected shape \(4, 4\)",
        ),
        (
            {"width": 4, "height": 4, "fx": "a", "fy": 1, "cx": 1, "cy": 1, "cam_from_world": [1]},
            "expected numbers",
        ),
    ],
)
def test_errors_in_camera_files_name_the_key(tmp_path, content, message):
    write_json(tmp_path / "c.json", content)
    with pytest.raises(InputError, match=message) as error:
        read_cameras(tmp_path / "c.json")
    assert "c.json" in str(error.value) and "\n" not in str(error.value)


def edit_info(scene, **changes):
    path = scene.directory / "scene.json"
    write_json(path, {**read_json(path), **changes})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"format": "other"}, "format"),
        ({"version": 9}, "version: expected 1, got 9"),
        ({"timestamps": [0, 1]}, "timestamps: expected 6, got 2"),
        ({"timestamps": [0, 1, 1, 2, 3, 4]}, "increasing"),
        ({"world_units": "feet"}, "world_units"),
        ({"frame_count": None}, "frame_count"),
    ],
)
def test_an_invalid_scene_json_is_refused(plane_scene, changes, message):
    edit_info(plane_scene, **changes)
    with pytest.raises(InputError, match=message):
        Scene(plane_scene.directory)


def test_a_folder_without_scene_json_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a scene directory"):
        Scene(tmp_path)


def damage_depth(scene, value):
    depth = scene.depth(2).copy()
    depth[3, 4] = value
    with (scene.directory / "depth/00002.npy").open("wb") as file:
        np.save(file, depth)


@pytest.mark.parametrize("value, message", [(np.nan, "1 NaN"), (-1.0, "depth >= 0")])
def test_errors_in_depth_maps_name_the_file(plane_scene, value, message):
    damage_depth(plane_scene, value)
    with pytest.raises(InputError, match=message) as error:
        check_scene(plane_scene)
    assert "00002.npy" in str(error.value)


def test_invalid_depth_is_not_written(tmp_path):
    with pytest.raises(InputError, match="finite"):
        write_depth(tmp_path, 0, np.full((2, 2), np.nan))


def test_errors_in_images_name_the_file(plane_scene):
    iio.imwrite(plane_scene.directory / "masks/00001.png", np.zeros((5, 5), np.uint8))
    with pytest.raises(InputError, match=r"00001.png: expected 32x24 px, got 5x5"):
        check_scene(plane_scene)
    (plane_scene.directory / "images/00000.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match="not a readable image"):
        plane_scene.image(0)
    (plane_scene.directory / "depth/00000.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match="not a readable npy"):
        plane_scene.depth(0)
    (plane_scene.directory / "depth/00005.npy").unlink()
    with pytest.raises(FileNotFoundError, match="00005.npy"):
        plane_scene.depth(5)


def test_a_mask_object_without_tracks_is_refused(plane_scene):
    mask = plane_scene.mask(0).copy()
    mask[0, 0] = 7
    iio.imwrite(plane_scene.directory / "masks/00000.png", mask)
    with pytest.raises(InputError, match=r"object\(s\) \[7\] have no track"):
        check_scene(plane_scene)


def test_tracks_of_an_object_without_mask_are_refused(plane_scene):
    tracks = plane_scene.tracks
    label = tracks.object.copy()
    label[0] = 3
    changed = Tracks.from_dense(
        tracks.xy, tracks.visible, tracks.confidence, label, tracks.query_frame
    )
    write_tracks(plane_scene.directory / "tracks.npz", changed)
    with pytest.raises(InputError, match=r"object\(s\) \[3\]"):
        check_scene(Scene(plane_scene.directory))


def test_invalid_track_files_are_refused(tmp_path):
    path = tmp_path / "tracks.npz"
    with pytest.raises(FileNotFoundError):
        read_tracks(path)
    path.write_bytes(b"PK junk")
    with pytest.raises(InputError, match="not a readable npz"):
        read_tracks(path)
    np.savez(path, xy=np.zeros((1, 2, 2)))
    with pytest.raises(InputError, match="visible, confidence, object, query_frame missing"):
        read_tracks(path)
    good = {
        "xy": np.zeros((1, 2, 2)),
        "visible": np.ones((1, 2), bool),
        "confidence": np.ones((1, 2)),
        "object": [0],
        "query_frame": [0],
    }
    for key, value, message in [
        ("xy", np.zeros((1, 2)), r"xy: expected \[tracks, frames, 2\]"),
        ("xy", np.full((1, 2, 2), np.nan), "xy: expected finite"),
        ("visible", np.ones((2, 2), bool), "visible: expected"),
        ("confidence", np.full((1, 2), 2.0), "confidence: expected"),
        ("query_frame", [5], "query_frame: expected"),
        ("object", [0, 1], "object: expected"),
    ]:
        np.savez(path, **{**good, key: value})
        with pytest.raises(InputError, match=message):
            read_tracks(path)
    np.savez(path, **{**good, "xy": np.array([[{"a": 1}]], dtype=object)})  # a pickle inside
    with pytest.raises(InputError):
        read_tracks(path)


def test_stages_are_stamped_and_unstamped(plane_scene):
    stamp_stage(
        plane_scene.directory,
        "cameras",
        backend="files",
        options={"path": "x"},
        input_hash="abc",
        seconds=1.23456,
        world_units="metric",
    )
    info = Scene(plane_scene.directory).info
    assert info.stages["cameras"]["seconds"] == 1.235 and info.world_units == "metric"
    unstamp_stage(plane_scene.directory, "cameras")
    assert not Scene(plane_scene.directory).info.stages


def test_views(plane_scene):
    directory, cameras = plane_scene.directory, plane_scene.cameras
    tracks = Tracks3D(
        np.zeros((4, 6, 3)), np.ones((4, 6), bool), np.zeros(4, int), np.zeros((4, 2)), np.ones(4)
    )
    image = plane_scene.image(0)
    half = np.arange(32) < 16
    write_view(
        directory,
        "left",
        cameras=cameras,
        images={0: image, 3: image},
        covisible={0: np.broadcast_to(half, (24, 32))},
        tracks3d=tracks,
    )
    view = Scene(directory).views["left"]
    assert view.frames == [0, 3]
    assert view.covisible(0).mean() == 0.5 and view.covisible(3).all()
    assert view.tracks3d is not None and view.tracks3d.xyz.shape == (4, 6, 3)
    write_cameras(directory / "views/left/cameras.json", cameras[:2])
    with pytest.raises(InputError, match="expected 6 frames, got 2"):
        _ = Scene(directory).views


def test_a_clip_of_frames_and_cameras(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3)).astype(np.uint8)
    cameras = Cameras.pinhole(9.0, 8, 6, np.tile(np.eye(4), (3, 1, 1)))
    timeline = Timeline(np.array([0.0, 0.1, 0.5]))
    scene = Scene(write_posed_clip(tmp_path / "clip", iter(images), cameras, timeline))
    np.testing.assert_array_equal(scene.images(), images)
    np.testing.assert_allclose(scene.info.timeline.times, [0, 0.2, 1])
    assert scene.cameras.width == 8 and scene.info.world_units == "arbitrary"
    assert not scene.views and not (scene.directory / "masks").exists()
    with pytest.raises(InputError, match="expected 3 images, got 2"):
        write_posed_clip(tmp_path / "less", images[:2], cameras, timeline)
    with pytest.raises(InputError, match="expected 2 timestamps, got 3"):
        write_posed_clip(tmp_path / "more", images[:2], cameras[:2], timeline)


def test_timeline():
    timeline = Timeline(np.array([1.0, 1.5, 3.0]))
    np.testing.assert_allclose(timeline.times, [0, 0.25, 1])
    assert timeline.frame_position(0.25) == pytest.approx(1)
    assert timeline.frame_position(0.625) == pytest.approx(1.5)
    assert timeline.time_of_seconds(1.0) == pytest.approx(0.5)
    assert timeline.time_of_frame(2) == 1
    for bad in (
        lambda: timeline.frame_position(1.5),
        lambda: timeline.frame_position(float("nan")),
        lambda: timeline.time_of_frame(3),
        lambda: timeline.time_of_seconds(9.0),
        lambda: Timeline(np.array([0.0])),
    ):
        with pytest.raises(InputError):
            bad()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"kept": True})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"kept": True}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(ValueError):
        write_json(path, {"bad": float("nan")})
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_json(tmp_path / "b.json")


def test_scene_json_is_plain(tmp_path):
    create_scene(tmp_path, width=4, height=2, fps=24, timeline=Timeline.uniform(3, 24))
    content = json.loads((tmp_path / "scene.json").read_text())
    assert content["frame_count"] == 3 and content["world_units"] == "arbitrary"
