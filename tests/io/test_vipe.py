"""Results of ViPE: cameras, depth, masks, choice of the clip, damage."""

import re
import shutil

import numpy as np
import pytest
from recording_writers import encoded, rewritten_zip, write_vipe

from msdyn.errors import InputError
from msdyn.geometry import Cameras, project
from msdyn.io import Vipe, read_depth_map

SIZE, FRAMES = (24, 32), 3
RNG = np.random.default_rng(0)
IMAGES = [np.full((*SIZE, 3), 40 * n + 20, np.uint8) for n in range(FRAMES)]
DEPTHS = RNG.uniform(0.5, 4, (FRAMES, *SIZE)).astype(np.float16)
MASKS = RNG.integers(0, 4, (FRAMES, *SIZE)).astype(np.uint8)
PHRASES = [(1, "person"), (2, "sky"), (3, "car: red")]


def cameras():
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[1, :3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    poses[:, :3, 3] = RNG.normal(size=(FRAMES, 3))
    k = np.tile([[30.0, 0, 15], [0, 31, 13], [0, 0, 1]], (FRAMES, 1, 1))
    k[:, 0, 0] += np.arange(FRAMES)
    return Cameras(k, poses, 32, 24)


CAMERAS = cameras()


@pytest.fixture
def results(tmp_path):
    return write_vipe(tmp_path / "vipe", "dog", IMAGES, CAMERAS, DEPTHS, MASKS, PHRASES)


def test_content(results, tmp_path):
    clip = Vipe(results)
    assert (clip.name, len(clip), clip.has_depth, clip.has_masks) == ("dog", FRAMES, True, True)
    assert clip.video == results / "rgb/dog.mp4"
    np.testing.assert_allclose(clip.cameras.cam_from_world, CAMERAS.cam_from_world, atol=1e-6)
    np.testing.assert_allclose(clip.cameras.intrinsics, CAMERAS.intrinsics, atol=1e-5)
    for content, depth in zip(clip.depth_files(), DEPTHS, strict=True):
        (tmp_path / "depth.exr").write_bytes(content)
        np.testing.assert_array_equal(read_depth_map(tmp_path / "depth.exr"), depth)
    np.testing.assert_array_equal(list(clip.masks()), np.where(MASKS == 2, 0, MASKS))


def test_axes(tmp_path):
    """A camera at (1, 2, 3) that looks along x, with y down: a point two in front of it."""
    world_from_cam = np.eye(4)
    world_from_cam[:3] = [[0, 0, 1, 1], [0, 1, 0, 2], [-1, 0, 0, 3]]
    one = Cameras(CAMERAS.intrinsics, np.tile(np.linalg.inv(world_from_cam), (3, 1, 1)), 32, 24)
    camera = Vipe(write_vipe(tmp_path, "a", IMAGES, one)).cameras[:1]
    point = np.array([3, 2.2, 2.9])  # .1 to the right (-z), .2 down
    xyz = camera.cam_from_world[0, :3, :3] @ point + camera.cam_from_world[0, :3, 3]
    np.testing.assert_allclose(xyz, [0.1, 0.2, 2], atol=1e-6)
    xy = project(camera.intrinsics, xyz[None, None])[0, 0]
    np.testing.assert_allclose(xy, [15 + 30 * 0.05, 13 + 31 * 0.1], atol=1e-4)


def test_which_clip(results):
    write_vipe(results, "cat", IMAGES, CAMERAS)
    with pytest.raises(InputError, match="--clip: expected one of cat, dog$"):
        Vipe(results)
    with pytest.raises(InputError, match="expected one of cat, dog, got '../dog'"):
        Vipe(results, "../dog")
    assert not Vipe(results, "cat").has_depth and not Vipe(results, "cat").has_masks
    assert Vipe(results, "dog").has_depth


def save(name, **arrays):
    def damage(folder):
        with np.load(folder / name) as file:
            content = {**file, **arrays}
        np.savez(folder / name, **{k: v for k, v in content.items() if v is not None})

    return damage


def members(name, change):
    return lambda folder: rewritten_zip(folder / name, change)


def bad_types(folder):
    (folder / "intrinsics/dog_camera.txt").write_text("0: PINHOLE\n1: MEI\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f / "rgb"), "not a result of ViPE"),
        (lambda f: (f / "rgb/dog.mp4").write_bytes(b"x"), "dog.mp4: not a video"),
        (lambda f: (f / "pose/dog.npz").unlink(), "pose/dog.npz: no such file"),
        (lambda f: (f / "pose/dog.npz").write_bytes(b"x"), "not a readable npz"),
        (save("pose/dog.npz", inds=None), "inds missing"),
        (save("pose/dog.npz", inds=np.array([0, 2, 3])), "inds: expected every frame, 0 to 2"),
        (save("pose/dog.npz", data=np.eye(4)), "data: expected"),
        (save("pose/dog.npz", data=np.array(1.0)), "data: expected"),
        (save("pose/dog.npz", data=np.full((3, 4, 4), np.nan)), "finite"),
        (save("pose/dog.npz", data=np.zeros((3, 4, 4))), "pose/dog.npz"),
        (save("intrinsics/dog.npz", data=np.ones((3, 5))), "intrinsics/dog.npz: data: expected"),
        (
            save("intrinsics/dog.npz", data=np.ones((2, 4)), inds=np.arange(2)),
            "intrinsics/dog.npz: expected 3 frames as in",
        ),
        (bad_types, "line 2: expected PINHOLE, got 'MEI'; results of the pipelines for wide"),
        (members("depth/dog.zip", lambda c: {"00000.exr": c["00000.exr"]}), "00001.exr is missing"),
        (lambda f: (f / "depth/dog.zip").write_bytes(b"x"), "not a readable zip"),
        (
            members("mask/dog.zip", lambda c: {**c, "00001.png": encoded(MASKS[0][:5])}),
            "frame 1: expected 32x24",
        ),
        (
            members("mask/dog.zip", lambda c: {**c, "00001.png": encoded(IMAGES[0])}),
            "frame 1: expected one 8-bit channel",
        ),
        (members("mask/dog.zip", lambda c: {**c, "00001.png": b"x"}), "frame 1"),
        (
            members("depth/dog.zip", lambda c: {**c, "00001.exr": bytes(10**6)}),
            "00001.exr': expected at most",
        ),
    ],
)
def test_damaged_results(results, damage, message):
    damage(results)
    with pytest.raises((InputError, FileNotFoundError), match=re.escape(message)) as raised:
        clip = Vipe(results)
        list(clip.depth_files()), list(clip.masks())
    assert "\n" not in str(raised.value)
