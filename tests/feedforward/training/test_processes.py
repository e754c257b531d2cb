"""Two processes do what one does with the batches of both."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from feedforward.training.train_tiny import CONFIGS, train

from msdyn.errors import InputError
from msdyn.feedforward import load_model
from msdyn.feedforward.training.loop import Trainer
from msdyn.feedforward.training.parallel import Processes

TESTS = Path(__file__).parents[2]
STEPS = CONFIGS["ddp"].steps


def in_two_processes(folder, how, until=STEPS):
    script = Path(__file__).with_name("train_tiny.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(script), str(folder), how, str(until)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
    }
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder):
    model = load_model(folder / "model.safetensors")
    return torch.cat([value.flatten() for value in model.parameters()])


@pytest.mark.reliability
@pytest.mark.parametrize("how", ["ddp", pytest.param("fsdp", marks=pytest.mark.reliability)])
def test_two_processes_minimise_the_loss_of_one_with_both_batches(how, tmp_path):
    """Also where a run that is divided is interrupted and resumed."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    train(alone, how, STEPS)
    if how == "fsdp":
        in_two_processes(shared, how, until=3)
        assert (shared / "checkpoint" / ".metadata").is_file()
        with pytest.raises(InputError, match="a divided network; go on with the --parallel"):
            Trainer(CONFIGS[how]).restore(shared / "checkpoint")
    in_two_processes(shared, how)
    ours, expected = log(shared), log(alone)
    assert [entry["step"] for entry in ours] == list(range(1, STEPS + 1))
    for entry, one in zip(ours, expected, strict=True):
        assert entry.keys() == one.keys()
        for name in entry.keys() - {"seconds_per_step", "stage"}:
            assert entry[name] == pytest.approx(one[name], rel=1e-3, abs=1e-5), (one["step"], name)
    # Adam turns rounding errors of gradients near zero into steps of up to the learning rate.
    error = (weights(shared) - weights(alone)).abs()
    assert error.mean() < 1e-5 and error.max() < STEPS * CONFIGS[how].rate


def test_parts_are_divided_evenly():
    assert list(Processes(rank=1, count=2).own_parts(6)) == [1, 3, 5]
    with pytest.raises(InputError, match="parts: expected a multiple of the 2 processes, got 3"):
        Processes(count=2).own_parts(3)


def test_a_network_with_matches_is_not_divided():
    config = dataclasses.replace(CONFIGS["ddp"], steps=1)
    with pytest.raises(InputError, match="without correlation for fsdp"):
        Trainer(config, Processes(count=2, how="fsdp"))


def test_the_gradient_of_two_parts_is_that_of_a_double_batch():
    """Each part is a batch of its own generator: their mean is the loss of all their scenes."""
    trainer = Trainer(CONFIGS["ddp"])
    stage = dataclasses.replace(trainer.config.stages[1], weights=CONFIGS["ddp"].stages[2].weights)
    values = [trainer._add_gradient(stage, part) for part in (0, 1)]
    both = {p: p.grad.clone() for p in trainer.model.parameters() if p.grad is not None}
    for part in (0, 1):
        trainer.optimiser.zero_grad()
        assert trainer._add_gradient(stage, part) == values[part]
        for parameter, gradient in both.items():
            if parameter.grad is not None:
                gradient.sub_(parameter.grad)
    assert max(float(gradient.abs().max()) for gradient in both.values()) < 1e-6
