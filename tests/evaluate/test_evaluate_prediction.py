"""`msdyn-eval --from predict` on a synthetic scene and on a sequence in DyCheck's layout."""

import numpy as np
import pytest
import torch
from clips import two_boxes

from msdyn.cli.evaluate import main as evaluate
from msdyn.cli.predict import main as predict
from msdyn.cli.preprocess import main as preprocess
from msdyn.evaluate import evaluate_targets, renderer_of, targets_of_views
from msdyn.feedforward import ModelConfig, Movies, save_model
from msdyn.io import write_dycheck
from msdyn.reading import read_json
from msdyn.scene import Scene
from msdyn.sequence import load_sequence
from msdyn.synthetic import write_truth


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """A synthetic scene and the same in DyCheck's layout, each with a prediction."""
    folder = tmp_path_factory.mktemp("predicted")
    torch.manual_seed(0)
    weights = folder / "random.safetensors"
    save_model(Movies(ModelConfig.small()), weights, about={"long_side": 32, "frames": 4})
    synthetic = Scene(write_truth(two_boxes(8, 64, 48), folder / "synthetic"))
    write_dycheck(synthetic, folder / "data")
    arguments = ["--from", "dycheck", folder / "data", "--out", folder / "dycheck"]
    masks = ["--masks", "files", "--masks-path", synthetic.directory / "masks"]
    assert preprocess([str(argument) for argument in arguments + masks]) == 0
    for name in ("synthetic", "dycheck"):
        assert predict([str(folder / name), "--model", str(weights), "--device", "cpu"]) == 0
    return folder


@pytest.mark.parametrize("name, protocol", [("synthetic", "msdyn"), ("dycheck", "dycheck")])
def test_a_prediction_is_evaluated(predicted, name, protocol, capsys):
    scene = predicted / name
    options = ["--from", "predict", "--protocol", protocol, "--no-pictures", "--device", "cpu"]
    assert evaluate([str(scene), *options]) == 0
    printed = capsys.readouterr().out
    assert "frames of the clip" in printed and "of the fit" not in printed
    assert not (scene / "fit").exists()
    result = read_json(scene / "predict" / "eval.json")
    assert result["protocol"]["sequence"] == "predict"
    assert result["protocol"]["masks"] == "covisibility"
    sequence = load_sequence(scene, source="predict")
    expected = evaluate_targets(renderer_of(sequence), targets_of_views(Scene(scene)))
    assert result["views"]["mpsnr"] == pytest.approx(expected["psnr"])
    assert result["views"]["mssim"] == pytest.approx(expected["mssim"])
    assert result["views"]["images"] == expected["images"] == 16
    # Points: true tracks of the synthetic scene, keypoints of DyCheck's.
    assert (result["tracks"] is not None) == (name == "synthetic")
    assert result["points"]["points"] == (1600 if name == "synthetic" else 20)
    assert np.isfinite(result["points"]["transfer"]["epe3d"])
    if protocol == "dycheck":
        assert result["dycheck"]["mpsnr"] == result["views"]["mpsnr"]
