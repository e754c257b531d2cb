"""The demo at a tiny size: all files are written, and a restart repeats nothing."""

import imageio.v3 as iio
import pytest
from commands import exit_code

from msdyn.cli import demo
from msdyn.demo import DemoConfig
from msdyn.demo import demo as module
from msdyn.reading import read_json

TINY = ["--frames", "8", "--width", "96", "--epochs", "2", "--device", "cpu"]


@pytest.mark.reliability
def test_the_demo_writes_its_files_and_resumes(tmp_path, small_fits, capsys, monkeypatch):
    out = tmp_path / "demo"
    assert demo.main([*TINY, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for word in ("mPSNR", "SSIM", "track error", "seconds", "--levels 1", "frozen", "novel.mp4"):
        assert word in printed
    figures = read_json(out / "metrics.json")["recording"]
    for row in ("full", "frozen", "levels_1"):
        assert 5 < figures[row]["mpsnr"] < 50 and 0 < figures[row]["ssim"] < 1
        assert set(figures[row]["views"]) and figures[row]["images"] > 0
    assert figures["full"]["tracks"]["epe3d_moving"] < 0.5
    assert figures["gain_over_frozen_db"] == pytest.approx(
        figures["full"]["mpsnr"] - figures["frozen"]["mpsnr"]
    )
    assert {"make the clip", "preprocess", "fit", "evaluate"} <= set(figures["seconds"])
    assert len(iio.imread(out / "novel.mp4", plugin="pyav")) == 16
    assert iio.imread(out / "comparison.png").std() > 10

    def fail(*_, **__):
        raise AssertionError("the clip is rendered again")

    monkeypatch.setattr(module, "render_truth", fail)
    assert demo.main([*TINY, "--out", str(out)]) == 0
    again = read_json(out / "metrics.json")["recording"]
    assert again["full"] == figures["full"]


@pytest.mark.slow
@pytest.mark.parametrize("frames", [2, pytest.param(3, marks=pytest.mark.reliability)])
def test_figures_that_a_few_frames_do_not_have_are_left_out(tmp_path, small_fits, capsys, frames):
    few = ["--frames", str(frames), "--width", "96", "--epochs", "1", "--device", "cpu"]
    assert demo.main([*few, "--out", str(tmp_path / "demo")]) == 0
    figures = read_json(tmp_path / "demo" / "metrics.json")["recording"]
    assert set(figures["full"]) >= {"mpsnr", "ssim"}
    assert "nan" not in capsys.readouterr().out


def test_one_frame_is_refused_in_one_line(tmp_path, capsys):
    assert exit_code(demo.main, ["--frames", "1", "--out", tmp_path / "demo"]) == 2
    assert capsys.readouterr().err == "error: --frames: expected at least 2, got 1\n"


def test_the_quick_demo_is_a_size():
    small = DemoConfig(quick=True, seed=3).sized()
    assert (small.frames, small.width, small.epochs, small.seed) == (16, 160, 8, 3)
    assert DemoConfig(frames=12).sized() == DemoConfig(frames=12)


def test_a_quick_demo_of_another_size_is_refused(tmp_path, capsys):
    options = ["--quick", "--frames", "12", "--out", tmp_path / "demo"]
    assert exit_code(demo.main, options) == 2
    assert capsys.readouterr().err == "error: --quick, --frames: expected one of them only\n"
