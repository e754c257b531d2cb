"""Captures in the layout of Nerfies and HyperNeRF, against the truth that they are written from."""

import json
import re

import numpy as np
import pytest
from clips import two_boxes
from multi_camera_writers import write_nerfies

from msdyn.cli.preprocess import main
from msdyn.errors import InputError
from msdyn.geometry import Lens, Undistortion, project, transform_points
from msdyn.io import read_nerfies
from msdyn.reading import read_rgb
from msdyn.scene import Scene

FRAMES = 8


@pytest.fixture(scope="module")
def truth():
    return two_boxes(FRAMES, 64, 48)


@pytest.fixture
def capture(truth, tmp_path):
    write_nerfies(tmp_path / "rig", truth)
    return tmp_path / "rig"


def test_cameras_of_a_rig(capture, truth):
    recording = read_nerfies(capture)
    camera, held_out, line = recording.chosen(None, None)
    assert line == "nerfies: input camera camera0, held out camera1"
    for read, shot in ((camera, truth.clip), (held_out[0], truth.views["right28"])):
        read.check_files()
        np.testing.assert_allclose(
            read.cameras.cam_from_world, shot.cameras.cam_from_world, atol=1e-14
        )
        np.testing.assert_allclose(read.cameras.intrinsics, shot.cameras.intrinsics, rtol=1e-15)
        np.testing.assert_array_equal(np.stack([*map(read_rgb, read.images)]), shot.images)
        np.testing.assert_allclose(np.diff(read.seconds), 1 / 15)
        assert read.lenses is None


def test_the_published_split(capture):
    camera, held_out, _ = read_nerfies(capture).chosen("train", ["val"])
    names = [path.stem for path in camera.images]
    assert names == [f"{'lr'[t % 2]}1_{t:06d}" for t in range(FRAMES)]
    assert [p.stem for p in held_out[0].images] == [
        f"{'rl'[t % 2]}1_{t:06d}" for t in range(FRAMES)
    ]


def test_the_size_is_the_smallest_that_is_enough(capture):
    for long_side, width in ((0, 64), (64, 64), (33, 64), (32, 32), (500, 64)):
        camera = read_nerfies(capture, long_side).cameras["camera0"]
        camera.check_files()
        assert (camera.cameras.width, camera.images[0].parent.name) == (width, f"{64 // width}x")


def edit(folder, name, change):
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def one_camera(folder):
    """Make a capture one of a single camera without held-out images, as HyperNeRF's interp."""
    only = [f"l1_{t:06d}" for t in range(FRAMES)]
    edit(folder, "dataset.json", lambda d: d.update(ids=only, train_ids=only, val_ids=[]))


def test_one_camera_without_a_split(capture):
    one_camera(capture)
    camera, held_out, line = read_nerfies(capture).chosen(None, None)
    assert line == "nerfies: input camera train, held out val"
    assert [path.stem[-1] for path in camera.images] == ["0", "4"]
    assert [path.stem[-1] for path in held_out[0].images] == ["2", "6"]
    np.testing.assert_allclose(held_out[0].seconds, [5 / 15, 9 / 15])


DAMAGED = {
    "no list": ("dataset.json", lambda d: d.pop("train_ids"), "train_ids is missing"),
    "no image": ("dataset.json", lambda d: d["ids"].append("x"), "metadata.json: x is missing"),
    "not listed": ("dataset.json", lambda d: d["ids"].pop(), "r1_000007' is not among ids"),
    "twice": ("dataset.json", lambda d: d["val_ids"].append(d["val_ids"][0]), "listed twice"),
    "a path": ("dataset.json", lambda d: d["ids"].append("../x"), "expected names of images"),
    "no time": ("metadata.json", lambda d: d["l1_000002"].pop("warp_id"), "warp_id is missing"),
    "a time": ("metadata.json", lambda d: d["l1_000002"].update(time_id="2"), "time_id: expected"),
    "one time": (
        "metadata.json",
        lambda d: d["l1_000002"].update(warp_id=4),
        "camera0: expected increasing times",
    ),
    "a size": (
        "camera/l1_000002.json",
        lambda d: d.update(image_size=[80, 48]),
        "camera0: expected images of one size",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_captures(capture, damage):
    name, change, message = DAMAGED[damage]
    edit(capture, name, change)
    with pytest.raises(InputError, match=re.escape(message)):
        read_nerfies(capture)


def test_files_that_are_missing(capture):
    (capture / "rgb/1x/l1_000003.png").unlink()
    with pytest.raises(FileNotFoundError, match="l1_000003"):
        read_nerfies(capture).cameras["camera0"].check_files()
    for path in (capture / "rgb").glob("*/l1_000000.png"):
        path.unlink()
    with pytest.raises(InputError, match="expected the image l1_000000.png in a folder 1x"):
        read_nerfies(capture)


def test_the_distortion_ends_in_the_frames_and_views(truth, tmp_path):
    """Undistorted images of both cameras, whose cameras project points to where the lens does."""
    ids = write_nerfies(tmp_path / "rig", truth, radial=(0.1, -0.02, 0.0))
    out = tmp_path / "scene"
    command = ["--from", "auto", str(tmp_path / "rig"), "--out", str(out), "--only", "frames"]
    assert main(command) == 0
    scene = Scene(out)
    k = truth.clip.cameras.intrinsics[0]
    lens = Lens("FULL_OPENCV", (*k[[0, 1, 0, 1], [0, 1, 2, 2]], 0.1, -0.02, *[0.0] * 6), 64, 48)
    undistortion = Undistortion.of(lens)
    view = scene.views["camera1"]
    for frame in (0, 5):
        for image, name in ((scene.image(frame), ids[0]), (view.image(frame), ids[1])):
            stored = read_rgb(tmp_path / "rig/rgb/1x" / f"{name[frame]}.png")
            assert np.abs(image.astype(int) - undistortion.image(stored)).max() <= 1
    point = np.array([[[0.3, -0.2, 2.0]]])
    world = transform_points(np.linalg.inv(view.cameras.cam_from_world[:1]), point)
    local = transform_points(view.cameras.cam_from_world[:1], world)
    straight = project(view.cameras.intrinsics[:1], local)[0, 0]
    x, y = point[0, 0, :2] / 2
    bent = 1 + 0.1 * (x * x + y * y) - 0.02 * (x * x + y * y) ** 2
    seen = k[:2, :2] @ [bent * x, bent * y] + k[:2, 2]
    np.testing.assert_allclose(undistortion.straight(seen[None])[0][0], straight, atol=1e-3)
