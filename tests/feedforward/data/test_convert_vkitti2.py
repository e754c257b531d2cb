"""Virtual KITTI 2's layout, written from a scene of known truth."""

from dataclasses import replace

import pytest
from dataset_scene import check_cameras, check_depth, check_images, make_disc
from dataset_writers import write_vkitti2

from msdyn.errors import InputError
from msdyn.feedforward.data.convert import find_converter

convert = find_converter("vkitti2")


@pytest.mark.parametrize("split", [False, True])
def test_cameras_and_depth_are_those_of_the_scene(tmp_path, split):
    scene = make_disc()
    write_vkitti2(tmp_path, scene, split=split)
    (clip,) = convert(tmp_path)
    assert clip.name == "Scene01_15-deg-left_0" and clip.motion == "unknown"
    check_cameras(clip, scene)
    check_depth(clip, scene, rtol=2e-3)  # half a centimetre at 3 m
    check_images(clip, scene, atol=6)


def test_cameras_variations_and_numbers(tmp_path):
    scene, right = make_disc(3), make_disc(4)
    right = replace(right, world_from_cam=right.world_from_cam[1:])
    write_vkitti2(tmp_path, scene, right, start=98)
    write_vkitti2(tmp_path, scene, sequence="Scene20/fog")
    first, second, third = convert(tmp_path)
    names = [clip.name for clip in (first, second, third)]
    assert names == ["Scene01_15-deg-left_0", "Scene01_15-deg-left_1", "Scene20_fog_0"]
    assert second.times.tolist() == [98, 99, 100]
    for clip, seen in ((first, scene), (second, right)):
        check_cameras(clip, seen)
        check_depth(clip, seen, rtol=2e-3)
        check_images(clip, seen, atol=6)


def test_a_sequence_of_one_frame(tmp_path):
    scene = make_disc(1)
    write_vkitti2(tmp_path, scene)
    (clip,) = convert(tmp_path)
    check_depth(clip, scene, rtol=2e-3)


def edited(name, edit):
    def change(folder):
        lines = (folder / name).read_text().splitlines()
        edit(lines)
        (folder / name).write_text("\n".join(lines) + "\n")

    return change


WRONG = {
    "no text": (lambda f: (f / "extrinsic.txt").unlink(), "extrinsic.txt: no such file"),
    "no line": (edited("intrinsic.txt", lambda s: s.pop(2)), "c.txt: no line of frame 1 of"),
    "short": (
        edited("extrinsic.txt", lambda s: s.__setitem__(1, s[1][:-20])),
        "extrinsic.txt: line 2: expected 18 numbers",
    ),
    "text": (
        edited("intrinsic.txt", lambda s: s.__setitem__(1, "0 0 a 1 1 1")),
        "intrinsic.txt: line 2: expected numbers",
    ),
    "focal length": (
        edited("intrinsic.txt", lambda s: s.__setitem__(1, "0 0 0 1 1 1")),
        "extrinsic.txt: focal length: expected positive",
    ),
    "no depth": (lambda f: (f / "frames/depth/Camera_0/depth_00002.png").unlink(), "no file of"),
}  # fmt: skip


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_wrong_files_are_told_in_one_line(tmp_path, change, message):
    change(write_vkitti2(tmp_path, make_disc()))
    with pytest.raises((InputError, FileNotFoundError), match=message) as raised:
        list(convert(tmp_path))
    assert "\n" not in str(raised.value)
