"""Fixtures of the tests of preprocessing."""

import dataclasses

import pytest
from msdyn.preprocess import PreprocessConfig, pipeline
from msdyn.preprocess.backends import BACKENDS
from small_clip import Poor, write_small_clip


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Let no test ask the hub, except those marked `hub`, which set it back."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A folder with clip.mp4, cameras.json and depth/. Tests must not write into it."""
    folder = tmp_path_factory.mktemp("clip")
    write_small_clip(folder)
    return folder


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
def poor(monkeypatch):
    """Let the defaults of cameras and depth be quick, and poor."""
    for stage, name in (("cameras", "sfm"), ("depth", "fused")):
        spec = dataclasses.replace(BACKENDS[stage][name], make=lambda config: Poor())
        monkeypatch.setitem(BACKENDS[stage], name, spec)


@pytest.fixture
def ran(monkeypatch):
    """The stages that were run, in their order."""
    stages = []
    forget = pipeline._Run._forget

    def note(self, stage):
        stages.append(stage)
        forget(self, stage)

    monkeypatch.setattr(pipeline._Run, "_forget", note)
    return stages
