"""What it takes to add a motion model or a loss: one module, named in MSDYN_PLUGINS."""

import json
import os
import subprocess
import sys

import pytest
import torch

from msdyn.cli import fit, render
from msdyn.fit import step
from msdyn.motion import motion_names, registry
from msdyn.sequence import load_sequence

TOY_MOTION = '''
"""Every object moves along a line at constant velocity; a model with one vector per object."""

import torch
from torch import nn

from msdyn.motion import Motion, Pose, TrackedMotion, register_motion


@register_motion("toy")
class ToyMotion(Motion):
    def __init__(self, velocity, keys, label):
        super().__init__()
        self.velocity = nn.Parameter(velocity)  # [K, 3] per frame
        self.register_buffer("keys", keys)
        self.register_buffer("label", label)  # [G]

    @classmethod
    def from_tracks(cls, scene, config):
        tracks = scene.tracks
        count = int(tracks.object.max(initial=0)) + 1
        motion = cls(
            torch.zeros(count, 3), torch.as_tensor(scene.key_frames).float(),
            torch.from_numpy(tracks.object),
        )
        points = torch.from_numpy(tracks.xyz[:, scene.canonical]).float()
        return TrackedMotion(motion, points, torch.from_numpy(tracks.confidence).float())

    @property
    def key_frames(self):
        return self.keys

    def __len__(self):
        return len(self.label)

    def pose(self, points, quats_wxyz, frames, levels=None):
        shift = frames[:, None, None] * self.velocity[self.label] * (levels != 0)
        rotations = torch.eye(3).expand(len(frames), len(points), 3, 3)
        return Pose(rotations, points + shift, quats_wxyz.expand(len(frames), -1, -1))

    def undo(self, points, frame):
        return points - frame * self.velocity[self.label]

    def gaussian_parameters(self):
        return {}

    def gaussian_constants(self):
        return {"label": self.label}

    def set_gaussians(self, parameters, constants):
        self.label = constants["label"]

    def with_gaussians(self, parameters, constants):
        other = ToyMotion(self.velocity, self.keys, constants["label"])
        other.velocity = self.velocity
        return other

    def mixed(self, index, weights):
        return self.select(index[:, 0])

    def learning_rates(self, rates):
        return {"velocity": rates.translations}

    def rescaled(self, world):
        return ToyMotion(self.velocity.detach() * world.scale, self.keys, self.label)

    def tensors(self):
        return {"toy.velocity": self.velocity, "toy.keys": self.keys, "toy.label": self.label}

    @classmethod
    def from_tensors(cls, tensors, header):
        return cls(*(tensors[f"toy.{name}"] for name in ("velocity", "keys", "label")))
'''

TOY_LOSS = '''
"""The background is dark."""

from msdyn.fit import register_loss


@register_loss("dark", weight=0.5)
def dark(step):
    return (step.rgb * (1 - step.truth.moving[..., None])).mean()
'''

OPTIONS = ["--preset", "quick", "--device", "cpu", "--static-gaussians", "800",
           "--moving-gaussians", "200"]  # fmt: skip


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Return what makes a module and names it in the environment; it is forgotten afterwards."""
    registry.find_motion("hierarchy")  # imports those of msdyn, once
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    monkeypatch.setattr(step, "_LOSSES", dict(step._LOSSES))

    def make(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("MSDYN_PLUGINS", name)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return make


def test_a_motion_model_is_one_module(plane_scene, plugin, monkeypatch, capsys):
    plugin("toy_motion", TOY_MOTION)
    assert (
        fit.main([str(plane_scene.directory), "--motion", "toy", "--epochs", "12", *OPTIONS]) == 0
    )
    assert "toy" in motion_names()
    sequence = load_sequence(plane_scene.directory)
    assert sequence.motion.name == "toy" and sequence.num_levels == 1
    # The square moves by a pixel per frame at a depth of 1.5 and a focal length of 30.
    velocity = sequence.motion.velocity[1].detach()
    torch.testing.assert_close(velocity, torch.tensor([0.05 + 0.02, 0, 0]), atol=0.01, rtol=0)
    assert (plane_scene.directory / "fit" / "report.html").is_file()
    out = plane_scene.directory / "toy.png"
    assert render.main([str(plane_scene.directory), "--time", "0.5", "--out", str(out)]) == 0
    assert out.is_file()
    # In Python, too, the model of a file is found.
    read = f"import msdyn; print(msdyn.load_sequence({str(plane_scene.directory)!r}).motion.name)"
    found = subprocess.run(
        [sys.executable, "-c", read],
        env={**os.environ, "PYTHONPATH": str(plane_scene.directory.parent)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.split() == ["toy"]


def test_a_loss_is_one_module(plane_scene, plugin, capsys):
    plugin("toy_loss", TOY_LOSS)
    scene, means = str(plane_scene.directory), {}
    options = [*OPTIONS, "--epochs", "6", "--prefit-steps", "5"]
    for weight in ("0", "20"):
        out = plane_scene.directory / weight
        assert fit.main([scene, *options, "--out", str(out), "--loss.extra", "dark", weight]) == 0
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        assert all("dark" in row for row in rows)
        means[weight] = rows[-1]["dark"]
    assert means["20"] < 0.8 * means["0"]
    capsys.readouterr()
    assert fit.main([scene, *options, "--loss.extra", "drak", "1"]) == 2
    assert "no loss named drak; expected some of dark, depth" in capsys.readouterr().err


def test_a_plugin_that_is_not_there_is_one_line(plane_scene, monkeypatch, capsys):
    monkeypatch.setenv("MSDYN_PLUGINS", "no_such_module")
    with pytest.raises(SystemExit) as stop:
        fit.main([str(plane_scene.directory)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "MSDYN_PLUGINS: cannot import no_such_module" in error
