"""Cameras, depth, masks and tracks from files: matched to the frames, or refused in one line."""

import dataclasses

import numpy as np
import pytest
from moving import write_scene
from PIL import Image
from scipy.spatial.transform import Rotation

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.preprocess.cameras.from_files import FileCameras
from msdyn.preprocess.depth.from_files import FileDepth
from msdyn.preprocess.masks.from_files import FileMasks
from msdyn.preprocess.multiview.track_labels import assign_objects, number_objects
from msdyn.preprocess.report.quality import judge_stages
from msdyn.preprocess.tracks.from_files import FileTracks
from msdyn.scene import Scene, Tracks, stamp_stage, write_cameras, write_tracks

HEIGHT, WIDTH = 48, 64


@pytest.fixture
def scene(tmp_path):
    """Frames 0, 3, 6 and 9 of a clip of 12 frames of 128x96, at half size."""
    directory = tmp_path / "scene"
    write_scene(directory, np.zeros((4, HEIGHT, WIDTH, 3), np.uint8))
    options = {
        "source": "clip.mp4",
        "source_frames": [0, 3, 6, 9],
        "source_frame_count": 12,
        "source_width": 2 * WIDTH,
        "source_height": 2 * HEIGHT,
    }
    stamp_stage(directory, "frames", backend="video", options=options, input_hash="f", seconds=0.0)
    return Scene(directory)


def depth_folder(folder, count, size=(HEIGHT, WIDTH), suffix=".npy"):
    """Write `count` depth maps; map i is 1 + i everywhere (1000 + 1000 i in a PNG)."""
    folder.mkdir()
    for i in range(count):
        if suffix == ".npy":
            np.save(folder / f"d{i}.npy", np.full(size, 1.0 + i, np.float32))
        else:
            image = np.full(size, 1000 * (1 + i), np.uint16)
            Image.fromarray(image).save(folder / f"d{i}.png")
    return folder


def depths(backend, scene):
    maps = backend.estimate(scene, None, None, None).maps
    return [float(np.median(item.depth)) for item in maps], maps.figures


@pytest.mark.parametrize("suffix, scale", [(".npy", None), (".npy", 0.5), (".png", 0.001)])
def test_depth_of_every_source_frame_is_selected(tmp_path, scene, suffix, scale):
    folder = depth_folder(tmp_path / "d", 12, suffix=suffix)
    values, quality = depths(FileDepth(folder, scale), scene)
    factor = 0.5 if scale == 0.5 else 1.0
    np.testing.assert_allclose(values, factor * np.array([1, 4, 7, 10]), rtol=1e-6)
    assert quality == {"resampled": 1.0, "known": 1.0}


def test_depth_of_the_kept_frames_only(tmp_path, scene):
    values, _ = depths(FileDepth(depth_folder(tmp_path / "d", 4)), scene)
    assert values == [1, 2, 3, 4]


def test_depth_of_another_size_is_resampled_to_the_nearest(tmp_path, scene):
    folder = tmp_path / "d"
    folder.mkdir()
    small = np.arange(12 * 16, dtype=np.float32).reshape(12, 16)
    for i in range(4):
        np.save(folder / f"{i}.npy", small[..., None])  # [H, W, 1] is taken too
    maps = FileDepth(folder).estimate(scene, None, None, None).maps
    found = [item.depth for item in maps]
    np.testing.assert_array_equal(found[0], np.kron(small, np.ones((4, 4))))
    assert maps.figures["resampled"] == 4.0 and maps.figures["known"] < 1


def refused(backend, scene, match):
    with pytest.raises(InputError, match=match) as error:
        depths(backend, scene)
    assert "\n" not in str(error.value)


def test_depth_that_is_wrong_is_refused(tmp_path, scene):
    folder = depth_folder(tmp_path / "d", 4)
    bad = np.ones((HEIGHT, WIDTH), np.float32)
    for value, word in ((np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (-1, "negative")):
        bad[:2, :3] = value
        np.save(folder / "d2.npy", bad)
        refused(FileDepth(folder), scene, rf"d2\.npy: 6 of 3072 values are {word}")
    np.save(folder / "d2.npy", np.ones((HEIGHT, WIDTH, 3)))
    refused(FileDepth(folder), scene, r"d2\.npy: expected depth \[H, W\]")
    np.save(folder / "d2.npy", np.ones((HEIGHT, HEIGHT)))
    refused(FileDepth(folder), scene, r"d2\.npy: expected 64x48 or a size of that shape")
    (folder / "d2.npy").write_bytes(b"nothing")
    refused(FileDepth(folder), scene, r"d2\.npy: not a readable npy file")
    np.save(folder / "d2.npy", np.array([{"a": 1}]), allow_pickle=True)
    refused(FileDepth(folder), scene, r"d2\.npy: expected an array of numbers, got object")


def test_depth_folders_that_do_not_fit_are_refused(tmp_path, scene):
    refused(
        FileDepth(depth_folder(tmp_path / "a", 5)),
        scene,
        "expected 12, one for every frame of the video, or 4, one for every frame kept; got 5",
    )
    png = depth_folder(tmp_path / "b", 4, suffix=".png")
    refused(FileDepth(png), scene, "a .png of depth needs --depth-scale")
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(png / "d0.png")
    refused(FileDepth(png, 0.001), scene, "expected one 16-bit channel, got uint8")
    (tmp_path / "empty").mkdir()
    refused(FileDepth(tmp_path / "empty"), scene, "no .npy or .png or .exr files in it")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        depths(FileDepth(tmp_path / "gone"), scene)


def masks(backend, scene):
    result = backend.segment(scene, source_tracks(), None)
    assert not result.needs_cameras and not result.better_with_cameras
    return np.stack(list(result.masks)), result.masks.figures


def write_masks(folder, arrays, palette=False):
    folder.mkdir()
    for i, array in enumerate(arrays):
        image = Image.fromarray(array)
        if palette:
            image = image.convert("P")
            image.putpalette([0, 0, 0, 200, 30, 30, 30, 200, 30])
            image.putdata(array.ravel().tolist())
        image.save(folder / f"{i:05d}.png")
    return folder


@pytest.mark.parametrize("palette", [False, True])
def test_index_masks(tmp_path, scene, palette):
    arrays = [np.zeros((2 * HEIGHT, 2 * WIDTH), np.uint8) for _ in range(12)]
    for i, array in enumerate(arrays):
        array[10:30, 2 * i : 2 * i + 20] = 1
        array[60:80, 40:60] = 2
    found, quality = masks(FileMasks(write_masks(tmp_path / "m", arrays, palette)), scene)
    np.testing.assert_array_equal(found, np.stack(arrays)[[0, 3, 6, 9], 1::2, 1::2])
    assert quality == {"resampled": 0.5, "binary": False}


def test_black_and_white_masks_are_of_one_object(tmp_path, scene):
    array = np.zeros((HEIGHT, WIDTH), np.uint8)
    array[5:20, 5:20] = 255
    found, quality = masks(FileMasks(write_masks(tmp_path / "m", [array] * 4)), scene)
    assert quality["binary"] and set(np.unique(found)) == {0, 1}
    array[30:40, 30:40] = 1  # where there is an object, 255 is "ignore"
    found, quality = masks(FileMasks(write_masks(tmp_path / "n", [array] * 4)), scene)
    assert not quality["binary"] and set(np.unique(found)) == {0, 1, 255}


def test_masks_that_do_not_fit_are_refused(tmp_path, scene):
    numbers = np.full((HEIGHT, WIDTH), 500, np.uint16)
    folder = write_masks(tmp_path / "m", [numbers] * 4)
    with pytest.raises(InputError, match="expected object numbers up to 254, got 500"):
        masks(FileMasks(folder), scene)
    (tmp_path / "m" / "00001.png").unlink()
    with pytest.raises(InputError, match="got 3"):
        masks(FileMasks(folder), scene)


def source_tracks(frames=12):
    """Two tracks in px of the full-size video: one from frame 0, one from frame 5 to 8."""
    xy = np.zeros((3, frames, 2), np.float32)
    xy[0] = np.stack([10 + 2 * np.arange(frames), np.full(frames, 20)], 1)
    xy[1] = (100, 80)
    visible = np.zeros((3, frames), bool)
    visible[0] = True
    visible[1, 5:9] = True
    visible[2, 4:6] = True  # in no kept frame
    confidence = np.where(visible, 0.5, 0)
    return Tracks.from_dense(xy, visible, confidence, np.array([1, 0, 2]), np.array([0, 5, 4]))


def test_tracks_are_selected_and_scaled(tmp_path, scene):
    write_tracks(tmp_path / "t.npz", source_tracks())
    result = FileTracks(tmp_path / "t.npz").track(scene)
    tracks = result.tracks
    assert len(tracks) == result.figures["tracks"] == 2
    np.testing.assert_allclose(tracks.xy[0], [[5, 10], [8, 10], [11, 10], [14, 10]])
    assert tracks.visible.tolist() == [[True] * 4, [False, False, True, False]]
    assert tracks.query_frame.tolist() == [0, 2]
    assert tracks.object.tolist() == [-1, -1]  # set by the masks stage
    with pytest.raises(InputError, match="frames: expected 12"):
        short = source_tracks(10)
        write_tracks(tmp_path / "t.npz", short)
        FileTracks(tmp_path / "t.npz").track(scene)


def test_cameras_are_selected_and_scaled(tmp_path, scene):
    poses = np.tile(np.eye(4), (12, 1, 1))
    poses[:, 0, 3] = np.arange(12)
    write_cameras(tmp_path / "c.json", Cameras.pinhole(100.0, 2 * WIDTH, 2 * HEIGHT, poses))
    solution = FileCameras(tmp_path / "c.json", "metric").solve(scene, None, None)
    assert solution.cameras.cam_from_world[:, 0, 3].tolist() == [0, 3, 6, 9]
    assert solution.cameras.intrinsics[0, 0, 0] == 50 and solution.cameras.width == WIDTH
    assert solution.world_units == "metric" and solution.verdict.grade == "good"
    write_cameras(tmp_path / "c.json", Cameras.pinhole(100.0, WIDTH, WIDTH, poses))
    with pytest.raises(InputError, match="expected 64x48 or a size of that shape, got 64x64"):
        FileCameras(tmp_path / "c.json").solve(scene, None, None)
    write_cameras(tmp_path / "c.json", Cameras.pinhole(100.0, WIDTH, HEIGHT, poses[:7]))
    with pytest.raises(InputError, match="frames: expected 12"):
        FileCameras(tmp_path / "c.json").solve(scene, None, None)


def test_objects_are_assigned_by_vote():
    """Five frames, a mask whose left half is object 1, right half static, bottom ignored."""
    mask = np.zeros((20, 20), np.uint8)
    mask[:, :10] = 1
    mask[15:] = 255
    xs = np.array(
        [
            [2, 3, 4, 5, 6],  # on the object
            [15, 15, 15, 15, 15],  # static
            [2, 2, 2, 15, 15],  # 60 % on the object: slipped
            [2, 2, 2, 2, 15],  # 80 %: mostly on it
            [2, 2, 2, 2, 2],  # ignored throughout
            [2, 15, 15, 15, 15],  # visible in the first frame only
        ]
    )
    ys = np.full((6, 5), 5)
    ys[4] = 17
    visible = np.ones((6, 5), bool)
    visible[5, 1:] = False
    xy = np.stack([xs, ys], -1).astype(np.float32)
    tracks = Tracks.from_dense(xy, visible, visible * 1.0, np.full(6, -1), np.zeros(6, int))
    assert assign_objects(tracks, [mask] * 5).tolist() == [1, 0, -1, 1, -1, 1]
    assert assign_objects(tracks.select(np.zeros(0, int)), [mask] * 5).tolist() == []
    outside = dataclasses.replace(tracks, run_xy=tracks.run_xy + np.float32(20))
    assert assign_objects(outside, [mask[:10]] * 5).tolist()[1] == 0  # the border's label


def test_objects_are_numbered_and_those_without_a_track_ignored():
    table = number_objects({0, 3, 5, 9, 255}, {-1, 0, 9, 3})
    assert [int(table[i]) for i in (0, 3, 5, 9, 255)] == [0, 1, 255, 2, 255]


def still_tracks(step, noise=0.05, frames=12):
    """Return static tracks that move by `step` (x, y) px per frame, and tracks of an object."""
    rng = np.random.default_rng(0)
    start = rng.uniform([5, 5], [WIDTH - 25, HEIGHT - 15], (120, 1, 2))
    xy = start + np.arange(frames)[:, None] * np.asarray(step) + rng.normal(0, noise, (120, 12, 2))
    xy[100:] += np.arange(frames)[:, None] * [1.5, 0.5]
    ones = np.ones((120, frames))
    label = np.where(np.arange(120) < 100, 0, 1)
    return Tracks.from_dense(xy, ones > 0, ones, label, np.zeros(120))


def test_given_cameras_that_do_not_move_are_judged_as_estimated_ones(tmp_path):
    scene = write_scene(tmp_path / "scene", np.zeros((12, HEIGHT, WIDTH, 3), np.uint8))
    rng = np.random.default_rng(1)
    poses = np.tile(np.eye(4), (12, 1, 1))
    poses[:, :3, 3] = rng.normal(0, 0.002, (12, 3))  # noise of the user's tracking

    def solve(poses, tracks):
        write_cameras(tmp_path / "c.json", Cameras.pinhole(60.0, WIDTH, HEIGHT, poses))
        return FileCameras(tmp_path / "c.json").solve(scene, tracks, None)

    static = solve(poses, still_tracks((0, 0)))
    assert static.motion == "static" and static.verdict.grade == "poor"
    assert "the camera is static" in static.verdict.reason
    assert "guess" not in static.verdict.reason  # the intrinsics are the user's
    # A pan, by less than a pixel of parallax: seen from afar, all points move alike.
    turned = poses.copy()
    angles = -np.arange(12) * 0.7 / 60
    turned[:, :3, :3] = Rotation.from_rotvec(np.c_[0 * angles, angles, 0 * angles]).as_matrix()
    rays = (still_tracks((0, 0), 0).at(0)[1] - [WIDTH / 2, HEIGHT / 2]) / 60
    local = np.c_[rays, np.ones(len(rays))] @ turned[:, :3, :3].swapaxes(1, 2)
    xy = (60 * local[..., :2] / local[..., 2:] + [WIDTH / 2, HEIGHT / 2]).transpose(1, 0, 2)
    seen = (xy >= 0).all(-1) & (xy < [WIDTH, HEIGHT]).all(-1)
    none = np.zeros(len(xy))
    pan = Tracks.from_dense(np.where(seen[..., None], xy, 0), seen, seen * 1.0, none, none)
    rotating = solve(turned, pan)
    assert rotating.motion == "rotating" and "rotating in one place" in rotating.verdict.reason
    # Cameras that contradict this pan, and tracks that move without rotation, do move.
    assert solve(poses, pan).motion == "unknown" and solve(poses, pan).verdict.grade == "good"
    assert solve(np.tile(np.eye(4), (12, 1, 1)), None).motion == "static"
    centred = turned.copy()
    centred[:, :3, 3] = 0
    assert solve(centred, None).motion == "rotating"
    assert solve(poses, None).motion == "unknown"
    for solution in (static, rotating):
        verdict = dataclasses.asdict(solution.verdict)
        quality = {**solution.quality, "motion": solution.motion, "verdict": verdict}
        records = {
            "cameras": {"backend": "files", "options": {}, "quality": quality},
            "depth": {"backend": "files", "options": {}, "quality": {"known": 1.0}},
        }
        assert judge_stages(records)["cameras"].grade == "usable"
