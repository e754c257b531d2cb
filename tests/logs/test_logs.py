"""Logs of runs: TensorBoard's files read back, and what wandb and trackio are asked to do."""

import json
import logging
import os
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from msdyn.cli import fit as fit_command
from msdyn.cli import train as train_command
from msdyn.errors import InputError, MissingExtraError
from msdyn.logs import (
    LoggedRun,
    installed_logs,
    log_names,
    open_logs,
    register_log,
    registry,
    require_logs,
)

PICTURE = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
CONFIG = {"epochs": 5, "rate": {"means": 1e-3}}


def run(folder, step=0):
    return LoggedRun("msdyn-fit", folder / "scene/fit", CONFIG, step)


def events(folder):
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = module.EventAccumulator(str(folder / "scene/fit/tensorboard"))
    accumulator.Reload()
    return accumulator


def test_tensorboard_has_curves_pictures_and_options(tmp_path):
    with open_logs(["tensorboard"], run(tmp_path)) as logs:
        logs.scalars({"loss/total": 0.5, "psnr": float("nan")}, 20)
        logs.scalars({"loss/total": 0.25, "psnr": 30.0}, 40)
        logs.picture("preview", PICTURE, 40)
        # What has been logged is there while the run goes on: a crash loses nothing of it.
        found = events(tmp_path)
        assert [(e.step, e.value) for e in found.Scalars("loss/total")] == [(20, 0.5), (40, 0.25)]
        assert [(e.step, e.value) for e in found.Scalars("psnr")] == [(40, 30.0)]
    image = events(tmp_path).Images("preview")[0]
    assert (image.width, image.height, image.step) == (6, 4, 40)
    text = events(tmp_path).Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "epochs: 5" in text and not (tmp_path / "scene/fit/logs.json").exists()


class Calls(list):
    """What a stand-in for a package was asked to do."""

    def named(self, name):
        return [call[1:] for call in self if call[0] == name]


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for wandb with the names that we use."""
    calls, module = Calls(), ModuleType("wandb")
    handle = SimpleNamespace(
        log=lambda values, **more: calls.append(("log", values, more)),
        define_metric=lambda name, **more: calls.append(("metric", name, more)),
        finish=lambda: calls.append(("finish",)),
    )

    def init(**options):
        calls.append(("init", options, os.environ.get("WANDB_ERROR_REPORTING")))
        return handle

    module.init, module.Image = init, lambda image: ("image", image.shape)
    module.Settings = lambda **options: options
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")  # so that it is set back
        monkeypatch.delenv(name)
    return calls


@pytest.fixture
def trackio(monkeypatch):
    """A stand-in for trackio with the names that we use."""
    calls, module = Calls(), ModuleType("trackio")
    handle = SimpleNamespace(log=lambda values, step: calls.append(("log", values, step)))

    def init(**options):
        print("* Trackio project initialized")
        calls.append(("init", options))
        return handle

    module.init, module.Image = init, lambda image: ("image", image.shape)
    module.finish = lambda: calls.append(("finish",))
    monkeypatch.setitem(sys.modules, "trackio", module)
    monkeypatch.delenv("TRACKIO_PROJECT", raising=False)
    return calls


def test_wandb_stays_offline_and_records_nothing_of_the_machine(tmp_path, wandb, monkeypatch):
    with open_logs(["wandb"], run(tmp_path)) as logs:
        logs.scalars({"psnr": 30.0}, 40)
        logs.scalars({"psnr": 29.0}, 20)  # after a return to an earlier state
        logs.picture("preview", PICTURE, 40)
    ((options, reports),) = wandb.named("init")
    assert options["mode"] == "offline" and reports == "false"
    assert options["config"] == CONFIG and options["project"] == "msdyn-fit"
    assert options["dir"] == str(tmp_path / "scene/fit") and options["resume"] == "allow"
    assert options["name"] == f"scene-{options['id']}"
    off = ("save_code", "x_save_requirements", "host")
    on = ("disable_git", "disable_code", "x_disable_stats", "x_disable_meta")
    assert not any(options["settings"][name] for name in off)
    assert all(options["settings"][name] for name in on)
    # Steps are an axis of our own: wandb's drops what comes after a return.
    assert ("*", {"step_metric": "step"}) in wandb.named("metric")
    values = [call[0] for call in wandb.named("log")]
    assert values[:2] == [{"psnr": 30.0, "step": 40}, {"psnr": 29.0, "step": 20}]
    assert values[2] == {"preview": ("image", (4, 6, 3)), "step": 40}
    assert all(more == {} for _, more in wandb.named("log")) and len(wandb.named("finish")) == 1
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "true")
    open_logs(["wandb"], run(tmp_path)).close()
    options, reports = wandb.named("init")[-1]
    assert options["mode"] == "online" and reports == "true"  # where the user says so


def test_trackio_logs_in_its_database_and_says_nothing(tmp_path, trackio, capsys):
    with open_logs(["trackio"], run(tmp_path)) as logs:
        logs.scalars({"psnr": 30.0}, 40)
        logs.picture("preview", PICTURE, 40)
    ((options,),) = trackio.named("init")
    assert options["project"] == "msdyn-fit" and options["resume"] == "allow"
    assert options["config"] == CONFIG and options["name"].startswith("scene-")
    assert not (options["embed"] or options["auto_log_cpu"] or options["auto_log_gpu"])
    assert not {"space_id", "server_url", "webhook_url"} & set(options)
    assert trackio.named("log") == [({"psnr": 30.0}, 40), ({"preview": ("image", (4, 6, 3))}, 40)]
    assert len(trackio.named("finish")) == 1 and capsys.readouterr().out == ""


def test_a_run_that_goes_on_is_the_same_run(tmp_path, wandb, trackio):
    names = ["wandb", "trackio"]
    for step in (0, 400, 0):
        open_logs(names, run(tmp_path, step)).close()
    numbers = [options["id"] for options, _ in wandb.named("init")]
    assert numbers[0] == numbers[1] != numbers[2]
    runs = [options["name"] for (options,) in trackio.named("init")]
    assert runs[0] == runs[1] != runs[2]
    # One that had no such log until now, or whose file is damaged, begins one.
    (tmp_path / "scene/fit/logs.json").write_text('{"wandb": "../x", "trackio": 3}')
    open_logs(names, run(tmp_path, 400)).close()
    assert wandb.named("init")[-1][0]["id"].isalnum()
    assert set(json.loads((tmp_path / "scene/fit/logs.json").read_text())) == set(names)


def test_a_log_that_fails_costs_only_itself(tmp_path, wandb, trackio, monkeypatch, caplog):
    def fails(**options):
        raise OSError("disk\nfull")

    monkeypatch.setattr(sys.modules["wandb"], "init", fails)
    with caplog.at_level(logging.WARNING), open_logs(["wandb", "trackio"], run(tmp_path)) as logs:
        assert len(logs) == 1
        logs.scalars({"psnr": 30.0}, 20)
        monkeypatch.setattr(sys.modules["trackio"], "Image", fails)
        logs.picture("preview", PICTURE, 20)
        logs.scalars({"psnr": 30.0}, 40)
    assert caplog.messages == [
        "warning: the log of wandb is not written: disk full",
        "warning: the log of trackio ends here: test_a_log_that_fails_costs_only_itself.<locals>."
        "fails() takes 0 positional arguments but 1 was given",
    ]
    assert len(trackio.named("log")) == 1


def test_an_interruption_is_not_swallowed(tmp_path, wandb, monkeypatch):
    def interrupted(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["wandb"], "init", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_logs(["wandb"], run(tmp_path))


@pytest.mark.parametrize("name, install", [("wandb", "wandb"), ("trackio", "trackio"),
                                           ("tensorboard", "train")])  # fmt: skip
def test_a_missing_package_is_named_before_any_work(name, install, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)
    assert installed_logs([name]) == ()
    (tmp_path / "scene.json").write_text("{}")
    for main, folder in ((fit_command.main, tmp_path), (train_command.main, tmp_path / "out")):
        assert main([str(folder), "--log", name]) == 2
        error = capsys.readouterr().err
        assert error == (
            f"error: --log {name}: {name} is not installed: pip install 'msdyn[{install}]'\n"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["scene.json"]
    with pytest.raises(MissingExtraError):
        open_logs([name], run(tmp_path))


def test_logs_by_name(tmp_path, monkeypatch):
    assert log_names() == ("tensorboard", "trackio", "wandb")
    with pytest.raises(InputError, match="log: expected one of tensorboard, trackio, wandb, got"):
        require_logs(["mlflow"])
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    seen = []

    @register_log("toy", package="json", install="pip install toy")
    class Toy:
        def __init__(self, run):
            seen.append(run.step)

        def scalars(self, values, step):
            seen.append((values, step))

        def close(self):
            seen.append("closed")

    assert "toy" in log_names()
    with open_logs(["toy", "toy"], run(tmp_path, 5)) as logs:
        logs.scalars({"a": 1}, 6)
    assert seen == [5, ({"a": 1.0}, 6), "closed"]
    open_logs([], run(tmp_path)).scalars({"a": 1}, 6)  # nothing happens


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_packages_themselves(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip(name)
    for step in (0, 20):
        with open_logs([name], run(tmp_path, step)) as logs:
            logs.scalars({"loss/total": 0.5}, step + 20)
            logs.picture("preview", PICTURE, step + 20)
            assert len(logs) == 1
    found = list((tmp_path / "scene/fit/wandb").glob("offline-run-*/run-*.wandb"))
    found += list((tmp_path / "trackio").glob("*.db"))
    assert found
