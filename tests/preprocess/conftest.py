"""Fixtures of the tests of preprocessing."""

import dataclasses

import numpy as np
import pytest
import torch
from moving import panning, paste, texture, write_scene
from small_clip import Poor, write_small_clip

from msdyn.preprocess import PreprocessConfig, find_backend, pipeline, registry
from msdyn.preprocess.checkpoints import pinned
from msdyn.preprocess.tracks.chained_flow import FlowTracks


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Let no test ask the hub, except those marked `hub`, which set it back, nor find weights."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("MSDYN_WEIGHTS", raising=False)
    monkeypatch.setattr(pinned, "_cache", lambda: tmp_path / "weights-cache")


@pytest.fixture(autouse=True)
def one_thread():
    """Let torch use one thread: the networks are tiny, and threads that wait for a busy core cost
    ten times what they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A folder with clip.mp4, cameras.json and depth/. Tests must not write into it."""
    folder = tmp_path_factory.mktemp("clip")
    write_small_clip(folder)
    return folder


@pytest.fixture(scope="session")
def square(tmp_path_factory):
    """A scene of a square that slides over a panned background, and its tracks.

    The background moves by (1, .5) px a frame, the square by (3, 0). Tests must not write into it.
    """
    frames, _ = panning(14, (72, 96))
    sprite = texture(30, 30, seed=4)
    frames = [paste(image, sprite, (10 + 3 * t, 20))[0] for t, image in enumerate(frames)]
    scene = write_scene(tmp_path_factory.mktemp("square") / "scene", np.stack(frames))
    return scene, FlowTracks().track(scene).tracks


@pytest.fixture
def config(clip, tmp_path):
    return PreprocessConfig(
        clip / "clip.mp4",
        tmp_path / "scene",
        cameras="files",
        cameras_path=clip / "cameras.json",
        depth="files",
        depth_path=clip / "depth",
        world_units="metric",
    )


@pytest.fixture
def use_backend(monkeypatch):
    """Return what puts a backend in place of a registered one."""

    def use(stage, name, backend):
        spec = dataclasses.replace(find_backend(stage, name), make=lambda options: backend)
        monkeypatch.setitem(registry._SPECS[stage], name, spec)

    return use


@pytest.fixture
def poor(use_backend):
    """Let the defaults of cameras and depth be quick, and poor."""
    use_backend("cameras", "sfm", Poor())
    use_backend("depth", "fused", Poor())


@pytest.fixture
def ran(monkeypatch):
    """The stages that were run, in order."""
    stages = []
    forget = pipeline._Run._forget

    def note(self, stage):
        stages.append(stage)
        forget(self, stage)

    monkeypatch.setattr(pipeline._Run, "_forget", note)
    return stages
