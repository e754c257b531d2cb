"""Removal of visible background and shadows from masks, on clips with exactly known motion."""

import cv2
import numpy as np
import pytest
from moving import iou, texture, write_scene

from msdyn.geometry import Cameras
from msdyn.io import write_video
from msdyn.preprocess import PreprocessConfig, pipeline, preprocess_video
from msdyn.preprocess.masks.background import without_background

HEIGHT, WIDTH, FRAMES, SIDE, FOCAL = 128, 240, 14, 48, 200.0


def rotations(degrees):
    """Poses that turn about the y axis by so much from the first to the last frame."""
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    for pose, angle in zip(poses, np.radians(np.linspace(0, degrees, FRAMES)), strict=True):
        cosine, sine = np.cos(angle), np.sin(angle)
        pose[[0, 0, 2, 2], [0, 2, 0, 2]] = cosine, sine, -sine, cosine
    return poses


def clip(folder, *, degrees=0.0, shade=1.0, plain=False):
    """Write a square that crosses a background, with a soft shadow below; return scene and truth.

    Returns:
        The scene, its cameras, and where the square is, bool [T, H, W].
    """
    cameras = Cameras.pinhole(FOCAL, WIDTH, HEIGHT, rotations(degrees))
    big = cv2.GaussianBlur(texture(HEIGHT, 2 * WIDTH), (0, 0), 1.5)
    if plain:
        big[:] = 200
    sprite = texture(SIDE, SIDE, seed=5) // 2
    k = cameras.intrinsics[0]
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    frames, truth = [], []
    for frame in range(FRAMES):
        rotation = cameras.cam_from_world[frame, :3, :3]
        to_frame = np.linalg.inv(half) @ k @ rotation @ np.linalg.inv(k) @ half
        image = cv2.warpPerspective(big, to_frame, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
        x, y = 8 + 12 * frame, 40
        shadow = np.zeros((HEIGHT, WIDTH), np.float32)
        shadow[y + SIDE : y + SIDE + 16, x : x + SIDE] = 1
        shadow = cv2.GaussianBlur(shadow, (0, 0), 6)
        image = (image * (1 - (1 - shade) * shadow[..., None])).astype(np.uint8)
        image[y : y + SIDE, x : x + SIDE] = sprite
        frames.append(image)
        shown = np.zeros((HEIGHT, WIDTH), bool)
        shown[y : y + SIDE, x : x + SIDE] = True
        truth.append(shown)
    return write_scene(folder, np.stack(frames)), cameras, np.stack(truth)


def loose(truth, radius=16):
    """Return labels that contain surroundings of the square, more below it."""
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    grown = np.stack([cv2.dilate(shown.astype(np.uint8), kernel) for shown in truth])
    return 3 * np.maximum(grown, np.roll(grown, 8, axis=1))


@pytest.mark.parametrize("degrees", [0.0, 6.0])
@pytest.mark.parametrize("shade", [1.0, 0.7])
@pytest.mark.parametrize("plain", [True, False])
def test_background_and_shadow_leave_the_mask(tmp_path, degrees, shade, plain):
    scene, cameras, truth = clip(tmp_path / "scene", degrees=degrees, shade=shade, plain=plain)
    assert cameras.share_centre and cameras.share_pose == (degrees == 0)
    labels = loose(truth)
    cleaned = np.asarray(without_background(scene, labels, cameras))
    # What remains is a ring of about a pixel of half the size, as the images are smoothed.
    assert ((cleaned > 0) & ~truth).sum() < 0.25 * ((labels > 0) & ~truth).sum()
    assert iou(cleaned > 0, truth) > 0.7
    assert set(np.unique(cleaned)) == {0, 3}
    inner = np.stack([cv2.erode(shown.astype(np.uint8), np.ones((5, 5))) for shown in truth]) > 0
    assert (cleaned[inner] == 3).all()


def test_what_never_leaves_its_place_stays(tmp_path):
    scene, cameras, truth = clip(tmp_path / "scene")
    always = np.zeros_like(truth, dtype=np.uint8)
    always[:, 20:80, 40:120] = 1
    cleaned = np.asarray(without_background(scene, always, cameras))
    np.testing.assert_array_equal(cleaned, always)


def test_an_object_keeps_parts_of_the_colour_of_the_background(tmp_path):
    """A patch inside the square that looks like the background behind it makes no hole."""
    scene, cameras, truth = clip(tmp_path / "scene", plain=True)
    frames = [scene.image(frame).copy() for frame in range(FRAMES)]
    for frame, image in enumerate(frames):
        image[56:70, 8 + 12 * frame + 16 : 8 + 12 * frame + 30] = 200
    scene = write_scene(tmp_path / "holes", np.stack(frames))
    cleaned = np.asarray(without_background(scene, loose(truth), cameras))
    inner = np.stack([cv2.erode(shown.astype(np.uint8), np.ones((5, 5))) for shown in truth]) > 0
    assert (cleaned[inner] == 3).all()


def test_masks_without_objects_and_short_clips(tmp_path):
    scene, cameras, truth = clip(tmp_path / "scene")
    none = np.zeros_like(truth, dtype=np.uint8)
    assert not np.asarray(without_background(scene, none, cameras)).any()


def test_a_moving_camera_has_many_centres():
    poses = rotations(6.0)
    poses[:, 0, 3] = np.linspace(0, 0.1, FRAMES)
    assert not Cameras.pinhole(FOCAL, WIDTH, HEIGHT, poses).share_centre


def test_the_pipeline_removes_the_background(tmp_path, monkeypatch):
    """Of a static camera, once it is known to be static, and once only."""
    scene, _, truth = clip(tmp_path / "scene", shade=0.7)
    video = tmp_path / "clip.mp4"
    write_video(video, np.stack([scene.image(frame) for frame in range(FRAMES)]), 12.0)
    config = PreprocessConfig(
        video, out=tmp_path / "out", only=("frames", "tracks", "masks", "cameras"), accept_poor=True
    )
    calls = []
    real = pipeline.without_background

    def counted(scene, masks, cameras):
        calls.append(np.asarray(masks) > 0)
        return real(scene, masks, cameras)

    monkeypatch.setattr(pipeline, "without_background", counted)
    result = preprocess_video(config)
    assert result.info.stages["cameras"]["quality"]["motion"] == "static"
    (before,) = calls
    after = result.masks() > 0
    assert iou(after, truth) > max(0.7, iou(before, truth))
    quality = result.info.stages["masks"]["quality"]
    assert quality["moving_share"] == pytest.approx(after.mean(), abs=1e-4)
    preprocess_video(config)
    assert len(calls) == 1
