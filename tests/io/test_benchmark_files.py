"""Files of benchmarks: TAPVid-3D, RealEstate10K, NVIDIA's dynamic scenes; invalid files."""

import json

import numpy as np
import pytest
import torch
from benchmark_writers import jpeg, write_nvidia, write_realestate10k, write_tapvid3d
from scipy.spatial.transform import Rotation

from msdyn.errors import InputError
from msdyn.geometry import Cameras, project, transform_points
from msdyn.io import (
    NvidiaScene,
    RealEstate10K,
    centre_crop,
    cropped_cameras,
    find_nvidia_scenes,
    read_evaluation_index,
    read_tapvid3d_clip,
)

WIDTH, HEIGHT = 48, 36


def smooth_images(count, seed=0, width=WIDTH, height=HEIGHT):
    """Return images which JPEG hardly changes."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    slopes = rng.uniform(20, 110, (2, count, 1, 1, 3))
    return (slopes[0] * x[..., None] + slopes[1] * y[..., None] + 10).astype(np.uint8)


def some_cameras(count, seed=0):
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.random(count, rng=seed).as_matrix()
    poses[:, :3, 3] = np.random.default_rng(seed).normal(size=(count, 3))
    k = np.tile([[40.0, 0, 25], [0, 44, 17], [0, 0, 1]], (count, 1, 1))
    return Cameras(k, poses, WIDTH, HEIGHT)


@pytest.fixture
def tapvid(tmp_path):
    """A clip of 5 frames with 4 points: its file and what is in it."""
    rng = np.random.default_rng(0)
    images, cameras = smooth_images(5), some_cameras(5)
    xyz, visible = rng.normal(size=(4, 5, 3)), rng.random((4, 5)) < 0.7
    queries = np.array([0, 4, 2, 0]), rng.uniform(1, 35, (4, 2))
    path = tmp_path / "clip_1.npz"
    write_tapvid3d(path, images, cameras, xyz, visible, *queries)
    return path, images, cameras, xyz, visible, queries


def changed(path, **arrays):
    content = dict(np.load(path)) | arrays
    np.savez(path, **{key: value for key, value in content.items() if value is not None})


def test_a_clip_of_tapvid3d(tapvid):
    path, images, cameras, xyz, visible, (frame, xy) = tapvid
    clip = read_tapvid3d_clip(path)
    assert clip.name == "clip_1" and len(clip) == 5
    for number, image in enumerate(images):
        assert np.abs(clip.image(number).astype(int) - image).max() <= 6  # JPEG
    np.testing.assert_allclose(clip.cameras.cam_from_world, cameras.cam_from_world)
    np.testing.assert_allclose(clip.cameras.intrinsics, cameras.intrinsics)
    world = transform_points(clip.cameras.world_from_cam, clip.xyz)
    np.testing.assert_allclose(world.swapaxes(0, 1), xyz, atol=1e-12)
    np.testing.assert_array_equal(clip.visible, visible.T)
    np.testing.assert_array_equal(clip.query_frame, frame)
    np.testing.assert_array_equal(clip.query_xy, xy)
    assert clip.static.share_pose and len(clip.static) == 5


def test_the_first_frames_of_a_clip_have_the_tracks_queried_there(tapvid):
    clip = read_tapvid3d_clip(tapvid[0])
    start = clip.first(3)
    assert len(start) == 3 and len(start.cameras) == len(start.static) == 3
    np.testing.assert_array_equal(start.query_frame, [0, 2, 0])
    np.testing.assert_array_equal(start.xyz, clip.xyz[:3][:, [0, 2, 3]])
    np.testing.assert_array_equal(start.visible, clip.visible[:3][:, [0, 2, 3]])
    assert len(clip.first(99)) == 5


def test_decoded_images_and_static_cameras(tapvid):
    path, images = tapvid[:2]
    changed(path, images_jpeg_bytes=images, extrinsics_w2c=None)
    clip = read_tapvid3d_clip(path)
    assert clip.cameras is None
    np.testing.assert_array_equal(clip.image(3), images[3])


def objects(count):
    array = np.empty(count, object)
    array[:] = [jpeg(image) for image in smooth_images(count)]
    return array


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"images_jpeg_bytes": None}, "images_jpeg_bytes missing"),
        ({"images_jpeg_bytes": objects(5)}, "expected JPEG files as an array of bytes"),
        ({"images_jpeg_bytes": [b"no image"] * 5}, "frame 0: not a readable image"),
        ({"images_jpeg_bytes": np.zeros((5, 4, 4))}, r"got float64 \(5, 4, 4\)"),
        ({"images_jpeg_bytes": np.zeros((4, 9, 9, 3), np.uint8)}, "expected 5 frames"),
        ({"extrinsics_w2c": np.zeros((5, 3, 4))}, r"extrinsics_w2c: expected \(5, 4, 4\)"),
        ({"extrinsics_w2c": np.zeros((5, 4, 4))}, "clip_1.npz: cam_from_world"),
        ({"queries_xyt": np.full((4, 3), 5.0)}, "expected frames 0 to 4"),
    ],
)
def test_other_files_are_refused(tapvid, arrays, message):
    changed(tapvid[0], **arrays)
    with pytest.raises(InputError, match=message):
        read_tapvid3d_clip(tapvid[0])


def test_an_image_of_another_size(tapvid):
    path = tapvid[0]
    files = [jpeg(image) for image in smooth_images(5)]
    files[2] = jpeg(smooth_images(1, width=20)[0])
    changed(path, images_jpeg_bytes=files)
    with pytest.raises(InputError, match="frame 2: expected 48x36, got 20x36"):
        read_tapvid3d_clip(path).image(2)


@pytest.fixture
def realestate(tmp_path):
    clips = {f"clip{n}": (smooth_images(3 + n, n), some_cameras(3 + n, n)) for n in range(3)}
    write_realestate10k(tmp_path / "re10k" / "test", clips)
    return tmp_path / "re10k", clips


def test_clips_of_realestate10k(realestate):
    folder, clips = realestate
    data = RealEstate10K(folder)
    assert len(data) == 3 and data.keys == tuple(clips)
    assert RealEstate10K(folder / "test").keys == data.keys
    assert [clip.key for clip in data.clips(("clip2", "clip0"))] == ["clip0", "clip2"]
    for clip in data.clips():
        images, cameras = clips[clip.key]
        assert len(clip) == len(images)
        np.testing.assert_allclose(clip.cameras.cam_from_world, cameras.cam_from_world, atol=1e-6)
        np.testing.assert_allclose(clip.cameras.intrinsics, cameras.intrinsics, rtol=1e-6)
        assert clip.microseconds[1] == 33_000
        for number, image in enumerate(images):
            assert np.abs(clip.image(number).astype(int) - image).max() <= 6


def test_the_evaluation_index(tmp_path):
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"a": {"context": [0, 9], "target": [3]}, "b": None}))
    pairs = read_evaluation_index(path)
    assert list(pairs) == ["a"]
    assert (pairs["a"].context, pairs["a"].target) == ((0, 9), (3,))
    for wrong in ([1], {"a": {"context": [0, 9]}}, {"a": {"context": [0.5], "target": [1]}}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(InputError, match="expected lists of frames"):
            read_evaluation_index(path)


def test_realestate10k_with_other_content(realestate):
    folder, _ = realestate
    data = RealEstate10K(folder)
    with pytest.raises(InputError, match="clip9 is missing"):
        list(data.clips(("clip9",)))
    path = folder / "test" / "000000.torch"
    good = torch.load(path)
    for change, message in (
        (lambda clip: clip.pop("cameras"), "clip0: cameras is missing"),
        (lambda clip: clip.update(cameras=torch.zeros(3, 17)), r"got \(3, 17\)"),
        (lambda clip: clip.update(images=[]), "images: expected a list"),
        (lambda clip: clip.update(images=[torch.zeros(9)] * 3), "the bytes of a file"),
        (lambda clip: clip.update(key="other"), "clip0 is missing, which index.json expects"),
    ):
        content = [dict(clip) for clip in good]
        change(content[0])
        torch.save(content, path)
        with pytest.raises(InputError, match=message):
            list(data.clips(("clip0",)))
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match="not a readable file of clips"):
        list(data.clips())
    path.unlink()
    with pytest.raises(FileNotFoundError, match="000000.torch: no such file"):
        list(data.clips())


def test_crops_show_the_same_points(tmp_path):
    """A point stays where its colour is: of images and cameras cropped together."""
    width, height, side = 64, 36, 18
    k = np.array([[[50.0, 0, 30], [0, 50, 20], [0, 0, 1]]])
    cameras = Cameras(k, np.eye(4)[None], width, height)
    crop = cropped_cameras(cameras, side)
    assert (crop.width, crop.height) == (side, side)
    image = np.zeros((height, width, 3), np.uint8)
    image[18:22, 28:32] = 255  # about the pixel (30, 20)
    small = centre_crop(image, side)
    assert small.shape == (side, side, 3)
    rows, columns = np.mgrid[:side, :side] + 0.5
    weights = small[..., 0] / small[..., 0].sum()
    found = [(weights * columns).sum(), (weights * rows).sum()]
    expected = project(crop.intrinsics[0], np.array([[0.0, 0, 1]]))[0]
    np.testing.assert_allclose(found, expected, atol=0.05)
    # RealEstate10K's own sizes: 640x360 is resampled to 455x256, of which columns 99 to 355 stay.
    wide = Cameras(
        np.array([[[500.0, 0, 320], [0, 500, 180], [0, 0, 1]]]), np.eye(4)[None], 640, 360
    )
    crop = cropped_cameras(wide, 256)
    np.testing.assert_allclose(crop.intrinsics[0, 0], [500 * 455 / 640, 0, 455 / 2 - 99])
    np.testing.assert_allclose(crop.intrinsics[0, 1], [0, 500 * 256 / 360, 128])


@pytest.fixture
def nvidia(tmp_path):
    """Five times of a rig of three cameras."""
    images = [list(smooth_images(3, seed)) for seed in range(5)]
    rig = some_cameras(3)
    k = rig.intrinsics.copy()
    k[:, 1, 1], k[:, 0, 2], k[:, 1, 2] = k[:, 0, 0], WIDTH / 2, HEIGHT / 2
    rig = Cameras(k, rig.cam_from_world, WIDTH, HEIGHT)
    masks = [[image[..., 0] > 60 for image in pictures] for pictures in images]
    write_nvidia(tmp_path / "Balloon1", images, rig, masks)
    return tmp_path / "Balloon1", images, rig, masks


def test_a_scene_of_nvidia(nvidia):
    folder, images, rig, masks = nvidia
    for place in (folder, folder / "dense"):
        scene = NvidiaScene(place)
        assert (scene.name, scene.frames, len(scene.rig)) == ("Balloon1", 5, 3)
        np.testing.assert_allclose(scene.rig.cam_from_world, rig.cam_from_world, atol=1e-12)
        np.testing.assert_allclose(scene.rig.intrinsics, rig.intrinsics)
        assert [scene.input_camera(frame) for frame in range(5)] == [0, 1, 2, 0, 1]
        np.testing.assert_allclose(
            scene.clip.cam_from_world, rig.cam_from_world[[0, 1, 2, 0, 1]], atol=1e-12
        )
        assert scene.held_out(0) == [1, 2] and scene.held_out(4) == [0, 2]
        for frame in range(5):
            for camera in range(3):
                difference = scene.image(frame, camera).astype(int) - images[frame][camera]
                assert np.abs(difference).max() <= 6
                np.testing.assert_array_equal(scene.moving(frame, camera), masks[frame][camera])
        np.testing.assert_array_equal(scene.image(4), scene.image(4, 1))
    assert find_nvidia_scenes(folder.parent) == find_nvidia_scenes(folder) == [folder]


def test_larger_images_of_nvidia_are_resampled(nvidia):
    folder, images, rig, masks = nvidia
    scene = NvidiaScene(folder, height=18)
    assert scene.image(0).shape == (18, 24, 3) and scene.moving(0, 1).shape == (18, 24)
    np.testing.assert_allclose(scene.rig.intrinsics, rig.resized(24, 18).intrinsics)
    assert NvidiaScene(folder, height=100).image(0).shape == (HEIGHT, WIDTH, 3)


def test_nvidia_with_poses_of_the_rig_or_a_short_clip(nvidia, tmp_path):
    _, images, rig, _ = nvidia
    write_nvidia(tmp_path / "rig", images, rig, rows=3)
    scene = NvidiaScene(tmp_path / "rig")
    np.testing.assert_allclose(
        scene.clip.cam_from_world, rig.cam_from_world[[0, 1, 2, 0, 1]], atol=1e-12
    )
    assert not scene.has_masks and scene.moving(0, 0) is None
    write_nvidia(tmp_path / "short", images[:2], rig)
    short = NvidiaScene(tmp_path / "short")
    assert len(short.rig) == 2 and short.held_out(0) == [1]  # nothing says where camera 2 is


def test_nvidia_with_other_content(nvidia, tmp_path):
    folder, images, rig, _ = nvidia
    with pytest.raises(FileNotFoundError, match="no scene with dense/mv_images"):
        find_nvidia_scenes(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no folders of images"):
        NvidiaScene(tmp_path / "nothing")
    poses = folder / "dense" / "poses_bounds_cvd.npy"
    np.save(poses, np.zeros((4, 17)))
    with pytest.raises(InputError, match=r"expected \[5, 17\], a row per frame, got \(4, 17\)"):
        NvidiaScene(folder)
    poses.unlink()
    with pytest.raises(FileNotFoundError, match="no poses_bounds_cvd.npy or poses_bounds.npy"):
        NvidiaScene(folder)
    (folder / "dense" / "mv_images" / "00001" / "cam02.jpg").unlink()
    with pytest.raises(InputError, match="expected the same cameras"):
        NvidiaScene(folder)
