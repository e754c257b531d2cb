"""Clips that are hard, or hopeless: each ends in a decided way, without a traceback."""

import cv2
import numpy as np
import pytest
from cards import Card, placed, render, sliding_cameras
from moving import panning, paste, texture

from msdyn.cli.preprocess import main
from msdyn.io import write_video
from msdyn.preprocess.report.quality import judge_stages
from msdyn.scene import Scene

SIZE, FRAMES = (72, 96), 12
UNTIL_CAMERAS = [part for stage in ("frames", "tracks", "masks", "cameras")
                 for part in ("--only", stage)]  # fmt: skip


def run(folder, frames, *options):
    """Preprocess a clip without a network; return the exit code and, if there is one, the scene."""
    write_video(folder / "v.mp4", list(frames), 24)
    out = folder / "scene"
    code = main([str(folder / "v.mp4"), "--out", str(out), "--saliency", "off", *options])
    return code, Scene(out) if (out / "scene.json").is_file() else None


def grades(scene):
    return {stage: verdict.grade for stage, verdict in judge_stages(scene.info.stages).items()}


@pytest.mark.parametrize("grey", [0, 255, 90])
def test_blank_clips_end_at_once(tmp_path, capsys, grey):
    noise = np.random.default_rng(0).integers(0, 2, (FRAMES, *SIZE, 3))
    frames = np.clip(grey + noise, 0, 255).astype(np.uint8)
    code, scene = run(tmp_path, frames)
    out, err = capsys.readouterr()
    assert code == 3 and err.count("\n") == 1 and "nothing to reconstruct" in err
    assert list(scene.info.stages) == ["frames"]


def test_blank_frames_are_counted_and_named(tmp_path):
    frames = panning(FRAMES, SIZE, shift=(1.0, 0.3))[0].copy()
    frames[:4] = 0
    _, scene = run(tmp_path, frames, "--only", "frames")
    verdict = judge_stages(scene.info.stages)["frames"]
    assert verdict.grade == "poor"
    assert "4 of 12 frames are of one brightness (0 to 3)" in verdict.reason


def test_a_clip_in_which_nothing_moves(tmp_path, capsys):
    code, scene = run(tmp_path, [texture(*SIZE)] * FRAMES, *UNTIL_CAMERAS)
    assert code == 3 and "the camera is static" in capsys.readouterr().err
    assert scene.info.stages["masks"]["quality"]["objects"] == 0
    assert scene.info.stages["cameras"]["quality"]["motion"] == "static"


def test_a_static_camera_and_an_object(tmp_path):
    sprite = texture(30, 30, seed=4)
    frames = [paste(texture(*SIZE), sprite, (10 + 4 * t, 20))[0] for t in range(FRAMES)]
    code, scene = run(tmp_path, frames, *UNTIL_CAMERAS)
    assert code == 3 and grades(scene)["masks"] == "good"
    assert scene.info.stages["masks"]["quality"]["objects"] == 1


@pytest.mark.parametrize("degrees, shift", [(0.0, (2.0, 0.4)), (1.5, (1.0, 0.0))])
def test_a_rotating_camera(tmp_path, capsys, degrees, shift):
    code, scene = run(tmp_path, panning(FRAMES, SIZE, degrees, shift)[0], *UNTIL_CAMERAS)
    assert code == 3 and "rotating in one place" in capsys.readouterr().err
    assert scene.info.stages["cameras"]["quality"]["motion"] == "rotating"


def test_a_clip_with_a_cut(tmp_path, capsys):
    first, second = panning(8, SIZE)[0], panning(8, SIZE, shift=(-1, 0.5), seed=7)[0]
    code, _ = run(tmp_path, [*first, *second])
    err = capsys.readouterr().err
    assert code == 2 and err.count("\n") == 1 and "cut at frame 8" in err


def test_every_frame_twice(tmp_path):
    frames = np.repeat(panning(FRAMES // 2, SIZE, shift=(3.0, 0.5))[0], 2, axis=0)
    code, scene = run(tmp_path, frames, *UNTIL_CAMERAS)
    assert code == 3 and scene.info.stages["cameras"]["quality"]["motion"] == "rotating"
    verdict = judge_stages(scene.info.stages)["frames"]
    assert verdict.grade == "usable" and "6 of 12 frames repeat the one before" in verdict.reason
    assert "repeated_frames" not in moving_once(tmp_path).info.stages["frames"]["options"]


def moving_once(folder):
    """Return the scene of a clip whose every frame differs from the one before."""
    frames = panning(FRAMES, SIZE, shift=(2.0, 0.5))[0]
    (folder / "once").mkdir()
    return run(folder / "once", frames, "--only", "frames")[1]


@pytest.mark.parametrize("shown", [range(9, FRAMES), range(5, 7)])
def test_an_object_that_comes_late_or_soon_goes(tmp_path, shown):
    frames = list(panning(FRAMES, SIZE, shift=(1.0, 0.3))[0])
    for t in shown:
        frames[t] = paste(frames[t], texture(30, 30, seed=4), (10 + 5 * t, 20))[0]
    code, scene = run(tmp_path, frames, *UNTIL_CAMERAS)
    assert code == 3  # of the camera, which rotates
    masks = scene.masks()
    shows = (masks > 0).mean(axis=(1, 2))
    assert (shows[[t for t in range(FRAMES) if t not in shown]] < 0.02).all()


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_a_few_frames(tmp_path, capsys, count):
    frames = list(panning(count, SIZE, shift=(2.0, 0.4))[0])
    code, scene = run(tmp_path, frames, "--masks", "none", *UNTIL_CAMERAS)
    out, err = capsys.readouterr()
    assert code == 3 and err.count("\n") <= 1
    assert f"{count} frames are few" in out and grades(scene)["frames"] == "usable"


@pytest.mark.parametrize("gain, grade", [(1.0, "good"), (5.0, "usable"), (200.0, "poor")])
def test_over_exposed_pixels_are_counted(tmp_path, gain, grade):
    frames = panning(FRAMES, SIZE, shift=(1.0, 0.3))[0] * gain
    _, scene = run(tmp_path, frames.clip(0, 255).astype(np.uint8), "--only", "frames")
    verdict = judge_stages(scene.info.stages)["frames"]
    assert verdict.grade == grade
    assert grade == "good" or "of the pixels are white (over-exposed)" in verdict.reason
    if gain == 200:
        frames[:] = 255
        frames[:, 30:36, 40:46] = 0  # a little contrast: not blank
        (tmp_path / "white").mkdir()
        _, white = run(tmp_path / "white", frames.astype(np.uint8), "--only", "frames")
        assert judge_stages(white.info.stages)["frames"].grade == "poor"


def room(frames=14, steps=1, reach=1.2):
    """Return images of a camera that moves past static cards and one that moves.

    Args:
        frames: of the clip.
        steps: each frame is the mean of so many moments, as of a shutter that is always open.
        reach: of the camera's path.
    """
    count = frames * steps
    mover = np.concatenate(
        [placed(-0.5 + 0.08 * i, 0.25, 2.9, yaw=5 * i - 30) for i in np.arange(count) / steps]
    )
    cards = [
        Card(9, 7, placed(0, 0, 5, frames=count), seed=1),
        Card(6, 5, placed(0, 1.1, 3.2, pitch=75, frames=count), seed=2),
        Card(1.0, 1.2, placed(-1.2, -0.2, 3.2, yaw=20, frames=count), seed=3),
        Card(0.8, 1.0, placed(1.1, 0.1, 2.8, yaw=-15, frames=count), seed=4),
        Card(0.8, 0.9, mover, label=1, seed=9),
    ]
    images = render(cards, sliding_cameras(count, FOCAL, 256, 192, reach)).images
    blurred = images.reshape(frames, steps, *images.shape[1:]).mean(1)
    return blurred.round().astype(np.uint8)


FOCAL = 220


@pytest.mark.slow
def test_an_over_exposed_clip_has_the_cameras_of_the_clip(tmp_path):
    images = (room() * 5.0).clip(0, 255).astype(np.uint8)
    assert (images.min(-1) >= 254).mean() > 0.7
    code, scene = run(tmp_path, images, *UNTIL_CAMERAS)
    assert code == 0 and grades(scene)["frames"] == "usable"
    assert scene.cameras.intrinsics[0, 0, 0] == pytest.approx(FOCAL, rel=0.03)  # 1.1 %


@pytest.mark.reliability
def test_motion_blur_of_a_few_pixels_does_no_harm(tmp_path):
    code, scene = run(tmp_path, room(steps=8), *UNTIL_CAMERAS)
    assert code == 0 and scene.info.stages["cameras"]["quality"]["motion"] == "moving"
    assert scene.cameras.intrinsics[0, 0, 0] == pytest.approx(FOCAL, rel=0.03)


@pytest.mark.reliability
@pytest.mark.parametrize("reach", [3.0, 5.0])
def test_motion_blur_that_is_too_strong_is_poor(tmp_path, capsys, reach):
    """The background moves by 8 or 14 px while the shutter is open."""
    code, scene = run(tmp_path, room(steps=16, reach=reach), *UNTIL_CAMERAS)
    err = capsys.readouterr().err
    assert code == 3 and err.count("\n") <= 1 and "rotating" not in err
    assert grades(scene)["cameras"] == "poor"


def rippling():
    """Return images [T, H, W, 3] of a surface that deforms everywhere, by a static camera."""
    image = texture(192 + 80, 256 + 80)
    y, x = np.mgrid[:192, :256].astype(np.float32)
    frames = []
    for t in range(14):
        right = 8 * np.sin(x / 23 + 0.5 * t) + 6 * np.sin(y / 31 - 0.4 * t)
        down = 8 * np.sin(y / 27 + 0.45 * t + 1) + 6 * np.sin(x / 37 + 0.3 * t)
        frames.append(cv2.remap(image, x + 40 + right, y + 40 + down, cv2.INTER_LINEAR))
    return frames


def tiles():
    """Return images [T, H, W, 3] that are full of cards, each of which moves by itself."""
    rng, cards, frames = np.random.default_rng(0), [], np.arange(14)
    for i in range(25):
        (dx, dy, dz), (yaw, pitch) = rng.normal(0, 0.09, 3), rng.normal(0, 2.5, 2)
        x, y = 1.4 * (i % 5) - 2.8, 1.08 * (i // 5) - 2.16
        pose = [
            placed(x + dx * t, y + dy * t, 4 + dz * t, yaw=yaw * t, pitch=pitch * t) for t in frames
        ]
        cards.append(Card(1.9, 1.46, np.concatenate(pose), label=1 + i, seed=10 + i))
    return list(render(cards, sliding_cameras(14, FOCAL, 256, 192, reach=0.6)).images)


@pytest.mark.reliability
@pytest.mark.parametrize("make", [rippling, tiles])
def test_a_clip_in_which_everything_moves(tmp_path, capsys, make):
    code, scene = run(tmp_path, make())
    err = capsys.readouterr().err
    assert code == 3 and err.count("\n") == 1 and "moves by itself" in err
    assert "--cameras files" in err and "--masks files" in err
    assert grades(scene)["cameras"] == "poor" and "depth" not in scene.info.stages


@pytest.mark.reliability
def test_a_surface_that_fills_the_view_and_moves_is_what_the_camera_moves_about(tmp_path):
    """It cannot be told from a static one: cameras are relative to it."""
    pose = [placed(0.1 * t - 0.5, 0.05 * t, 4, yaw=4 * t - 25, pitch=2 * t - 14) for t in range(14)]
    cards = [Card(9.5, 7.3, np.concatenate(pose), label=1, seed=10)]
    cameras = sliding_cameras(14, FOCAL, 256, 192, reach=0.6)
    code, scene = run(tmp_path, render(cards, cameras).images, *UNTIL_CAMERAS)
    assert code == 0 and scene.info.stages["cameras"]["quality"]["motion"] == "moving"
    assert scene.cameras.intrinsics[0, 0, 0] == pytest.approx(FOCAL, rel=0.03)  # .02 %
