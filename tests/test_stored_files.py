"""Files written by an earlier release open, and look the same.

`stored/` was written by commit cb04b5b: a scene of 5 frames with all of its stages, the records of
a fit, one sequence per motion model, and the images that it rendered of them.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from msdyn.cli import preprocess, render
from msdyn.render import render_image
from msdyn.scene import Scene, check_scene
from msdyn.sequence import load_sequence

STORED = Path(__file__).parent / "stored"
MODELS = ("hierarchy", "single")


@pytest.fixture
def scene(tmp_path):
    return shutil.copytree(STORED / "scene", tmp_path / "scene")


def test_a_scene_directory_opens(scene, capsys):
    opened = Scene(scene)
    assert check_scene(opened).facts["clip"].startswith("5 frames of 72x54")
    assert list(opened.info.stages) == ["frames", "tracks", "masks", "cameras", "depth"]
    assert set(np.unique(opened.mask(2))) == {0, 1} and (opened.tracks.object == 1).any()
    assert opened.cameras.intrinsics[0, 0, 0] == 90 and (opened.depth(0) > 0).any()
    assert preprocess.main(["--check", str(scene)]) in (0, 3)  # read, and judged
    assert "static points" in capsys.readouterr().out


@pytest.mark.parametrize("model", MODELS)
def test_a_sequence_opens_and_looks_the_same(model):
    sequence = load_sequence(STORED / f"{model}.safetensors")
    assert sequence.num_levels == {"hierarchy": 3, "single": 1}[model]
    expected = np.load(STORED / "expected.npz")
    for time in (0.0, 0.43):
        posed = sequence.at(time)
        for name, tensor in (("means", posed.means), ("rotations", posed.rotations)):
            np.testing.assert_allclose(
                tensor.detach(), expected[f"{model}/{name}/{time}"], atol=1e-5
            )
        image = render_image(sequence, sequence.camera_at(time), time, order="own").rgb8
        difference = np.abs(image.astype(int) - expected[f"{model}/rgb/{time}"])
        assert difference.max() <= 1  # the last bit of a float may round the other way


@pytest.mark.parametrize("model", MODELS)
def test_a_command_takes_them(scene, tmp_path, model):
    shutil.copy(STORED / f"{model}.safetensors", scene / "fit" / "sequence.safetensors")
    out = tmp_path / "view.png"
    assert render.main([str(scene), "--time", "0.5", "--out", str(out)]) == 0
    assert out.is_file()
