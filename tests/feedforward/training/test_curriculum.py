"""The curricula of the small network: where they start, and that every stage can be trained."""

from dataclasses import replace

import pytest
import torch

from msdyn.feedforward import Movies
from msdyn.feedforward.pretrained import find_model
from msdyn.feedforward.training.curriculum import (
    medium_on_gpu,
    small_continued,
    small_on_cpu,
)
from msdyn.feedforward.training.loop import Trainer


def test_the_continued_network_starts_from_the_one_of_msdyn():
    model = Trainer(small_continued(10)).model
    given = find_model("small").load().state_dict()
    own = model.state_dict()
    assert own.keys() == given.keys()
    assert all(torch.equal(own[name], value) for name, value in given.items())


@pytest.mark.slow
@pytest.mark.parametrize("curriculum", [small_on_cpu, small_continued, medium_on_gpu])
def test_every_stage_can_be_trained(curriculum):
    config = curriculum(1)
    for stage in dict.fromkeys(config.stages):
        heights = (16,) if stage.batch.heights else ()
        batch = replace(stage.batch, scenes=2, frames=3, size=32, heights=heights)
        trainer = Trainer(replace(config, stages=(replace(stage, batch=batch),)))
        values = trainer.train_step()
        assert trainer.skipped == 0
        expected = {
            name for name in ("match", "log_depth", "motion") if getattr(stage.weights, name)
        }
        assert expected <= values.keys()


def test_the_medium_network_is_a_file_of_less_than_16_mib():
    with torch.device("meta"):
        model = Movies(medium_on_gpu(1).model)
    assert sum(value.numel() for value in model.parameters()) < 8 * 2**20
