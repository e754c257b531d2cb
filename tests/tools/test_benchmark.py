"""The benchmark on folders of recordings: layouts, failures, the table, and a tiny run."""

import json

import imageio.v3 as iio
import numpy as np
import pytest
from benchmark import config_of, layout_of, main
from multi_camera_writers import static_rig, write_blender, write_camera_folder, write_panoptic
from real_table import summarise_real, write_real_table


def test_layouts_are_found(tmp_path):
    truth = static_rig("two-boxes", 3, 32, 24)
    write_panoptic(tmp_path / "a", truth)
    write_blender(tmp_path / "b", 3, 2, (16, 16))
    write_camera_folder(tmp_path / "c", truth)
    for name, file in (("d", "dataset.json"), ("d", "scene.json"), ("e", "scene.json"),
                       ("f", "notes.txt")):  # fmt: skip
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / file).write_text("{}")
    found = {path.name: layout_of(path) for path in tmp_path.iterdir()}
    assert found == {"a": "panoptic", "b": "blender", "c": "recording", "d": "dycheck",
                     "e": "scene", "f": None}  # fmt: skip
    assert layout_of(tmp_path / "f/notes.txt") is None
    with pytest.raises(SystemExit):
        main([str(tmp_path / "f")])


def result(scene, row, mpsnr, **figures):
    keys = ("mssim", "ssim", "mlpips", "flicker", "epe3d", "acceleration_error")
    return {"scene": scene, "row": row, "mpsnr": mpsnr, **dict.fromkeys(keys), **figures,
            "seconds": {"fit": 2.0}, "stamp": {"commit": "abc"}}  # fmt: skip


def test_table_of_means_and_failures(tmp_path):
    results = [result("a", "full", 20.0, ssim=0.5), result("b", "full", 10.0),
               result("a", "single", 18.0)]  # fmt: skip
    layouts = {"a": "panoptic", "b": "blender", "c": "recording"}
    summary = summarise_real(results, layouts, {"c": "K is wrong"}, 3.0, ["x"])
    assert summary["rows"]["full"]["mpsnr"] == 15 and summary["rows"]["full"]["ssim"] == 0.5
    assert summary["rows"]["full"]["mlpips"] is None
    text = write_real_table(json.loads(json.dumps(summary)), tmp_path / "table.md")
    assert "| full | 15.00 | 0.500 | 2 |" in text and "mLPIPS" not in text
    assert "| b | blender | 10.00 | - |" in text and "- c: K is wrong" in text


def test_rows_are_those_of_the_ablation(tmp_path):
    config = config_of("L1", tmp_path, tmp_path / "fit", 7)
    assert (config.motion.levels, config.epochs, config.scene) == (1, 7, tmp_path)
    assert config_of("rgb only", tmp_path, tmp_path / "fit", 7).losses == "rgb"


@pytest.mark.slow
def test_a_recording_that_fails_stops_none_of_the_others(tmp_path, capsys):
    truth = static_rig("two-boxes", 6, 64, 48)
    recordings, out = tmp_path / "recordings", tmp_path / "out"
    write_camera_folder(recordings / "rig", truth, depth=True)
    write_panoptic(recordings / "bad", truth)
    (recordings / "bad/ims/10/000001.png").unlink()
    options = ["--rows", "L1", "--epochs", "1", "--width", "64", "--jobs", "1", "--out", str(out),
               "--preprocess", "--saliency off"]  # fmt: skip
    assert main([str(recordings), *options]) == 0
    summary = json.loads((out / "results.json").read_text())
    assert set(summary["failures"]) == {"bad"}
    assert "000001.png" in summary["failures"]["bad"]
    assert [r["scene"] for r in summary["results"]] == ["rig"]
    assert summary["results"][0]["mpsnr"] > 8
    assert iio.imread(out / "pictures.png").std() > 10
    before = (out / "fits/rig/L1/result.json").stat().st_mtime_ns
    assert main([str(recordings), *options, "--only", "rig"]) == 0
    assert (out / "fits/rig/L1/result.json").stat().st_mtime_ns == before
    assert np.isfinite(summary["rows"]["L1"]["mpsnr"])
