"""The ablations of the feed-forward network: what each row changes, and how rows are compared."""

import ablate_feedforward
import pytest
import torch

from msdyn.feedforward import Movies
from msdyn.feedforward.pretrained import find_model
from msdyn.writing import write_json


@pytest.mark.parametrize("name", list(ablate_feedforward.RUNS))
def test_rows_of_a_table_have_the_same_batches(name):
    config = ablate_feedforward.training_of(ablate_feedforward.RUNS[name], 0, None)
    ours = ablate_feedforward.RUNS[name.split("-")[0] + "-both"]
    reference = ablate_feedforward.training_of(ours, 0, None)
    assert config.steps == reference.steps and config.seed == reference.seed
    for stage, other in zip(config.stages, reference.stages, strict=True):
        assert (stage.scenes, stage.batch, stage.reuse) == (other.scenes, other.batch, other.reuse)


def test_only_the_rows_of_the_motion_losses_have_them():
    weights = {
        name: ablate_feedforward.training_of(run, 0, None).stages[-1].weights
        for name, run in ablate_feedforward.RUNS.items()
    }
    assert weights["motion-none"].motion == weights["motion-none"].distribution == 0
    assert weights["motion-pointwise"].distribution == 0 < weights["motion-pointwise"].motion
    assert 0 < weights["motion-distribution"].motion < 1e-6
    assert weights["motion-alone"] == weights["motion-both"]


def test_all_but_the_motion_starts_from_the_network_of_msdyn():
    config = ablate_feedforward.training_of(ablate_feedforward.RUNS["motion-both"], 0, None)
    model = Movies(config.model)
    ablate_feedforward.start_from_small(model, matching_only=False)
    given = find_model("small").load().state_dict()
    for name, value in model.state_dict().items():
        is_motion = name.startswith(("motion_head.", "motion_cue."))
        if not is_motion:
            assert torch.equal(value, given[name]), name
    assert not torch.equal(model.motion_cue.score.weight, given["motion_cue.score.weight"])


def test_rows_are_compared_image_by_image(tmp_path):
    def result(psnr):
        return {
            "steps": 1, "cpu_seconds": 1.0, "skipped": 0, "gradient_spread": 0.0,
            "last_losses": {}, "figures": {"psnr": sum(psnr) / len(psnr)},
            "images": {"psnr": psnr}, "machine": {"commit": "none"},
        }  # fmt: skip

    write_json(tmp_path / "camera-both-0.json", result([20.0, 30.0]))
    write_json(tmp_path / "camera-none-0.json", result([18.0, 29.0]))
    rows = ablate_feedforward.summarise(tmp_path)["rows"]
    assert rows["camera-none"]["minus_ours"]["psnr"]["mean"] == pytest.approx(-1.5)
    assert rows["camera-none"]["minus_ours"]["psnr"]["standard_error"] == pytest.approx(
        0.5 / 2**0.5
    )
    assert "minus_ours" not in rows["camera-both"]
