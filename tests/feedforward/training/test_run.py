"""Training in a folder, and the command."""

import dataclasses
import json
import shutil

import imageio.v3 as iio
import pytest
import torch
from feedforward.training.test_loop import CONFIG, TINY

from msdyn.cli import train as command
from msdyn.cli.clips import main as make_clips
from msdyn.errors import InputError
from msdyn.feedforward import ModelConfig, Movies, load_model
from msdyn.feedforward.pretrained import find_model
from msdyn.feedforward.training import curriculum, published, run
from msdyn.feedforward.training.command import TrainCommandConfig
from msdyn.feedforward.training.run import train


@pytest.fixture
def tiny(monkeypatch):
    """Few unseen scenes, and a tiny curriculum behind the command."""
    monkeypatch.setattr(run, "_UNSEEN", 4)
    monkeypatch.setattr(run, "_SHEET", 2)
    monkeypatch.setattr(
        curriculum,
        "small_on_cpu",
        lambda steps, seed: dataclasses.replace(CONFIG, steps=steps, seed=seed),
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
    assert "not a readable checkpoint of this run" in capsys.readouterr().err


def test_options_out_of_range(tmp_path):
    with pytest.raises(InputError, match="steps: expected at least 1, got 0"):
        TrainCommandConfig(tmp_path, steps=0)


def test_the_papers_stages_need_clips(tmp_path, capsys):
    assert command.main([str(tmp_path / "run"), "--recipe", "static"]) == 2
    assert "data: expected folders of clips" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        command.main([str(tmp_path / "run"), "--data", str(tmp_path)])
    assert "expected with one of the recipes static" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_stage_may_have_the_network_of_its_initial_weights(tmp_path):
    config = TrainCommandConfig(
        tmp_path, recipe="dynamic", data=(tmp_path,), network="initial", initial="small"
    )
    assert config.training.model == find_model("small").load().config
    assert config.training.model.correlation
    static = dataclasses.replace(config, recipe="static").training.model
    assert static.correlation and not static.motion
    with pytest.raises(InputError, match="network: expected --initial"):
        dataclasses.replace(config, initial=None).training  # noqa: B018


@pytest.mark.reliability
def test_the_papers_stages_follow_one_another(tmp_path, capsys, monkeypatch):
    """Static scenes, then dynamic ones from the weights of the static stage, on clips of ours."""
    monkeypatch.setattr(run, "_UNSEEN", 2)
    monkeypatch.setattr(run, "_SHEET", 1)
    monkeypatch.setattr(ModelConfig, "small", lambda: dataclasses.replace(TINY, patch=8))
    clips = tmp_path / "clips"
    assert make_clips(["random", str(clips), "--count", "3", "--seed", "1"]) == 0
    common = ["--network", "small", "--data", str(clips), "--validation", str(clips)]
    common += ["--steps", "2", "--scenes", "1", "--parts", "2", "--queries", "2", "--warmup", "1"]
    common += ["--frames", "2", "2", "--long-side", "32", "--device", "cpu"]
    static, dynamic = tmp_path / "static", tmp_path / "dynamic"
    assert command.main([str(static), "--recipe", "static", *common]) == 2
    assert "expected static clips" in capsys.readouterr().err
    shutil.rmtree(static)
    monkeypatch.setattr(
        published, "_CLIPS", published._CLIPS | {"static": published._CLIPS["views"]}
    )
    assert command.main([str(static), "--recipe", "static", *common]) == 0
    assert "motion of moving" not in capsys.readouterr().out
    trained = load_model(static / "model.safetensors")
    assert not trained.config.motion
    initial = ["--initial", str(static / "model.safetensors")]
    assert command.main([str(dynamic), "--recipe", "dynamic", *common, *initial]) == 0
    assert "motion of moving pixels" in capsys.readouterr().out
    model = load_model(dynamic / "model.safetensors")
    assert model.config.motion and model.config.time_token
    log = [json.loads(line) for line in (dynamic / "log.jsonl").read_text().splitlines()]
    assert log[-1]["unseen"]["epe_zero"] > 0
    # The encoder is frozen in the static stage only.
    torch.manual_seed(0)
    start = Movies(trained.config).encoder.state_dict()
    assert all(torch.equal(v, start[k]) for k, v in trained.encoder.state_dict().items())
    assert not all(torch.equal(v, start[k]) for k, v in model.encoder.state_dict().items())


def test_a_published_stage_is_the_papers():
    training = published.published_stage("resolution", 5000, ("clips",))
    clips = training.stages[0].clips
    assert clips.scenes * training.parts == 256
    assert (clips.frames, clips.long_side, clips.aspect, clips.patch) == (
        (2, 13), 518, (0.5, 2.0), 14
    )  # fmt: skip
    assert training.rate == 1e-5 and training.weight_decay == 0.05 and training.warmup == 1000
    with torch.device("meta"):
        names = [name for name, _ in Movies(training.model).named_parameters()]
    full = {name.split(".")[0] for name in names if training.part_factor(name) == 1}
    assert full == {"splat_head", "motion_splat_head", "aggregator", "motion_head"}
    assert training.part_factor("encoder.cls_token") == 0.1
    assert training.part_factor("motion_head.time_embed.weight") == 1
    assert training.part_factor("motion_head.norm.weight") == 0.1
