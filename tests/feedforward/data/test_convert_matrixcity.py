"""MatrixCity's layout, written from a scene of known truth."""

import json

import numpy as np
import pytest
from dataset_scene import check_cameras, check_depth, check_images, make_disc
from dataset_writers import write_matrixcity, write_matrixcity_json

from msdyn.errors import InputError
from msdyn.feedforward.data.convert import find_converter

pytest.importorskip("OpenEXR")
convert = find_converter("matrixcity")


def centred(frames):
    return make_disc(frames, intrinsics=(36.0, 36.0, 16.0, 12.0))


@pytest.mark.parametrize("rgb", [False, True])
def test_cameras_and_depth_are_those_of_the_scene(tmp_path, rgb):
    scene = centred(3)
    folder = write_matrixcity(tmp_path, scene, start=9, rgb=rgb)
    for source in (tmp_path, folder.parent, folder):
        (clip,) = convert(source)
        assert clip.name == "aerial_train_block_1" and clip.motion == "static"
        assert clip.times.tolist() == [9, 10, 11]
        check_cameras(clip, scene)
        check_depth(clip, scene)  # a float16 has 11 bits
        check_images(clip, scene)


def test_each_block_is_a_clip_and_images_of_no_camera_are_left_out(tmp_path):
    scene = centred(2)
    folder = write_matrixcity(tmp_path, scene)
    write_matrixcity(tmp_path, centred(1), "small_city/street/train/small_city_road_down")
    content = json.loads((folder / "transforms.json").read_text())
    content["frames"] = content["frames"][:1]  # the last in time
    write_matrixcity_json(folder, content)
    first, second = convert(tmp_path)
    assert second.name == "street_train_small_city_road_down"
    check_cameras(first, scene, [1])
    check_depth(first, scene, [1])


def edited(edit):
    def change(folder):
        content = json.loads((folder / "transforms.json").read_text())
        edit(content)
        write_matrixcity_json(folder, content)

    return change


def frame(**changes):
    return edited(lambda content: content["frames"][0].update(changes))


WRONG = {
    "no JSON": (lambda f: (f / "transforms.json").write_text("{"), "json: not valid JSON"),
    "no list": (lambda f: write_matrixcity_json(f, []), "json: frames: expected a list"),
    "no frame": (edited(lambda c: c.update(frames=[])), "json: frames: expected a list"),
    "angle": (edited(lambda c: c.update(camera_angle_x=4.0)), "json: camera_angle_x: expected"),
    "no angle": (edited(lambda c: c.pop("camera_angle_x")), "json: camera_angle_x: expected"),
    "index": (frame(frame_index=0), "json: frame_index: expected different numbers, got 0"),
    "matrix": (frame(rot_mat=[[1, 2]]), "json: rot_mat: expected a 4x4 matrix"),
    "text": (frame(rot_mat="x"), "json: rot_mat: expected a 4x4 matrix"),
    "other unit": (frame(rot_mat=np.eye(4).tolist()), "json: cam_from_world: expected rotations"),
    "no image": (lambda f: (f / "0001.png").unlink(), "block_1: no file of number 1"),
    "no depth": (lambda f: (f / "depth/0000.exr").unlink(), "depth: no file of number 0"),
}  # fmt: skip


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_wrong_files_are_told_in_one_line(tmp_path, change, message):
    change(write_matrixcity(tmp_path, centred(2)))
    with pytest.raises(InputError, match=message) as raised:
        list(convert(tmp_path))
    assert "\n" not in str(raised.value)


def test_wrong_depth_is_told_when_it_is_loaded(tmp_path):
    folder = write_matrixcity(tmp_path, centred(1))
    (clip,) = convert(tmp_path)
    path = folder / "depth/0000.exr"
    data = path.read_bytes()
    for content in (data[: len(data) // 2], b"text"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="0000.exr: not a readable EXR") as raised:
            clip.frame(0)
        assert "\n" not in str(raised.value)
