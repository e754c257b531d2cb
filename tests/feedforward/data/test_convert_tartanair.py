"""TartanAir's layout, written from a scene of known truth."""

import numpy as np
import pytest
from dataset_scene import check_cameras, check_depth, check_images, make_disc
from dataset_writers import save_image, write_tartanair

from msdyn.errors import InputError
from msdyn.feedforward.data.convert import find_converter

convert = find_converter("tartanair")


def scene_of(frames, seed=0):
    return make_disc(frames, 640, 480, (320, 320, 320, 240), seed)


@pytest.mark.parametrize("sky", [10000.0, np.inf])
def test_cameras_and_depth_are_those_of_the_scene(tmp_path, sky):
    scene = scene_of(2)
    write_tartanair(tmp_path, scene, sky=sky)
    (clip,) = convert(tmp_path)
    assert clip.name == "office_Easy_P001_left" and clip.motion == "static"
    check_cameras(clip, scene)
    check_depth(clip, scene, rtol=1e-5)
    check_images(clip, scene)


def test_both_cameras_from_any_level_of_the_folders(tmp_path):
    folder = write_tartanair(tmp_path, scene_of(1), ("left", "right"))
    for source in (folder, *folder.parents[:3]):
        assert [clip.name[-5:] for clip in convert(source)] == ["_left", "right"]
    for path in (folder / "image_right").iterdir():
        path.unlink()
    (folder / "image_right").rmdir()
    assert [clip.name for clip in convert(tmp_path)] == ["office_Easy_P001_left"]


def test_frames_without_the_first(tmp_path):
    scene = scene_of(3)
    folder = write_tartanair(tmp_path, scene)
    (folder / "image_left/000000_left.png").unlink()
    (clip,) = convert(tmp_path)
    assert clip.times.tolist() == [1, 2]
    check_cameras(clip, scene, [1, 2])
    check_depth(clip, scene, [1, 2], rtol=1e-5)


def poses(text):
    return lambda f: (f / "pose_left.txt").write_text(text)


WRONG = {
    "no poses": (lambda f: (f / "pose_left.txt").rename(f / "pose_right.txt"), "left.txt: no such"),
    "too few": (poses("0 0 0 0 0 0 1\n"), "pose_left.txt: expected 2 lines, one per frame, got 1"),
    "short": (poses("0 0 0 0 0 0 1\n0 0 0\n"), "left.txt: line 2: expected 7 numbers, got 3"),
    "text": (poses("a 0 0 0 0 0 1\n"), "pose_left.txt: line 1: expected numbers"),
    "zero": (poses(2 * "0 0 0 0 0 0 0\n"), "pose_left.txt: expected unit quaternions"),
    "no depth": (lambda f: (f / "depth_left/000001_left_depth.npy").unlink(), "left: no file"),
    "size": (
        lambda f: save_image(f / "image_left/000000_left.png", np.zeros((48, 64, 3), np.uint8)),
        "000000_left.png: expected 640x480 px, got 64x48",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_wrong_files_are_told_in_one_line(tmp_path, change, message):
    change(write_tartanair(tmp_path, scene_of(2)))
    with pytest.raises((InputError, FileNotFoundError), match=message) as raised:
        list(convert(tmp_path))
    assert "\n" not in str(raised.value)


def test_wrong_depth_is_told_when_it_is_loaded(tmp_path):
    folder = write_tartanair(tmp_path, scene_of(2))
    (clip,) = convert(tmp_path)
    path = folder / "depth_left/000000_left_depth.npy"
    data = path.read_bytes()
    for content, message in (
        (data[: len(data) // 2], "expected 1228800 bytes"),
        (b"text", "not a readable npy"),
        (data.replace(b"640)", b"640c"), "not a readable npy"),
        (data[:8] + b"\xff\xff" + bytes(70000), "not a readable npy"),  # a header of 65535 bytes
    ):
        path.write_bytes(content)
        with pytest.raises(
            (InputError, FileNotFoundError), match=f"000000_left_depth.npy: {message}"
        ) as raised:
            clip.frame(0)
        assert "\n" not in str(raised.value)
    for values, message in (
        (np.zeros(3), "expected a map"),
        (np.array(["a"], object), "expected an array of numbers"),
        (np.zeros((480, 639)), "expected 640x480 px.*got 639x480"),
    ):
        np.save(path, values, allow_pickle=True)
        with pytest.raises(
            (InputError, FileNotFoundError), match=f"000000_left_depth.npy: {message}"
        ):
            clip.frame(0)
