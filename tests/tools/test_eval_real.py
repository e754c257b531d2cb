"""Evaluation on folders of real clips: figures, contact sheets, and clips that fail."""

import argparse

import imageio.v3 as iio
import numpy as np
import pytest
from eval_real import (
    DEGREES,
    fit_figures,
    focus_of,
    main,
    mask_overlap,
    run_clip,
    summary,
    write_sheet,
)

from msdyn.scene import STATIC, Scene
from msdyn.sequence import load_sequence


@pytest.fixture(scope="module")
def fitted(fitted_plane_scene):
    return Scene(fitted_plane_scene), load_sequence(fitted_plane_scene)


def test_figures_and_a_sheet_of_a_fit(fitted, tmp_path):
    scene, sequence = fitted
    figures = fit_figures(sequence, scene, tmp_path / "clip.mp4")
    assert set(figures["psnr"]) == {"held_out", "held_out_moving", "fitted", "fitted_moving"}
    assert 10 < figures["psnr"]["fitted"] < 60 and "iou" not in figures
    shares = [figures["unsupported"][str(degrees)] for degrees in DEGREES]
    assert shares == sorted(shares) and 0 <= shares[0] and shares[-1] < 1
    write_sheet(sequence, scene, tmp_path / "sheets" / "clip.png")
    sheet = iio.imread(tmp_path / "sheets" / "clip.png")
    assert sheet.shape[1] == 240 * (4 + len(DEGREES)) and sheet.std() > 10
    done = {"exit": {"preprocess": 0, "fit": 0}, "seconds": {"preprocess": 1.0, "fit": 2.0}}
    assert "held out" in summary("clip", done | figures)


def test_the_camera_turns_about_what_moves(fitted):
    scene, _ = fitted
    for frame, point in enumerate(focus_of(scene)):
        camera = scene.cameras.cam_from_world[frame]
        depth = float(camera[2, :3] @ point + camera[2, 3])
        moving = scene.depth(frame)[scene.mask(frame) != STATIC]
        assert moving.min() <= depth <= moving.max()


def test_overlap_with_true_masks_of_another_size(fitted, tmp_path):
    scene, _ = fitted
    files = []
    for frame in range(len(scene)):
        true = (scene.mask(frame) > 0).astype(np.uint8) * 255
        files.append(tmp_path / f"{frame:05d}.png")
        iio.imwrite(files[-1], true.repeat(2, 0).repeat(2, 1))
    assert mask_overlap(scene, files) > 0.95
    assert mask_overlap(scene, files[::-1]) < 0.9


@pytest.mark.reliability
def test_a_clip_that_fails_is_a_row_too(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    options = argparse.Namespace(max_frames=4, long_side=64, preprocess="", fit="")
    result = run_clip(tmp_path / "broken.mp4", tmp_path / "scene", options)
    assert result["exit"] == {"preprocess": 2} and "broken.mp4" in result["message"]["preprocess"]
    assert summary("broken", result).startswith("broken     exit 2")


def test_a_folder_without_videos_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["eval_real.py", str(tmp_path)])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 2 and "no such videos" in capsys.readouterr().err
