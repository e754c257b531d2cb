"""The small network that comes with msdyn: what it promises on scenes that it has not seen."""

from dataclasses import replace

import pytest
import torch

from msdyn.cli import predict
from msdyn.feedforward.pretrained import DEFAULT_MODEL, find_model, model_names
from msdyn.feedforward.training.curriculum import small_on_cpu
from msdyn.feedforward.training.evaluation import evaluate, unseen_batches
from msdyn.sequence import load_sequence
from msdyn.synthetic import make_scene, render_truth, write_truth


def test_it_is_there_and_says_what_it_is():
    assert DEFAULT_MODEL in model_names()
    found = find_model(DEFAULT_MODEL)
    assert found.path.stat().st_size < 8e6
    assert "demonstration" in found.note and found.licence == "Apache-2.0"
    assert found.long_side == 64 and found.frames == 4
    assert all(torch.isfinite(value).all() for value in found.load().state_dict().values())


@pytest.mark.slow
def test_depth_motion_and_images_of_unseen_scenes():
    model = find_model(DEFAULT_MODEL).load()
    last = small_on_cpu(1).stages[-1]
    options = replace(last.batch, scenes=4, queries=2, query_times="random", targets=True)
    figures = evaluate(model, unseen_batches(last.scenes, options, 16))
    assert figures["epe"] < 0.67 * figures["epe_zero"]
    assert figures["epe_static"] < 0.1 * figures["epe_zero"]
    assert figures["absrel"] < 0.5 * figures["absrel_constant"]
    assert figures["psnr"] > figures["psnr_without_motion"]
    assert figures["psnr"] > figures["psnr_nearest"]


def test_the_command_uses_it_by_default(tmp_path, capsys):
    truth = render_truth(make_scene("two-boxes", frames=13, width=96, height=72))
    folder = write_truth(truth, tmp_path / "scene")
    assert predict.main([str(folder)]) == 0
    assert "demonstration" in capsys.readouterr().out
    sequence = load_sequence(folder, source="predict")
    assert len(sequence.static) > 500 and len(sequence.timeline) == 13
