"""Estimates of fits, refusals before the work, and the end of a fit that holds too much memory."""

from dataclasses import replace

import pytest
import torch
from small_fits import config

from msdyn.errors import ResourceError
from msdyn.fit import MotionConfig, fit_scene, preset
from msdyn.fit.estimate import FitSize, announce_fit, estimate_fit, smaller_fits
from msdyn.memory import bytes_of
from msdyn.writing import LOCK

SIZE = FitSize(frames=100, width=384, height=288, tracks=2000)


@pytest.mark.parametrize(
    "more",
    [
        {"frames": 200},
        {"width": 768, "height": 576},
        {"tracks": 40_000},
    ],
)
def test_larger_scenes_take_more(more):
    base, other = (estimate_fit(size, preset("quick")) for size in (SIZE, replace(SIZE, **more)))
    assert other.memory > base.memory and (other.seconds or 0) > (base.seconds or 0)
    assert other.disk >= base.disk


def test_tracks_beyond_those_of_the_motion_take_no_more():
    """A longer clip has more tracks; the arrays of tracks and frames have a bound."""
    many, more = (replace(SIZE, tracks=tracks) for tracks in (40_000, 400_000))
    assert estimate_fit(many, preset("quick")) == estimate_fit(more, preset("quick"))


@pytest.mark.parametrize(
    "more",
    [
        {"static_gaussians": 200_000},
        {"moving_gaussians": 100_000},
        {"batch": 16},
        {"motion": MotionConfig(levels=4)},
        {"motion": MotionConfig(model="displacements")},
    ],
)
def test_larger_options_take_more_memory(more):
    base, other = (estimate_fit(SIZE, preset("quick", **changes)) for changes in ({}, more))
    assert other.memory > base.memory


def test_smaller_options_take_less():
    base = estimate_fit(SIZE, preset("paper"))
    options = dict(smaller_fits(SIZE, preset("paper")))
    assert {"--long-side 320", "--batch 1"} <= set(options) and "--long-side 384" not in options
    assert all(estimate.memory < base.memory for estimate in options.values())
    memory = [e.memory for name, e in options.items() if name.startswith("--long-side")]
    assert memory == sorted(memory, reverse=True)
    reduced = preset("paper", long_side=320)
    assert "--long-side 320" not in dict(smaller_fits(SIZE, reduced))


def test_what_is_named_fits():
    """The refused command with the named option is not refused again."""
    large = replace(SIZE, frames=200, width=1920, height=1080)
    limit = f"{0.7 * estimate_fit(large, preset('quick')).memory / 1e6:.0f}M"
    named = next(
        name
        for name, estimate in smaller_fits(large, preset("quick"))
        if estimate.memory <= bytes_of(limit)
    )
    option, side = named.split()
    assert option == "--long-side"
    assert estimate_fit(large, preset("quick", long_side=int(side))).memory <= bytes_of(limit)


def test_a_fit_that_would_need_more_is_refused_before_it_begins(plane_scene, tmp_path):
    options = config(tmp_path, max_memory="100M")
    message = r"^fit: about \d+ MB of memory would be needed, more than --max-memory 100M; even "
    with pytest.raises(ResourceError, match=message) as refused:
        fit_scene(plane_scene, options)
    assert refused.value.exit_code == 4 and not (tmp_path / "fit").exists()
    announce_fit(plane_scene, config(tmp_path, max_memory="100G"))


@pytest.fixture
def hold(monkeypatch):
    """Return a callback that lets the process hold 50 GB from a step of a fit on."""
    held = [0]
    monkeypatch.setattr("msdyn.memory._PERIOD", 0.0)
    monkeypatch.setattr("msdyn.memory.held_memory", lambda: held[0])

    def from_step(step):
        def watch(fitter):
            if fitter.step == step:
                held[0] = 50 * 10**9

        return watch

    yield from_step


def test_a_fit_that_holds_more_saves_its_steps_and_resumes_exactly(plane_scene, tmp_path, hold):
    whole = fit_scene(plane_scene, config(tmp_path, out=tmp_path / "whole"))
    with pytest.raises(ResourceError) as ended:
        fit_scene(plane_scene, config(tmp_path, max_memory="40G"), watch=hold(40))
    assert str(ended.value) == (
        "50 GB of memory are in use, more than --max-memory 40G; step 40 of 48 is saved, the same "
        "command resumes there, with a greater --max-memory"
    )
    assert ended.value.exit_code == 4 and not (tmp_path / "fit" / LOCK).exists()
    first = []
    resumed = fit_scene(
        plane_scene,
        config(tmp_path, max_memory="60G"),
        watch=lambda fitter: first.append(fitter.step),
    )
    assert first == [48]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    for name in ("checkpoint.safetensors", "sequence.safetensors"):
        whole_file, resumed_file = (tmp_path / out / name for out in ("whole", "fit"))
        assert whole_file.read_bytes() == resumed_file.read_bytes(), name


def test_a_scene_that_is_too_large_to_be_read_ends_the_fit(plane_scene, tmp_path, monkeypatch):
    monkeypatch.setattr("msdyn.memory._PERIOD", 0.0)
    monkeypatch.setattr("msdyn.memory.held_memory", lambda: 50 * 10**9)
    with pytest.raises(ResourceError, match="50 GB of memory are in use"):
        fit_scene(plane_scene, config(tmp_path, max_memory="40G"))
    assert not list(tmp_path.glob("fit/*"))


def test_the_pace_of_a_fit_is_said_once(plane_scene, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    monkeypatch.setattr("msdyn.fit.pace._PACE_SECONDS", 0.0)
    fit_scene(plane_scene, config(tmp_path, epochs=12))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("fit: about ")
    (line,) = [line for line in lines if "at the pace of" in line]
    assert line.startswith("fit: at the pace of steps 20 to 40, ") and line.endswith(" s more")
