"""Training in a folder, and the command."""

import dataclasses
import json

import imageio.v3 as iio
import pytest
import torch
from feedforward.training.test_loop import CONFIG

from msdyn.cli import train as command
from msdyn.errors import InputError
from msdyn.feedforward import load_model
from msdyn.feedforward.pretrained import find_model
from msdyn.feedforward.training import run
from msdyn.feedforward.training.run import TrainCommandConfig, train


@pytest.fixture
def tiny(monkeypatch):
    """Few unseen scenes, and a tiny curriculum behind the command."""
    monkeypatch.setattr(run, "_UNSEEN", 4)
    monkeypatch.setattr(run, "_SHEET", 2)
    monkeypatch.setattr(
        run, "small_on_cpu", lambda steps, seed: dataclasses.replace(CONFIG, steps=steps, seed=seed)
    )


def test_the_command_trains_resumes_and_refuses_other_options(tiny, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = [str(out), "--steps", "6", "--save-every", "3", "--device", "cpu"]
    assert command.main(arguments) == 0
    assert "PSNR at other times" in capsys.readouterr().out
    assert sorted(path.name for path in (out / "pictures").iterdir()) == [
        "000003.png",
        "000006.png",
    ]
    sheet = iio.imread(out / "pictures" / "000006.png")
    assert sheet.shape == (2 * 2 * 20, 14 * 20 * 2, 3) and sheet.std() > 20
    found = find_model(str(out / "model.safetensors"))
    assert found.long_side == 16 and found.frames == 2 and "demonstration" in found.note
    assert found.licence == "Apache-2.0" and found.about["training"]["steps"] == 6
    log = (out / "log.jsonl").read_text()
    assert command.main(arguments) == 0  # nothing is left to do
    assert (out / "log.jsonl").read_text() == log
    assert command.main([*arguments, "--seed", "1"]) == 2
    assert "has a run with other options" in capsys.readouterr().err


def test_an_interrupted_run_gives_the_same_weights(tiny, tmp_path):
    whole = TrainCommandConfig(tmp_path / "whole", steps=6, save_every=3, device="cpu")
    train(whole)
    parts = dataclasses.replace(whole, out=tmp_path / "parts")

    class Stop(Exception):
        pass

    saved = run.Trainer.save

    def save_and_stop(self, folder):
        saved(self, folder)
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Trainer, "save", save_and_stop)
        with pytest.raises(Stop):
            train(parts)
    train(parts)
    ours, theirs = (
        load_model(folder / "model.safetensors").state_dict() for folder in (parts.out, whole.out)
    )
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    record = json.loads((parts.out / "config.json").read_text())
    assert record["training"]["steps"] == 6


def test_an_interruption_keeps_the_steps_and_a_damaged_checkpoint_is_told(tiny, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = [str(out), "--steps", "6", "--save-every", "100", "--device", "cpu"]
    step = run.Trainer.train_step

    def interrupted(self):
        if self.step == 4:
            raise KeyboardInterrupt
        return step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Trainer, "train_step", interrupted)
        assert command.main(arguments) == 130
    assert find_model(str(out / "model.safetensors")).about["step"] == 4
    (out / "checkpoint.pt").write_bytes(b"rubbish")
    assert command.main(arguments) == 2
    assert "not a checkpoint of this run" in capsys.readouterr().err


def test_options_out_of_range(tmp_path):
    with pytest.raises(InputError, match="steps: expected at least 1, got 0"):
        TrainCommandConfig(tmp_path, steps=0)
