"""Spring's layout, written from a scene of known truth."""

import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from dataset_scene import check_cameras, check_depth, check_images, make_disc
from dataset_writers import write_spring

from msdyn.errors import InputError, MissingExtraError
from msdyn.feedforward.data.convert import find_converter
from msdyn.geometry import invert_transforms

h5py = pytest.importorskip("h5py")
convert = find_converter("spring")


def test_cameras_and_depth_are_those_of_the_scene(tmp_path):
    scene = make_disc()
    write_spring(tmp_path, scene)
    (clip,) = convert(tmp_path)
    assert clip.name == "train_0004_left" and clip.motion == "unknown"
    assert clip.times.tolist() == [1, 2, 3]
    check_cameras(clip, scene)
    check_images(clip, scene)
    check_depth(clip, scene, rtol=6e-3)  # a quarter of a pixel
    assert clip.frame(0).depth[-1, -1] == 0  # NaN


def test_the_right_camera_is_beside_the_left_one(tmp_path):
    left = make_disc(2)
    moved = left.world_from_cam.copy()
    moved[:, :3, 3] += 0.065 * moved[:, :3, 0]
    right = replace(left, world_from_cam=moved)
    write_spring(tmp_path, left)
    folder = write_spring(tmp_path, right, camera="right", cameras_of=left)
    first, second = convert(tmp_path)
    assert second.name == "train_0004_right"
    check_cameras(second, right)
    check_images(second, right)
    check_depth(second, right, rtol=6e-3)
    between = invert_transforms(first.world_from_cam) @ second.world_from_cam
    np.testing.assert_allclose(between[:, :3, 3], [[0.065, 0, 0]] * 2, atol=1e-9)
    shutil.rmtree(folder / "disp1_left")
    assert [clip.name for clip in convert(tmp_path)] == ["train_0004_right"]


def test_depth_is_that_of_every_second_row_and_column(tmp_path):
    scene = make_disc(1)
    write_spring(tmp_path, scene)
    (clip,) = convert(tmp_path)
    expected = np.nan_to_num(scene.depth(0, finer=2)[::2, ::2])
    expected[-1, -1] = 0
    np.testing.assert_allclose(clip.frame(0).depth, expected, rtol=1e-6)


def test_frames_after_the_first_and_sequences_without_disparity(tmp_path):
    scene = make_disc(4)
    folder = write_spring(tmp_path, scene)
    for number in (1, 3):
        (folder / f"frame_left/frame_left_{number:04d}.png").unlink()
    (tmp_path / "test/0003/frame_left").mkdir(parents=True)
    (clip,) = convert(tmp_path)
    assert clip.times.tolist() == [2, 4]
    check_cameras(clip, scene, [1, 3])
    check_depth(clip, scene, [1, 3], rtol=6e-3)


WRONG = {
    "no cameras": (lambda f: (f / "cam_data/intrinsics.txt").unlink(), "intrinsics.txt: no such f"),
    "fewer": (
        lambda f: np.savetxt(f / "cam_data/extrinsics.txt", np.eye(4).reshape(1, 16)),
        "extrinsics.txt: expected 2 lines, one per frame, got 1",
    ),
    "columns": (
        lambda f: np.savetxt(f / "cam_data/intrinsics.txt", np.ones((2, 3))),
        "intrinsics.txt: line 1: expected 4 numbers, got 3",
    ),
    "no rotation": (
        lambda f: np.savetxt(f / "cam_data/extrinsics.txt", np.ones((2, 16))),
        "extrinsics.txt: cam_from_world: expected rotations",
    ),
    "no disparity": (lambda f: (f / "disp1_left/disp1_left_0002.dsp5").unlink(), "left: no file"),
    "numbers": (
        lambda f: (f / "frame_left/frame_left_0001.png").rename(f / "frame_left/frame_left_0.png"),
        "frame_left_0.png: expected frames numbered from 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_wrong_files_are_told_in_one_line(tmp_path, change, message):
    change(write_spring(tmp_path, make_disc(2)))
    with pytest.raises((InputError, FileNotFoundError), match=message) as raised:
        list(convert(tmp_path))
    assert "\n" not in str(raised.value)


def test_wrong_disparity_is_told_when_it_is_loaded(tmp_path):
    folder = write_spring(tmp_path, make_disc(1))
    (clip,) = convert(tmp_path)
    path = folder / "disp1_left/disp1_left_0001.dsp5"
    data = path.read_bytes()
    for content in (data[: len(data) // 2], b"text"):
        path.write_bytes(content)
        with pytest.raises(
            (InputError, FileNotFoundError), match="0001.dsp5: not a readable HDF5"
        ) as raised:
            clip.frame(0)
        assert "\n" not in str(raised.value)
    for values, message in (
        ({"flow": np.ones((48, 64))}, "disparity: expected an array in this file"),
        ({"disparity": np.ones((48, 63))}, "expected numbers of twice the image's size"),
        ({"disparity": np.ones((48, 64), int)}, "expected numbers of twice the image's size"),
        ({"disparity": np.ones((24, 32))}, "expected 32x24 px.*got 16x12"),
    ):
        with h5py.File(path, "w") as file:
            for key, value in values.items():
                file[key] = value
        with pytest.raises((InputError, FileNotFoundError), match=f"0001.dsp5: .*{message}"):
            clip.frame(0)


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    write_spring(tmp_path, make_disc(1))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        MissingExtraError, match=r'h5py is not installed: pip install "msdyn\[datasets\]"'
    ):
        list(convert(tmp_path))
