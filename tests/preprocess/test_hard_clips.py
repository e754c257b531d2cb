"""Clips that are hard, or hopeless: each ends in a decided way, without a traceback."""

import numpy as np
import pytest
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
