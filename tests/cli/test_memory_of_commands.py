"""`--max-memory` of the commands that make large arrays: refused before the work, code 4."""

import numpy as np
import pytest
from commands import exit_code

from msdyn.cli import fit, predict, preprocess, render
from msdyn.cli.help import help_text
from msdyn.cli.options import options_of
from msdyn.cli.render_config import RenderConfig
from msdyn.feedforward.estimate import estimate_prediction, smaller_predictions
from msdyn.feedforward.options import PredictConfig
from msdyn.fit.config import FitConfig
from msdyn.io import write_video
from msdyn.preprocess.config import PreprocessConfig
from msdyn.render.estimate import estimate_rendering, smaller_renderings
from msdyn.sequence import load_sequence

CONFIGS = (FitConfig, PreprocessConfig, RenderConfig, PredictConfig)


@pytest.mark.parametrize("cls", CONFIGS)
def test_the_option_is_the_same_in_all_commands(cls):
    (option,) = [option for option in options_of(cls) if option.name == "max-memory"]
    assert option.default is None and option.heading.startswith("Running")
    assert option.field.refusal("8G") is None
    assert option.field.refusal("0") == (
        "expected a size above 0 such as 8G or 500M (a number alone is in GB), got '0'"
    )


def test_help_shows_its_unit(capsys):
    assert exit_code(fit.main, ["--help"]) == 0
    assert "--max-memory SIZE" in capsys.readouterr().out
    assert callable(help_text)


@pytest.mark.parametrize("command", [fit, preprocess, render, predict])
@pytest.mark.parametrize("size", ["0", "-1G", "8K", "1e3", "x", "nan"])
def test_wrong_sizes_are_refused_in_one_line(command, size, capsys):
    assert exit_code(command.main, ["x", f"--max-memory={size}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --max-memory: expected a size above 0 such as 8G")
    assert error.count("\n") == 1


def refusal(capsys, main, arguments):
    """Return what a command says that ends with code 4."""
    assert exit_code(main, arguments) == 4
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_commands_refuse_before_they_write(fitted_plane_scene, tmp_path, capsys):
    limit, out = "--max-memory=20M", tmp_path / "out"
    said = refusal(capsys, fit.main, [fitted_plane_scene, limit, "--out", out])
    assert said.startswith("error: fit: about ") and "--max-memory 20M" in said
    said = refusal(
        capsys, render.main, [fitted_plane_scene, limit, "--out", out, "--output", "rgb,flow"]
    )
    assert said.startswith("error: rendering: about ") and "more than --max-memory 20M" in said
    said = refusal(capsys, predict.main, [fitted_plane_scene, limit, "--out", out])
    assert said.startswith("error: prediction: about ") and "more than --max-memory 20M" in said
    write_video(tmp_path / "clip.mp4", [np.zeros((72, 96, 3), np.uint8)] * 4, 10)
    arguments = [tmp_path / "clip.mp4", limit, "--out", out]
    said = refusal(capsys, preprocess.main, arguments)
    assert said.startswith("error: preprocessing: about ") and "--max-memory 20M" in said
    assert not [path for path in out.rglob("*") if path.is_file()]


def test_within_the_limit_a_command_does_its_work(fitted_plane_scene, tmp_path):
    arguments = [fitted_plane_scene, "--max-memory", "900G", "--out", tmp_path / "a.png"]
    assert exit_code(render.main, arguments) == 0
    assert (tmp_path / "a.png").is_file()


def test_larger_renderings_take_more(fitted_plane_scene):
    sequence = load_sequence(fitted_plane_scene)
    base = estimate_rendering(sequence, 10, (640, 480), ["rgb"])
    larger = estimate_rendering(sequence, 10, (1280, 960), ["rgb"])
    flow = estimate_rendering(sequence, 10, (640, 480), ["rgb", "flow"])
    longer = estimate_rendering(sequence, 20, (640, 480), ["rgb"])
    assert larger.memory > base.memory and flow.memory > base.memory
    assert longer.memory == base.memory and longer.disk == 2 * base.disk
    assert (longer.seconds or 0) > (base.seconds or 0)
    smaller = [e.memory for _, e in smaller_renderings(sequence, 10, (640, 480), ["rgb", "flow"])]
    assert smaller and smaller == sorted(smaller, reverse=True) and smaller[0] < flow.memory


def test_larger_predictions_take_more():
    windows = [[0, 4, 8, 12], [9, 12, 16, 20]]
    base = estimate_prediction(windows, (64, 48), 10**6)
    for other in (
        estimate_prediction([*windows, [17, 20, 24, 28]], (64, 48), 10**6),
        estimate_prediction(windows, (128, 96), 10**6),
        estimate_prediction(windows, (64, 48), 10**9),
    ):
        assert other.memory > base.memory and (other.seconds or 0) > (base.seconds or 0)
    options = dict(smaller_predictions(windows, (512, 384), 10**6))
    assert list(options)[0] == "--long-side 448"
