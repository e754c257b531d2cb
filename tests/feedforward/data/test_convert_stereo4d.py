"""Stereo4D's layout, written from a scene of known truth."""

import numpy as np
import pytest
from dataset_scene import check_cameras, check_images, check_tracks, make_disc
from dataset_writers import write_stereo4d

from msdyn.errors import InputError
from msdyn.feedforward.data.convert import find_converter
from msdyn.io import write_video

convert = find_converter("stereo4d")
FOCAL = 32 / np.tan(np.radians(30))


def square(frames=3):
    return make_disc(frames, 64, 64, (FOCAL, FOCAL, 32, 32))


def test_cameras_and_tracks_are_those_of_the_scene(tmp_path):
    scene = square()
    write_stereo4d(tmp_path, scene)
    (clip,) = convert(tmp_path)
    assert clip.name == "train_-a_b3_66957" and clip.dataset == "stereo4d"
    check_cameras(clip, scene)
    check_tracks(clip, scene, np.arange(40))
    np.testing.assert_array_equal(clip.tracks.visible, [scene.inside(i) for i in range(3)])
    np.testing.assert_array_equal(np.isfinite(clip.tracks.points).all(-1), clip.tracks.visible)


def test_frames_in_any_order(tmp_path):
    scene = square()
    write_stereo4d(tmp_path, scene)
    (clip,) = convert(tmp_path)
    check_images(clip, scene, atol=8)
    for index in (2, 0, 0, 1, 2):
        assert abs(clip.frame(index).image[..., 2].mean() - 20 - 40 * index) < 8


def test_depth_is_that_of_the_nearest_track_of_a_pixel(tmp_path):
    scene = square(2)
    pose = scene.world_from_cam[0, :3]
    scene.tracks[0, 0] = pose @ [0.01, 0.01, 1, 1]
    scene.tracks[0, 1] = pose @ [0.01, 0.01, 2, 1]  # behind the first
    write_stereo4d(tmp_path, scene)
    (clip,) = convert(tmp_path)
    for index in range(2):
        pixels, z = scene.pixels(index)
        inside = scene.inside(index)
        expected = {}
        for (x, y), depth in zip(pixels[inside], z[inside], strict=True):
            expected[int(y), int(x)] = min(depth, expected.get((int(y), int(x)), np.inf))
        depth = clip.frame(index).depth
        assert (depth > 0).sum() == len(expected)
        for (row, column), value in expected.items():
            np.testing.assert_allclose(depth[row, column], value, rtol=1e-5)
    assert clip.frame(0).depth[32, 32] == pytest.approx(1)


def test_clips_without_video_are_left_out(tmp_path):
    _, video = write_stereo4d(tmp_path, square(2))
    write_stereo4d(tmp_path, square(1), "other_7", "npz")
    assert sorted(len(clip) for clip in convert(tmp_path)) == [1, 2]
    video.unlink()
    assert [clip.name for clip in convert(tmp_path)] == ["npz_other_7"]


def rewrite(path, **changes):
    arrays = dict(np.load(path)) | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


WRONG = {
    "no key": ({"track_indices": None}, "expected arrays.*track_indices missing"),
    "poses": ({"camera2world": np.zeros((3, 4, 4))}, r"camera2world: expected .*\[3, 3, 4\], got"),
    "no rotation": ({"camera2world": np.ones((3, 3, 4))}, "cam_from_world: expected rotations"),
    "times": ({"timestamps": np.zeros(3)}, "timestamps: expected increasing"),
    "truncated": ({"track_coordinates": np.zeros((9, 3))}, r"track_coordinates \[\d+, 3\], as"),
    "indices": ({"track_indices": np.full(1, 3), "track_lengths": np.array([1])}
                | {"track_coordinates": np.zeros((1, 3))}, "expected frames 0 to 2, got 3 to 3"),
    "text": ({"track_lengths": np.array(["a"])}, "expected (whole|an array of) numbers"),
}  # fmt: skip


@pytest.mark.parametrize("changes, message", WRONG.values(), ids=WRONG)
def test_wrong_annotations_are_told_in_one_line(tmp_path, changes, message):
    path, _ = write_stereo4d(tmp_path, square())
    rewrite(path, **changes)
    with pytest.raises(InputError, match=f"66957.npz: {message}|66957.npz: .*{message}") as raised:
        list(convert(tmp_path))
    assert "\n" not in str(raised.value)


def test_another_video_is_told_in_one_line(tmp_path):
    _, video = write_stereo4d(tmp_path, square())
    write_video(video, np.zeros((2, 64, 64, 3), np.uint8), 30)
    with pytest.raises(InputError, match=r"left_rectified.mp4: expected 3 frames.*got 2"):
        list(convert(tmp_path))
    write_video(video, np.zeros((3, 64, 32, 3), np.uint8), 30)
    with pytest.raises(InputError, match=r"left_rectified.mp4: expected square frames, got 32x64"):
        list(convert(tmp_path))
    video.write_text("no video")
    with pytest.raises(InputError, match=r"left_rectified.mp4"):
        list(convert(tmp_path))
