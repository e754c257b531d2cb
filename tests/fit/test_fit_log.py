"""The logs of a fit: what `--log` writes, and that it is no part of the fit."""

import json

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from msdyn.fit import FitConfig
from msdyn.fit.fingerprint import fingerprint
from msdyn.fit.fit_log import FitLog
from msdyn.scene import Scene


def curves(folder):
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = module.EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return accumulator


def row(step, loss=0.5):
    return {"loss": loss, "psnr": 20.0, "rgb": 0.1, "step": step, "static": 7, "moving": 3,
            "seconds": 1.0}  # fmt: skip


def test_entries_are_lines_and_curves(tmp_path):
    means = torch.nn.Parameter(torch.zeros(1))
    optimisers = [torch.optim.Adam([{"params": [means], "name": "means"}], lr=0.25),
                  torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.5)]  # fmt: skip
    (tmp_path / "previews").mkdir()
    iio.imwrite(tmp_path / "previews/00003.png", np.full((4, 6, 3), 200, np.uint8))
    with FitLog(tmp_path / "metrics.jsonl", 0, FitConfig(log=("tensorboard",))) as log:
        log.add(row(20), optimisers)
        log.add(row(40, 0.25), optimisers)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [row(20), row(40, 0.25)]
    found = curves(tmp_path)
    assert set(found.Tags()["scalars"]) == {
        "loss/total", "loss/rgb", "psnr", "gaussians/static", "gaussians/moving", "seconds",
        "rate/means", "rate/motion",
    }  # fmt: skip
    assert [(e.step, e.value) for e in found.Scalars("loss/total")] == [(20, 0.5), (40, 0.25)]
    assert found.Scalars("rate/means")[0].value == 0.25
    assert found.Images("preview/00003")[0].step == 40


def test_without_the_option_there_are_lines_only(tmp_path):
    with FitLog(tmp_path / "metrics.jsonl", 0, FitConfig()) as log:
        log.add(row(20))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_an_error_closes_the_logs_and_goes_on(tmp_path):
    with pytest.raises(ValueError, match="diverged"):
        with FitLog(tmp_path / "metrics.jsonl", 0, FitConfig(log=("tensorboard",))) as log:
            log.add(row(20))
            raise ValueError("diverged")
    log.add(row(40))  # as where an interrupted fit is asked once more
    assert [e.step for e in curves(tmp_path).Scalars("psnr")] == [20]


def test_a_return_drops_lines_of_later_steps(tmp_path):
    with FitLog(tmp_path / "metrics.jsonl", 0, FitConfig()) as log:
        for step in (20, 40, 60):
            log.add(row(step))
        log.go_back(40)
        assert log.last == row(40)
        log.add(row(60, 0.75))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(20, 0.5), (40, 0.5), (60, 0.75)]


def test_logging_is_no_part_of_the_fit(plane_scene):
    """A fit may be resumed with other logs."""
    scene = Scene(plane_scene.directory)
    assert fingerprint(scene, FitConfig()) == fingerprint(scene, FitConfig(log=("tensorboard",)))
