"""The GPU check runs end to end on a CPU, at a tiny size."""

import json
from pathlib import Path

import pytest
import torch


@pytest.fixture
def gpu_check(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    return pytest.importorskip("gpu_check")


@pytest.mark.reliability
def test_the_whole_script_on_a_cpu(gpu_check, tmp_path):
    """A scene is packed and unpacked, and every part reports its figures."""
    scene, report = tmp_path / "scene.zip", tmp_path / "report.json"
    assert gpu_check.main(["--quick", "--make-scene", str(scene)]) == 0
    assert scene.is_file() and not scene.with_suffix("").exists()
    command = ["--quick", "--scene", str(scene), "--json", str(report), "--commit", "abc"]
    assert gpu_check.main(command) == 0
    result = json.loads(report.read_text())
    assert result["machine"]["commit"] == "abc"
    assert result["machine"]["versions"]["torch"] == torch.__version__

    tests = result["tests"]
    assert tests["failed"] == [] and tests["passed"] + tests["skipped"] > 0
    first = result["rendering"]["first_frame_seconds"]
    assert first["to_the_first"] == pytest.approx(
        first["imports"] + first["loading"] + first["first_image"]
    )
    fps = result["rendering"]["fps"][0]
    assert fps["gaussians"] == 1500 and fps["image"] == [64, 48]
    assert all(fps[name] > 0 for name in ("colour", "everything", "on_host", "batches_of_8"))

    (network,) = result["feedforward"]["passes"]
    assert network["frames"] == 3 and network["encode"] > 0 and network["gib"] > 0

    fit = result["fit"]
    assert fit["finished"] and fit["steps"] == fit["steps_of_the_whole"] == 24
    assert fit["frames"] == 4 and fit["image"] == [64, 48] and fit["batch"] == 2
    profile = fit["profile"]
    assert sum(profile["shares"].values()) == pytest.approx(1)
    assert sum(profile["milliseconds"].values()) == pytest.approx(profile["step_ms"])
    # Each part takes time in every step, and little time is in none of them.
    assert all(profile["milliseconds"][part] > 0.01 for part in profile["shares"])
    assert profile["shares"]["the rest"] < 0.15
    assert fit["rendering"]["gaussians"] > 400


def test_a_fit_over_the_time_limit_is_extrapolated(gpu_check, tmp_path):
    report = tmp_path / "report.json"
    command = ["--quick", "--only", "fit", "--fit-seconds", "0.0", "--json", str(report)]
    assert gpu_check.main(command) == 0
    fit = json.loads(report.read_text())["fit"]
    assert not fit["finished"] and fit["steps"] == 0 and fit["steps_of_the_whole"] == 24


def test_a_failed_part_is_reported_and_does_not_stop_the_others(gpu_check, tmp_path, monkeypatch):
    report = tmp_path / "report.json"
    monkeypatch.setattr(gpu_check, "run_tests", lambda quick: {"passed": 1, "failed": []})
    nowhere = str(tmp_path / "nowhere.zip")
    command = ["--quick", "--only", "fit", "tests", "--scene", nowhere, "--json", str(report)]
    assert gpu_check.main(command) == 1
    result = json.loads(report.read_text())
    assert "nowhere.zip" in result["fit"]["error"] and result["tests"]["passed"] == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_the_parts_that_need_it_are_skipped(gpu_check, tmp_path):
    report = tmp_path / "report.json"
    assert gpu_check.main(["--only", "rendering", "feedforward", "fit", "--json", str(report)]) == 0
    result = json.loads(report.read_text())
    for part in ("rendering", "feedforward", "fit"):
        assert "no CUDA device" in result[part]["skipped"]


def test_a_part_that_hangs_is_ended_with_its_place(gpu_check, tmp_path, monkeypatch):
    """The parts after it still run."""
    script = tmp_path / "hangs.py"
    script.write_text(
        "import faulthandler, sys, time\n"
        "faulthandler.dump_traceback_later(float(sys.argv[sys.argv.index('--dump-after') + 1]))\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(gpu_check, "__file__", str(script))
    monkeypatch.setattr(gpu_check, "run_tests", lambda quick: {"passed": 1, "failed": []})
    report = tmp_path / "report.json"
    command = ["--quick", "--only", "rendering", "tests", "--limits", "rendering=1"]
    assert gpu_check.main([*command, "--json", str(report)]) == 1
    result = json.loads(report.read_text())
    assert result["rendering"]["error"] == "ended after its limit of 1 s"
    assert "hangs.py" in result["rendering"]["output"] and result["tests"]["passed"] == 1


@pytest.mark.parametrize("limit", ["fit", "fit=", "fit=x", "nothing=3", "fit=-1"])
def test_limits_of_another_form_are_refused(gpu_check, limit):
    with pytest.raises(SystemExit, match="PART=SECONDS"):
        gpu_check.main(["--quick", "--only", "audit", "--limits", limit])
