"""Layouts of calibrated recordings: cameras against the truth, damage against its message."""

import json
import re

import numpy as np
import pytest
from clips import two_boxes
from multi_camera_writers import (
    ball_at,
    cloud,
    draw_ball,
    shots_of,
    write_blender,
    write_camera_folder,
    write_panoptic,
)

from msdyn.errors import InputError
from msdyn.geometry import jumps
from msdyn.io import read_blender, read_camera_folder, read_nerfstudio, read_panoptic
from msdyn.reading import read_rgb

FRAMES = 6


@pytest.fixture(scope="module")
def truth():
    return two_boxes(FRAMES, 48, 36)


@pytest.fixture(scope="module")
def panoptic(truth, tmp_path_factory):
    return write_panoptic(tmp_path_factory.mktemp("panoptic") / "boxes", truth)


def test_panoptic(panoptic, truth):
    recording = read_panoptic(panoptic)
    assert recording.held_out == ("10", "20") and list(recording.cameras) == ["3", "10", "20"]
    for name, shot in shots_of(truth).items():
        camera = recording.cameras[name]
        camera.check_files()
        np.testing.assert_allclose(camera.cameras.intrinsics, shot.cameras.intrinsics, atol=1e-6)
        np.testing.assert_allclose(
            camera.cameras.cam_from_world, shot.cameras.cam_from_world, atol=1e-6
        )
        np.testing.assert_array_equal(
            np.stack([read_rgb(path) for path in camera.images]), shot.images
        )
        np.testing.assert_allclose(camera.seconds, np.arange(FRAMES) / 30)
    np.testing.assert_allclose(recording.points.xyz, cloud(truth)[:, :3])
    assert 0 < recording.points.moving.mean() < 1


def test_the_points_of_panoptic_lie_where_their_colours_are(panoptic):
    """The file's own convention: w2c, k, and colours of the image, in its first frame."""
    meta = json.loads((panoptic / "train_meta.json").read_text())
    data = np.load(panoptic / "init_pt_cld.npz")["data"]
    camera = read_panoptic(panoptic).cameras["3"]
    own = data[: len(data) // 3]  # sampled from this camera
    homogeneous = np.concatenate([own[:, :3], np.ones((len(own), 1))], 1)
    local = homogeneous @ np.array(meta["w2c"][0][0])[:3].T
    xy = (local @ np.array(meta["k"][0][0]).T)[:, :2] / local[:, 2:]
    column, row = np.floor(xy).astype(int).T
    image = read_rgb(camera.images[0]) / 255
    np.testing.assert_allclose(image[row, column], own[:, 3:6], atol=1e-9)


def test_the_input_camera_is_told(panoptic):
    recording = read_panoptic(panoptic)
    camera, held_out, line = recording.chosen(None, None)
    assert camera.name == "3" and [c.name for c in held_out] == ["10", "20"]
    assert line == "panoptic: input camera 3, chosen by msdyn, held out 10, 20"
    camera, held_out, line = recording.chosen("10", None)
    assert camera.name == "10" and [c.name for c in held_out] == ["20"] and "chosen" not in line
    assert [c.name for c in recording.chosen("10", ["3"])[1]] == ["3"]
    for arguments, message in (
        (("7", None), "--input-camera: expected one of 3, 10, 20, got '7'"),
        ((None, ["7"]), "--held-out: expected one of"),
        (("3", ["3"]), "3 is the input camera"),
        ((None, ["10", "10"]), "a camera is named twice"),
        ((None, ["3", "10", "20"]), "expected a camera that is not held out"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            recording.chosen(*arguments)


def set_at(key, index, value):
    def change(meta):
        array = np.array(meta[key], object)
        array[index] = value
        meta[key] = array.tolist()

    return change


DAMAGED = {
    "K of another shape": (lambda m: m.update(k=np.ones((6, 1, 2, 3)).tolist()), "k: expected"),
    "ragged K": (lambda m: m["k"][0].append([1]), "k: expected numbers of the shape"),
    "NaN": (set_at("w2c", (0, 0, 0, 0), float("nan")), "not valid JSON"),
    "not rigid": (set_at("w2c", (0, 0, 0), [2, 0, 0, 0]), "camera 3: cam_from_world"),
    "mirrored": (
        lambda m: m.update(w2c=np.tile(np.diag([-1.0, 1, 1, 1]), (6, 1, 1, 1)).tolist()),
        "negative determinant",
    ),
    "no key": (lambda m: m.pop("fn"), "fn is missing"),
    "size": (lambda m: m.update(w="x"), "w: expected an integer"),
    "names": (lambda m: m.update(fn=[["../../x.png"]] * 6), "expected a file in"),
    "other camera": (lambda m: m["cam_id"].__setitem__(2, [5]), "not so in frame 2"),
    "in both lists": (lambda m: m.update(cam_id=[[10]] * 6), "camera 10 is in train_meta.json too"),
    "focal": (set_at("k", (0, 0, 0, 0), 0), "focal length"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_panoptic(panoptic, tmp_path, damage):
    change, message = DAMAGED[damage]
    for name in ("train", "test"):
        meta = json.loads((panoptic / f"{name}_meta.json").read_text())
        if name == "train":
            change(meta)
        (tmp_path / f"{name}_meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match=re.escape(message)):
        read_panoptic(tmp_path)


def test_files_of_panoptic_that_are_missing_or_of_another_size(truth, tmp_path):
    folder = write_panoptic(tmp_path, truth, points=False)
    meta = json.loads((folder / "train_meta.json").read_text())
    (folder / "train_meta.json").write_text(json.dumps(meta | {"w": 50}))
    with pytest.raises(InputError, match="expected an image of 50x36 px"):
        read_panoptic(folder).cameras["3"].check_files()
    (folder / "ims/10/000002.png").unlink()
    with pytest.raises(FileNotFoundError, match="000002"):
        read_panoptic(folder).cameras["10"].check_files()
    np.savez(folder / "init_pt_cld.npz", data=np.ones((5, 6)))
    with pytest.raises(InputError, match=r"expected points \[N, 7\]"):
        read_panoptic(folder)


@pytest.mark.parametrize("suffix", [False, True])
def test_blender(tmp_path, suffix):
    poses, times = write_blender(tmp_path, 12, 5, (40, 30), suffix)["train"]
    recording = read_blender(tmp_path)
    camera = recording.cameras["train"]
    camera.check_files()
    assert recording.chosen(None, None)[2] == "blender: input camera train, held out test"
    np.testing.assert_allclose(camera.seconds, times * 11 / 30)
    np.testing.assert_allclose(recording.cameras["test"].seconds, np.linspace(0, 1, 5) * 11 / 30)
    assert camera.transparent and jumps(camera.cameras) and not jumps(camera.cameras[[0] * 5])
    # The ball's centre, by the camera's own projection, is the middle of what it draws.
    for number in (0, 5, 11):
        image, depth = draw_ball(poses[number], 0.69, times[number], 40, 30)
        row, column = np.nonzero(image[..., 3])
        centre = np.append(ball_at(times[number])[0], 1)
        local = camera.cameras.cam_from_world[number] @ centre
        xy = camera.cameras.intrinsics[number] @ local[:3] / local[2]
        np.testing.assert_allclose(xy[:2], [column.mean() + 0.5, row.mean() + 0.5], atol=0.5)
        assert abs(local[2] - 0.7 - depth[depth > 0].min()) < 0.05


def test_sizes_of_images_for_cameras_of_nerf(tmp_path):
    write_blender(tmp_path, 3, 2, (40, 30))
    posed = read_nerfstudio(tmp_path / "transforms_train.json")
    assert (posed.cameras.width, posed.cameras.height) == (40, 30)
    np.testing.assert_allclose(posed.cameras.intrinsics[0, 0, 0], 20 / np.tan(0.345))
    (tmp_path / "train/r_000.png").unlink()
    with pytest.raises(InputError, match="w is missing; expected w and h, or the images"):
        read_nerfstudio(tmp_path / "transforms_train.json")


def test_damaged_blender(tmp_path):
    write_blender(tmp_path, 3, 2, (16, 12))
    path = tmp_path / "transforms_train.json"
    whole = path.read_text()
    for change, message in (
        (lambda c: c["frames"][1].update(time=0), "expected increasing times"),
        (lambda c: c["frames"][1].pop("time"), "frame 1: time: expected a number"),
        (lambda c: c["frames"][1].update(time=float("nan")), "not valid JSON"),
        (lambda c: c["frames"][1].update(file_path="./train/r_000"), "is listed twice"),
        (lambda c: c.pop("camera_angle_x"), "fl_x is missing"),
        (lambda c: c.update(frames=[]), "expected a list of at least one"),
        (lambda c: c.update(frames=c["frames"][:1]), "expected at least 2, got 1"),
        (lambda c: c["frames"][0].update(transform_matrix=[[1]]), "expected a 4x4 matrix"),
    ):
        content = json.loads(whole)
        change(content)
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=re.escape(message)):
            read_blender(tmp_path)


@pytest.mark.parametrize("axes, key", [("opencv", "w2c"), ("opencv", "c2w"), ("opengl", "w2c"),
                                       ("opengl", "c2w")])  # fmt: skip
def test_camera_folder(truth, tmp_path, axes, key):
    recording = read_camera_folder(write_camera_folder(tmp_path, truth, axes=axes, key=key))
    assert recording.metric and recording.clip == "in" and recording.held_out == ("20",)
    for name, shot in shots_of(truth, "in").items():
        camera = recording.cameras[name]
        np.testing.assert_allclose(camera.cameras.intrinsics, shot.cameras.intrinsics, atol=1e-6)
        np.testing.assert_allclose(
            camera.cameras.cam_from_world, shot.cameras.cam_from_world, atol=1e-6
        )
        np.testing.assert_allclose(camera.seconds, np.arange(FRAMES) / 24)
        assert len(camera.masks) == FRAMES and camera.depths is None


def test_damaged_camera_folder(truth, tmp_path):
    folder = write_camera_folder(tmp_path, truth, depth=True)
    whole = (folder / "cameras.json").read_text()
    for change, message in (
        (lambda c: c["cameras"].append(c["cameras"][0]), "camera in is listed twice"),
        (lambda c: c["cameras"][0].update(name="../x"), "expected the name of a folder"),
        (lambda c: c["cameras"][0].update(c2w=1), "expected one of w2c and c2w, got w2c and c2w"),
        (
            lambda c: c["cameras"][0].update(w2c=c["cameras"][0]["w2c"][:3]),
            "w2c: expected the shape",
        ),
        (lambda c: c["cameras"][1].update(K=[[1, 0], [0, 1]]), "K: expected the shape (3, 3)"),
        (lambda c: c["cameras"][1].update(w2c=np.diag([1.0, 1, -1, 1]).tolist()), "determinant"),
        (lambda c: c["cameras"][1].update(times=[0, 1, 1, 2, 3, 4]), "expected increasing times"),
        (lambda c: c.update(times=[0, 1]), "expected 6, one per image"),
        (lambda c: c.update(axes="unity"), "expected one of opencv, opengl"),
        (lambda c: c.update(held_out=["x"]), "expected names of its cameras"),
        (lambda c: c.update(world_units="feet"), "world_units: expected one of"),
        (lambda c: c.update(fps=0), "fps: expected a number > 0"),
        (lambda c: c.update(depth_scale=-1), "depth_scale: expected a number > 0"),
        (lambda c: c.update(cameras=[]), "expected a list of at least one camera"),
    ):
        content = json.loads(whole)
        change(content)
        (folder / "cameras.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=re.escape(message)):
            read_camera_folder(folder)
    (folder / "cameras.json").write_text(whole)
    (folder / "depth/in/3.npy").unlink()
    with pytest.raises(InputError, match="expected 6 files, one per image, got 5"):
        read_camera_folder(folder)
