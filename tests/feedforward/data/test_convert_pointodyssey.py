"""PointOdyssey's layout, written from a scene of known truth."""

import numpy as np
import pytest
from dataset_scene import check_cameras, check_depth, check_images, check_tracks, make_disc
from dataset_writers import save_image, write_pointodyssey

from msdyn.errors import InputError
from msdyn.feedforward.data.convert import find_converter, pointodyssey

convert = find_converter("pointodyssey")
# 65535/1000 steps a metre: half a step at depth 3.
DEPTH_STEP = 0.5 * 1000 / 65535 / 3


@pytest.fixture
def scene():
    return make_disc()


def rewrite(folder, **changes):
    arrays = dict(np.load(folder / "anno.npz")) | changes
    np.savez(folder / "anno.npz", **{k: v for k, v in arrays.items() if v is not None})


def test_cameras_depth_and_tracks_are_those_of_the_scene(tmp_path, scene):
    a, b = np.flatnonzero(np.all([scene.inside(i) for i in range(3)], 0))[:2]
    write_pointodyssey(tmp_path, scene, hidden=[(1, a)], invalid=[(2, b)])
    (clip,) = convert(tmp_path)
    assert (clip.name, clip.dataset, clip.motion) == (
        "train_cab_e_ego2_000", "pointodyssey", "tracks"
    )  # fmt: skip
    check_cameras(clip, scene)
    check_depth(clip, scene, rtol=DEPTH_STEP)
    check_images(clip, scene, atol=6)
    chosen = np.flatnonzero(np.any([scene.inside(i) for i in range(3)], 0))
    check_tracks(clip, scene, chosen)
    of = {track: index for index, track in enumerate(chosen)}
    assert not clip.tracks.visible[1, of[a]] and clip.tracks.visible[2, of[a]]
    assert np.isfinite(clip.tracks.points[1, of[a]]).all()
    assert np.isnan(clip.tracks.points[2, of[b]]).all() and not clip.tracks.visible[2, of[b]]


def test_a_track_outside_the_image_is_not_visible_there(tmp_path, scene):
    folder = write_pointodyssey(tmp_path, scene)
    rewrite(folder, visibs=np.ones((3, 40), bool))
    (clip,) = convert(tmp_path)
    inside = np.array([scene.inside(i) for i in range(3)])
    assert not inside.all()
    np.testing.assert_array_equal(clip.tracks.visible, inside[:, inside.any(0)])


def test_long_sequences_are_split(tmp_path, scene, monkeypatch):
    monkeypatch.setattr(pointodyssey, "LONGEST_PART", 2)
    scene = make_disc(5)
    write_pointodyssey(tmp_path, scene)
    found = list(convert(tmp_path / "train"))
    assert [len(clip) for clip in found] == [2, 1, 2] and len({c.name for c in found}) == 3
    assert np.concatenate([clip.times for clip in found]).tolist() == [0, 1, 2, 3, 4]
    for clip, frames in zip(found, ([0, 1], [2], [3, 4]), strict=True):
        check_cameras(clip, scene, frames)
        check_depth(clip, scene, frames, rtol=DEPTH_STEP)
        check_images(clip, scene, frames, atol=6)
        seen = np.any([scene.inside(i) for i in frames], 0)
        assert clip.tracks.points.shape[1] == seen.sum()


def test_sequence_of_one_frame_and_without_tracks(tmp_path):
    scene = make_disc(1)
    folder = write_pointodyssey(tmp_path, scene)
    (clip,) = convert(folder)
    assert len(clip) == 1 and clip.motion == "tracks"
    for tracks in (np.zeros((0,)), np.zeros((1, 0, 3)), np.array(None), None):
        rewrite_objects(folder, tracks)
        (clip,) = convert(folder)
        assert clip.motion == "unknown" and clip.tracks is None
        check_depth(clip, scene, rtol=DEPTH_STEP)


def rewrite_objects(folder, tracks):
    arrays = dict(np.load(folder / "anno.npz", allow_pickle=True)) | {"trajs_3d": tracks}
    np.savez(folder / "anno.npz", **{k: v for k, v in arrays.items() if v is not None})


def blender_axes(folder):
    flip = np.diag([1, -1, -1, 1])
    rewrite(folder, extrinsics=flip @ np.load(folder / "anno.npz")["extrinsics"])


def inverted(folder):
    rewrite(folder, extrinsics=np.linalg.inv(np.load(folder / "anno.npz")["extrinsics"]))


def cut(folder):
    data = (folder / "anno.npz").read_bytes()
    (folder / "anno.npz").write_bytes(data[: len(data) // 2])


WRONG = {
    "no depth": (
        lambda f: (f / "depths/depth_00001.png").unlink(),
        "depths: no file of number 1",
    ),
    "no images": (lambda f: (f / "rgbs").rename(f / "other"), "rgbs: no such folder"),
    "cut off": (cut, "anno.npz: not a readable npz"),
    "no key": (lambda f: rewrite(f, intrinsics=None), "anno.npz: expected arrays.*intrinsics"),
    "fewer frames": (
        lambda f: rewrite(f, extrinsics=np.tile(np.eye(4), (2, 1, 1))),
        r"anno.npz: extrinsics: expected .*3 frames or more, 4 4\], got \[2 4 4\]",
    ),
    "truncated tracks": (
        lambda f: rewrite(f, visibs=np.ones((3, 7))),
        r"anno.npz: visibs: expected .*40\], got \[3 7\]",
    ),
    "not numbers": (
        lambda f: rewrite(f, extrinsics=np.full((3, 4, 4), "a")),
        "anno.npz: extrinsics: expected an array of numbers",
    ),
    "no rotation": (
        lambda f: rewrite(f, extrinsics=np.tile(2 * np.eye(4), (3, 1, 1))),
        "anno.npz: cam_from_world",
    ),
    "NaN": (
        lambda f: rewrite(f, intrinsics=np.full((3, 3, 3), np.nan)),
        "anno.npz: intrinsics: expected finite",
    ),
    "axes of Blender": (blender_axes, "anno.npz: expected 3D tracks that project"),
    "camera to world": (inverted, "anno.npz: expected 3D tracks that project"),
}  # fmt: skip


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_wrong_files_are_told_in_one_line(tmp_path, scene, change, message):
    folder = write_pointodyssey(tmp_path, scene)
    change(folder)
    with pytest.raises((InputError, FileNotFoundError), match=message) as raised:
        list(convert(tmp_path))
    assert "\n" not in str(raised.value)


def test_wrong_frames_are_told_when_they_are_loaded(tmp_path, scene):
    folder = write_pointodyssey(tmp_path, scene)
    (clip,) = convert(tmp_path)
    save_image(folder / "depths/depth_00000.png", np.zeros((24, 30), np.uint16))
    with pytest.raises(
        (InputError, FileNotFoundError), match="depth_00000.png: expected 32x24 px.*got 30x24"
    ):
        clip.frame(0)
    save_image(folder / "depths/depth_00001.png", np.zeros((24, 32), np.uint8))
    with pytest.raises(
        (InputError, FileNotFoundError), match="depth_00001.png: expected one 16-bit channel"
    ):
        clip.frame(1)
    (folder / "rgbs/rgb_00002.jpg").write_text("no image")
    with pytest.raises(
        (InputError, FileNotFoundError), match="rgb_00002.jpg: not a readable image"
    ):
        clip.frame(2)
