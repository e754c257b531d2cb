"""The training loop: resuming, stages, and steps without finite gradients."""

import dataclasses
import json

import pytest
import torch

from msdyn.errors import InputError
from msdyn.feedforward import ModelConfig, load_model
from msdyn.feedforward.scenes.render import BatchOptions
from msdyn.feedforward.training.config import Stage, TrainingConfig
from msdyn.feedforward.training.loop import Trainer
from msdyn.feedforward.training.objective import LossWeights

TINY = dataclasses.replace(
    ModelConfig.small(),
    width=16,
    encoder_blocks=1,
    encoder_heads=2,
    position_grid=2,
    pairs=2,
    heads=2,
    head_layers=(0, 0, 1, 1),
    head_channels=(4, 4, 8, 8),
    head_features=8,
    correlation=True,
    detail=True,
)
BATCH = BatchOptions(scenes=1, frames=2, size=16, queries=2)
STAGES = (
    Stage("matches", 1.0, LossWeights(depth=0.0, motion=0.0), batch=BATCH),
    Stage("motion", 1.0, LossWeights(log_depth=1.0, distribution=1.0), batch=BATCH),
    Stage("rendering", 1.0, LossWeights(rendering=1.0), batch=BATCH),
)
CONFIG = TrainingConfig(TINY, STAGES, steps=9, warmup=2, log_every=3, save_every=4)


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_resuming_is_bit_for_bit(tmp_path):
    whole = Trainer(CONFIG)
    whole.run(tmp_path / "whole")
    first = Trainer(CONFIG)
    first.run(tmp_path / "parts", until=5)
    second = Trainer(dataclasses.replace(CONFIG))
    second.restore(tmp_path / "parts" / "checkpoint.pt")
    assert second.step == 5
    second.run(tmp_path / "parts")
    assert torch.equal(weights(whole), weights(second))


def test_a_run_leaves_weights_and_a_log(tmp_path):
    trainer = Trainer(CONFIG)
    trainer.run(tmp_path, watch=lambda trainer, records: {"epe": 1.0})
    model = load_model(tmp_path / "model.safetensors")
    assert model.config == TINY
    assert torch.equal(torch.cat([p.flatten() for p in model.parameters()]), weights(trainer))
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    stages = [entry["stage"] for entry in entries if "stage" in entry]
    assert stages == ["matches", "motion", "rendering"]
    assert [entry["step"] for entry in entries if "unseen" in entry] == [4, 8, 9]
    assert {"match", "depth", "log_depth", "motion", "distribution"} < set(entries[2])


def test_the_rate_warms_up_and_falls_to_zero():
    assert CONFIG.rate_factor(0) == pytest.approx(0.5)
    assert CONFIG.rate_factor(1) < 1
    assert CONFIG.rate_factor(9) == pytest.approx(0)


def test_a_step_without_finite_gradient_changes_nothing_and_many_stop(tmp_path):
    trainer = Trainer(dataclasses.replace(CONFIG, bad_steps=3, steps=100))
    trainer.model.aggregator.camera_token.data.fill_(float("nan"))
    trainer.step = 50
    before = weights(trainer).nan_to_num(7)
    trainer.train_step()
    assert trainer.skipped == 1
    assert torch.equal(weights(trainer).nan_to_num(7), before)
    with pytest.raises(InputError, match="no finite gradient in 3 steps"):
        trainer.run(tmp_path)


def test_a_run_starts_from_given_weights(tmp_path):
    Trainer(CONFIG).save(tmp_path)
    config = dataclasses.replace(CONFIG, seed=1, initial=str(tmp_path / "model.safetensors"))
    assert torch.equal(weights(Trainer(config)), weights(Trainer(CONFIG)))
    assert not torch.equal(
        weights(Trainer(dataclasses.replace(config, initial=None))), weights(Trainer(CONFIG))
    )


def test_stages_of_fewer_steps_than_batches_are_used(tmp_path):
    """A stage may begin and end between the steps at which batches are new."""
    stages = tuple(dataclasses.replace(stage, reuse=5) for stage in CONFIG.stages)
    trainer = Trainer(dataclasses.replace(CONFIG, stages=stages, steps=4))
    assert trainer.config.ends == [1, 3, 4]
    trainer.run(tmp_path)
    assert trainer.step == 4
