"""RealEstate10K's layout, written from a scene of known truth."""

import numpy as np
import pytest
from dataset_scene import check_cameras, check_images, make_disc, unprojected
from dataset_writers import save_image, write_realestate10k

from msdyn.errors import InputError
from msdyn.feedforward.data.convert import find_converter

convert = find_converter("realestate10k")


def test_cameras_are_those_of_the_scene(tmp_path):
    scene = make_disc()
    write_realestate10k(tmp_path, scene, suffix=".png")
    (clip,) = convert(tmp_path)
    assert clip.name == "train_0000cc6d8b108390" and clip.motion == "static"
    assert clip.times.tolist() == [52553000, 52586367, 52619734]
    check_cameras(clip, scene)
    check_images(clip, scene)
    assert clip.frame(0).depth is None
    for index in range(3):  # the true depth is that of one plane
        points = unprojected(clip, index, scene.depth(index))
        true = scene.rays(index)[0] * scene.depth(index)[..., None] + scene.rays(index)[1]
        np.testing.assert_allclose(points, true, atol=1e-5)


def test_images_of_another_size_and_in_another_folder(tmp_path):
    scene = make_disc(2)
    path = write_realestate10k(tmp_path, scene)
    folder = path.with_suffix("")
    (folder / "images").mkdir()
    for image in sorted(folder.glob("*.jpg")):
        save_image(folder / "images" / image.name, np.zeros((12, 16, 3), np.uint8))
    (clip,) = convert(tmp_path / "train")
    np.testing.assert_allclose(clip.intrinsics[0], scene.intrinsics / [32, 24, 32, 24])
    assert clip.frame(1).image.shape == (12, 16, 3)


def test_a_clip_of_one_frame(tmp_path):
    scene = make_disc(1)
    write_realestate10k(tmp_path, scene)
    (clip,) = convert(tmp_path)
    check_cameras(clip, scene)
    check_images(clip, scene, atol=25)


def test_frames_and_clips_without_images_are_left_out(tmp_path):
    scene = make_disc()
    path = write_realestate10k(tmp_path, scene)
    write_realestate10k(tmp_path, make_disc(1), "gone", "test")
    for image in (tmp_path / "test" / "gone").iterdir():
        image.unlink()
    (tmp_path / "test" / "not_there.txt").write_text("https://www.youtube.com/watch?v=x\n")
    (path.with_suffix("") / "52586367.jpg").unlink()
    save_image(path.with_suffix("") / "7.jpg", scene.image(0))  # of no line
    (clip,) = convert(tmp_path)
    check_cameras(clip, scene, [0, 2])
    for image in path.with_suffix("").glob("5*"):
        image.unlink()
    with pytest.raises(InputError, match="90.txt: no line has the timestamp of one of the 1 im"):
        list(convert(tmp_path))
    (path.with_suffix("") / "7.jpg").unlink()
    with pytest.raises(InputError, match="found no sequence of realestate10k"):
        list(convert(tmp_path))


def lines(edit):
    def change(path):
        text = path.read_text().splitlines()
        edit(text)
        path.write_text("\n".join(text) + "\n")

    return change


WRONG = {
    "short": (lines(lambda s: s.__setitem__(2, s[2][:-12])), "line 3: expected 19 numbers, got 18"),
    "text": (lines(lambda s: s.__setitem__(1, "a" + s[1])), "line 2: expected numbers"),
    "twice": (lines(lambda s: s.append(s[1])), "expected one line per timestamp"),
    "lens": (
        lines(lambda s: s.__setitem__(1, s[1].replace(" 0.000000000 ", " 0.1 ", 1))),
        "expected zeros in columns 6 and 7",
    ),
    "mirrored": (
        lines(lambda s: s.__setitem__(slice(1, None), [mirrored(line) for line in s[1:]])),
        "cam_from_world: expected rotations",
    ),
}  # fmt: skip


def mirrored(line):
    words = line.split()
    return " ".join(words[:7] + [str(-float(word)) for word in words[7:]])


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_wrong_files_are_told_in_one_line(tmp_path, change, message):
    change(write_realestate10k(tmp_path, make_disc(2)))
    with pytest.raises(InputError, match=f"0000cc6d8b108390.txt: {message}") as raised:
        list(convert(tmp_path))
    assert "\n" not in str(raised.value)


def test_images_of_two_sizes_are_told_when_they_are_loaded(tmp_path):
    path = write_realestate10k(tmp_path, make_disc(2))
    save_image(path.with_suffix("") / "52586367.jpg", np.zeros((24, 20, 3), np.uint8))
    (clip,) = convert(tmp_path)
    with pytest.raises(InputError, match="52586367.jpg: expected 32x24 px.*got 20x24"):
        clip.frame(1)
