"""What it takes to add a depth backend: one module, named in MSDYN_PLUGINS."""

import sys

import numpy as np
import pytest
from small_clip import FRAMES

from msdyn.cli.preprocess import main
from msdyn.errors import InputError
from msdyn.preprocess import PreprocessConfig, registry
from msdyn.preprocess.checkpoints.huggingface import CHECKPOINTS
from msdyn.preprocess.depth import networks
from msdyn.scene import Scene, check_scene

TOY_DEPTH = '''
"""A plane that moves away, at a depth of 3, 4, ... in frames 0, 1, ..."""

from dataclasses import dataclass

import numpy as np

from msdyn.preprocess import Backend, DepthMap, DepthResult, Streamed, register_backend


@register_backend("depth", "toy", needs=("frames", "cameras"))
@dataclass(frozen=True)
class ToyDepth(Backend):
    nearest: float = 3.0

    def estimate(self, scene, tracks, masks, solution):
        assert tracks is None and masks is None and solution.motion == "unknown"
        assert len(solution.cameras) == len(scene)

        def maps():
            for frame in range(len(scene)):
                depth = np.full(scene.size, self.nearest + frame, np.float32)
                yield DepthMap(depth, np.full(scene.size, 200, np.uint8))
            return {"known": 1.0}

        return DepthResult(Streamed(maps()))
'''

TOY_NETWORK = '''
"""A network that knows the small clip, a wall at a depth of 2, but for scale and shift."""

import numpy as np

from msdyn.preprocess import register_depth_network
from msdyn.preprocess.checkpoints.huggingface import CHECKPOINTS, Checkpoint
from msdyn.preprocess.checkpoints.placement import Placement

CHECKPOINTS["someone/toy"] = Checkpoint("someone/toy", "MIT", True, 1)


@register_depth_network("toy-network", model="someone/toy")
class ToyNetwork:
    metric = False
    placement = Placement("cpu", False, 4)

    def __init__(self, model, *, offline, device):
        self.scale = {"someone/toy": 5.0, "someone/other": 7.0}[model]
        assert offline and device == {"someone/toy": "auto", "someone/other": "cpu"}[model]

    def predict(self, images):
        ramp = np.linspace(0, 0.01, images.shape[2], dtype=np.float32)
        return self.scale * (0.5 + 0 * images[..., 0].astype(np.float32) + ramp)
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Return what makes a module and names it in the environment; it is forgotten afterwards."""
    for stage in registry._SPECS:
        # Those of msdyn, which are imported once, are to be there afterwards too.
        monkeypatch.setitem(registry._SPECS, stage, registry.backends(stage))
    monkeypatch.setattr(networks, "_NETWORKS", dict(networks._NETWORKS))

    def make(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("MSDYN_PLUGINS", name)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return make


def command(config, *more):
    return [
        str(config.video), "--out", str(config.out), "--preset", "offline", "--cameras", "files",
        "--cameras-path", str(config.cameras_path), *more,
    ]  # fmt: skip


def test_a_depth_backend_is_one_module(config, plugin, capsys):
    plugin("toy_depth", TOY_DEPTH)
    assert main(command(config, "--depth", "toy", "--accept-poor")) == 0
    scene = Scene(config.out)
    check_scene(scene)
    np.testing.assert_array_equal(scene.depths()[:, 0, 0], 3 + np.arange(FRAMES))
    record = scene.info.stages["depth"]
    assert (record["backend"], record["model"], record["licence"]) == ("toy", None, None)
    assert record["options"] == {"nearest": 3.0} and record["quality"] == {"known": 1.0}
    assert len(list((config.out / "depth_confidence").iterdir())) == FRAMES
    assert "depth    toy " in capsys.readouterr().out
    # It depends on the cameras, and on nothing else.
    masks = (config.out / "masks").stat().st_mtime_ns
    before = (config.out / "depth" / "00000.npy").stat().st_mtime_ns
    assert main(command(config, "--depth", "toy", "--accept-poor", "--redo", "cameras")) == 0
    assert (config.out / "masks").stat().st_mtime_ns == masks
    assert (config.out / "depth" / "00000.npy").stat().st_mtime_ns > before


@pytest.mark.slow
def test_a_depth_network_is_one_class_and_a_checkpoint(config, plugin, monkeypatch, capsys):
    monkeypatch.setattr("msdyn.preprocess.checkpoints.huggingface.CHECKPOINTS", dict(CHECKPOINTS))
    plugin("toy_network", TOY_NETWORK)
    assert main(command(config, "--depth", "toy-network")) == 0
    scene = Scene(config.out)
    check_scene(scene)
    # Scale and shift are of the static points, triangulated with the true cameras.
    assert np.median(scene.depths()) == pytest.approx(2, rel=0.05)
    record = scene.info.stages["depth"]
    assert (record["backend"], record["model"]) == ("toy-network", "someone/toy")
    assert record["licence"] == "MIT" and record["quality"]["batch"] == 4
    own = {"name": "toy-network", "model": "someone/toy", "measure": True, "seed": 0}
    assert record["options"] == own and record["quality"]["measured"] > 0.5
    assert "note: depth by someone/toy (licence: MIT)" in capsys.readouterr().out
    other = ("--depth", "toy-network", "--depth-model", "someone/other", "--device", "cpu")
    assert main(command(config, *other)) == 0
    assert Scene(config.out).info.stages["depth"]["model"] == "someone/other"


def test_help_lists_plugins(plugin, capsys):
    plugin("toy_depth", TOY_DEPTH)
    with pytest.raises(SystemExit) as error:
        main(["--help"])
    assert error.value.code == 0
    text = "".join(capsys.readouterr().out.split())  # lines are wrapped
    names = "fused,toy,files,depth-anything,depth-anything-metric,depth-pro,feedforward,"
    assert f"--depth{{{names}small,zoedepth}}fused:" in text
    assert "alignedtothescaleofthecameras." in text


def test_an_unknown_name_exits_2(config, plugin, capsys):
    plugin("toy_depth", TOY_DEPTH)
    with pytest.raises(SystemExit) as error:
        main(command(config, "--depth", "toi"))
    assert error.value.code == 2
    assert "'toi'" in (text := capsys.readouterr().err) and "fused, toy, files" in text
    with pytest.raises(InputError, match="depth: expected one of fused, toy, .* got 'toi'") as said:
        PreprocessConfig(config.video, depth="toi")
    assert "\n" not in str(said.value)


def test_a_plugin_that_does_not_import_is_one_line(config, plugin, capsys):
    plugin("toy_depth", "import no_such_package")
    with pytest.raises(SystemExit) as error:
        main(command(config))
    assert error.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "MSDYN_PLUGINS: cannot import toy_depth" in text
