"""Offline commands open no socket beyond this computer, and look up no name."""

import shutil
import socket
from urllib.request import urlopen

import numpy as np
import pytest
from network_guard import Guard

from msdyn.cli import evaluate, export, fit, render
from msdyn.cli import view as view_command
from msdyn.cli.preprocess import main as preprocess
from msdyn.io import write_video
from msdyn.preprocess.checkpoints.huggingface import load_pretrained

GUARD = Guard()


@pytest.fixture
def guarded():
    """Fail if anything is tried during a test."""
    with GUARD:
        yield
    assert GUARD.found == []


def test_the_guard_sees_what_is_tried():
    """So that the tests below can fail."""
    with GUARD:
        for attempt in (
            lambda: socket.create_connection(("203.0.113.1", 80), 0.1),
            lambda: socket.getaddrinfo("msdyn.invalid", 80),
            lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("203.0.113.1", 9)),
            lambda: urlopen("http://msdyn.invalid/", timeout=0.1),
        ):
            with pytest.raises(OSError, match="refused"):
                attempt()
        assert len(GUARD.found) == 4
        pytest.importorskip("transformers")
        with pytest.raises(Exception, match="cannot be loaded"):
            load_pretrained("Sam2VideoModel", "facebook/sam2.1-hiera-tiny", offline=True)
        assert len(GUARD.found) == 4


def test_fit_and_what_reads_it(plane_scene, guarded, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    scene = str(plane_scene.directory)
    options = ["--preset", "quick", "--epochs", "1", "--prefit-steps", "2", "--device", "cpu"]
    assert fit.main([scene, *options]) == 0
    assert render.main([scene, "--path", "auto", "--out", f"{scene}/a.mp4", "--fps", "5"]) == 0
    for kind in ("ply", "html", "report", "tracks"):
        assert export.main([scene, "--format", kind]) == 0
    assert evaluate.main([scene, "--no-pictures"]) == 0


def test_the_viewer_starts(fitted_plane_scene, tmp_path, guarded):
    scene = shutil.copytree(fitted_plane_scene, tmp_path / "scene")
    viewer = view_command.open_viewer(view_command.ViewConfig(scene, port=0))
    try:
        with urlopen(viewer.address) as page:
            assert page.status == 200
    finally:
        viewer.stop()


@pytest.mark.parametrize("stages", [("frames", "tracks")])
def test_preprocessing_with_the_preset_offline(tmp_path, guarded, monkeypatch, stages):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    images = np.random.default_rng(0).integers(0, 255, (8, 48, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "clip.mp4", iter(images), 10)
    only = [word for stage in stages for word in ("--only", stage)]
    assert preprocess([str(tmp_path / "clip.mp4"), "--out", str(tmp_path / "scene"),
                       "--preset", "offline", *only]) in (0, 3)  # fmt: skip
