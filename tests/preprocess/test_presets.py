"""Which backend is chosen where the user names none, why, and that it stays chosen."""

import dataclasses
import shutil

import pytest
from small_clip import FRAMES
from tiny_models import save_depth_anything, save_sam2

from msdyn.cli.preprocess import main
from msdyn.errors import InputError
from msdyn.preprocess import WITHOUT_WEIGHTS, PreprocessConfig, preprocess_video, presets
from msdyn.preprocess.checkpoints.huggingface import CHECKPOINTS, Availability
from msdyn.scene import Scene, check_scene, read_cameras, write_cameras


def choose(config, record=lambda stage: None):
    config, choices = presets.choose_backends(config, record)
    backends = {stage: choice.backend for stage, choice in choices.items()}
    return config, choices, backends


@pytest.fixture
def reach(monkeypatch):
    """Set which checkpoints can be had."""

    def set_to(*models, how="cached"):
        def find(model, *, offline):  # of the hub, and of pinned files
            good = model in models and (how != "online" or not offline)
            return Availability(how if good else "no", "here" if good else "nowhere")

        monkeypatch.setattr(presets, "find_checkpoint", find)
        monkeypatch.setattr(presets, "find_pinned", find)
        monkeypatch.setattr(
            presets, "find_cotracker", lambda *, offline: find("cotracker", offline=offline)
        )

    return set_to


SMALL = ("depth-anything/Depth-Anything-V2-Small-hf", "facebook/sam2.1-hiera-tiny")
LARGE = ("depth-anything/Depth-Anything-V2-Large-hf", "facebook/sam2.1-hiera-large")


def test_without_any_model_nothing_needs_weights(reach, tmp_path):
    reach()
    for preset in ("auto", "offline", "best"):
        config, choices, backends = choose(PreprocessConfig(tmp_path / "v.mp4", preset=preset))
        assert backends == WITHOUT_WEIGHTS
        assert "nowhere" in choices["depth"].why and choices["depth"].preset == preset
        assert config.depth == "fused" and config.depth_model is None


def test_auto_takes_free_models_and_best_the_largest(reach, tmp_path):
    reach(*SMALL, *LARGE, "cotracker")
    config, choices, backends = choose(PreprocessConfig(tmp_path / "v.mp4"))
    assert backends == WITHOUT_WEIGHTS | {"depth": "depth-anything", "masks": "sam2"}
    assert (config.depth_model, config.masks_model) == SMALL
    config, choices, backends = choose(PreprocessConfig(tmp_path / "v.mp4", preset="best"))
    assert backends["tracks"] == "cotracker" and (config.depth_model, config.masks_model) == LARGE
    assert "CC-BY-NC-4.0, forbids commercial use" in choices["depth"].why
    assert "forbids" not in choices["masks"].why


def test_the_small_network_is_taken_where_no_better_one_can_be_had(reach, tmp_path):
    video = tmp_path / "v.mp4"
    reach("tcmonodepth-small")
    for preset in ("auto", "offline", "best"):
        config, choices, backends = choose(PreprocessConfig(video, preset=preset))
        assert backends == WITHOUT_WEIGHTS | {"depth": "small"}
        assert config.depth_model == "tcmonodepth-small" and "here" in choices["depth"].why
    reach("tcmonodepth-small", *SMALL)
    assert choose(PreprocessConfig(video))[2]["depth"] == "depth-anything"
    reach("tcmonodepth-small", how="online")
    assert choose(PreprocessConfig(video, preset="offline"))[2] == WITHOUT_WEIGHTS


def test_offline_takes_only_what_is_on_the_disk(reach, tmp_path):
    reach(*SMALL, how="online")
    assert choose(PreprocessConfig(tmp_path / "v.mp4"))[2]["masks"] == "sam2"
    config = PreprocessConfig(tmp_path / "v.mp4", preset="offline")
    assert choose(config)[2] == WITHOUT_WEIGHTS


def test_what_the_user_names_is_taken(reach, tmp_path):
    reach(*SMALL)
    config = PreprocessConfig(tmp_path / "v.mp4", masks="motion", depth="depth-pro")
    config, choices, backends = choose(config)
    assert backends["masks"] == "motion" and config.depth_model == "apple/DepthPro-hf"
    assert choices["masks"].preset is None and choices["masks"].why == ""
    config = PreprocessConfig(tmp_path / "v.mp4", masks="sam2", masks_model="/my/own")
    assert choose(config)[0].masks_model == "/my/own"


def test_a_choice_stays_with_its_directory(reach, tmp_path):
    reach(*SMALL)
    records = {
        "masks": {"backend": "motion", "model": None, "options": {"preset": "auto", "why": "x"}},
        "depth": {"backend": "fused", "model": None, "options": {}},  # the user's own, once
    }
    config = PreprocessConfig(tmp_path / "v.mp4")
    backends = choose(config, records.get)[2]
    assert backends["masks"] == "motion" and backends["depth"] == "depth-anything"
    for change in ({"redo": ("masks",)}, {"preset": "best"}):
        again = dataclasses.replace(config, **change)
        assert choose(again, records.get)[2]["masks"] == "sam2"


def test_phrases_choose_the_network_that_takes_them(reach, tmp_path):
    config = PreprocessConfig(tmp_path / "v.mp4", prompts="cup")
    reach(*SMALL, "facebook/sam3")
    chosen, choices, backends = choose(config)
    assert backends["masks"] == "sam3" and chosen.masks_model == "facebook/sam3"
    assert choices["masks"].why.startswith("takes the phrases of --prompts")
    own = dataclasses.replace(config, masks_model="/my/own")
    reach("/my/own")
    assert choose(own)[0].masks_model == "/my/own"
    # What is done is kept without looking; nothing else takes its place.
    reach()
    record = {"backend": "sam3", "model": "facebook/sam3", "options": {"preset": "auto"}}
    assert choose(config, {"masks": record}.get)[2]["masks"] == "sam3"
    motion = {"backend": "motion", "model": None, "options": {"preset": "auto"}}
    for records in ({}, {"masks": motion}):
        with pytest.raises(InputError, match="phrases needs sam3: facebook/sam3 is nowhere"):
            choose(config, records.get)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the hub with tiny twins of the small checkpoints, and no way to a network."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    for model, save in zip(SMALL, (save_depth_anything, save_sam2), strict=True):
        entry = folder / f"models--{model.replace('/', '--')}"
        revision = CHECKPOINTS[model].revision
        save(entry / "snapshots" / revision)
        (entry / "refs").mkdir()
        (entry / "refs" / "main").write_text(revision)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("a socket was opened"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return folder


@pytest.mark.slow
def test_offline_runs_on_cached_models_without_a_socket(cache, config, tmp_path, capsys):
    pytest.importorskip("transformers")
    # Of a static camera, which random depth does not contradict.
    still = read_cameras(config.cameras_path)[[0] * FRAMES]
    write_cameras(tmp_path / "still.json", still)
    config = dataclasses.replace(config, cameras_path=tmp_path / "still.json")
    arguments = [str(config.video), "--out", str(config.out), "--preset", "offline"]
    arguments += ["--cameras", "files", "--cameras-path", str(config.cameras_path)]
    assert main(arguments) == 3  # the networks are random
    assert "not one that a fit would do well on" in capsys.readouterr().out
    assert main([*arguments, "--accept-poor"]) == 0
    out = capsys.readouterr().out
    assert f"note: masks by {SMALL[1]} (licence: Apache-2.0)" in out
    assert f"note: depth by depth-anything: {SMALL[0]}: on this disk" in out
    scene = Scene(config.out)
    check_scene(scene)
    record = scene.info.stages["depth"]
    assert (record["backend"], record["model"]) == ("depth-anything", SMALL[0])
    assert record["licence"] == "Apache-2.0" and record["options"]["preset"] == "offline"
    assert "offline" not in record["options"]
    # Gone from the disk, what is done stays done.
    shutil.rmtree(cache)
    before = {p: p.stat().st_mtime_ns for p in config.out.rglob("*.npy")}
    same = {"depth": None, "depth_path": None, "preset": "offline", "world_units": "arbitrary"}
    preprocess_video(dataclasses.replace(config, **same))
    assert before == {p: p.stat().st_mtime_ns for p in config.out.rglob("*.npy")}
