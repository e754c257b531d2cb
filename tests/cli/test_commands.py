"""msdyn-fit and msdyn-render as shell commands: output and errors."""

import json
import os
import subprocess
import sys

import imageio.v3 as iio
import numpy as np
import pytest
from commands import exit_code

from msdyn.cli import fit, preprocess, render
from msdyn.geometry import make_path
from msdyn.reading import read_json
from msdyn.scene import Scene, read_cameras, write_cameras, write_depth

QUICK = ["--preset", "quick", "--epochs", "1", "--prefit-steps", "2", "--device", "cpu"]


def one_line(capsys) -> str:
    """Return the error message on stderr, which must be one line."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def test_one_image_at_a_time_from_a_camera_file(fitted_plane_scene, tmp_path, monkeypatch, capsys):
    camera = make_path("orbit", Scene(fitted_plane_scene).cameras, 8)[2]
    write_cameras(tmp_path / "novel.json", camera)
    out = tmp_path / "a.png"
    arguments = ["--time", "0.4", "--camera", str(tmp_path / "novel.json"), "--out", str(out)]
    assert render.main([str(fitted_plane_scene), *arguments]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    # The current directory is the default scene.
    monkeypatch.chdir(fitted_plane_scene)
    arguments[-1] = str(tmp_path / "b.png")
    assert render.main(arguments) == 0
    image = iio.imread(out)
    assert image.shape == (24, 32, 3) and image.std() > 5
    np.testing.assert_array_equal(image, iio.imread(tmp_path / "b.png"))


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (fit, ["--epochs", "-3"], "--epochs: expected at least 1, got -3"),
        (fit, ["--k-primitive", "0"], "--k-primitive: expected at least 1, got 0"),
        (preprocess, ["--long-side", "-3"], "--long-side: expected at least 64, or 0, got -3"),
    ],
)
def test_a_value_out_of_range_is_one_line(command, arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        command.main([str(tmp_path), *arguments])
    assert end.value.code == 2 and one_line(capsys) == "error: " + message


def test_a_misspelt_option_is_answered_with_similar_ones(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        fit.main([str(tmp_path), "--k-primitve", "3"])
    assert end.value.code == 2 and "--k-primitive" in capsys.readouterr().err


def test_the_input_camera_shows_the_input(fitted_plane_scene, tmp_path):
    scene = Scene(fitted_plane_scene)
    last = len(scene) - 1
    for option in (["--time", "1"], ["--frame", str(last)], ["--seconds", f"{last / 10}"]):
        out = tmp_path / "last.png"
        assert render.main([str(fitted_plane_scene), *option, "--out", str(out)]) == 0
        image = iio.imread(out).astype(int)
        red = image[..., 0] - image[..., 1]
        # The square has moved from columns 6..13 to 11..18.
        assert red[9:15, 14:18].mean() > 100 and red[9:15, 6:10].mean() < 50


def test_a_path_makes_a_video(fitted_plane_scene, tmp_path):
    out = tmp_path / "orbit.mp4"
    options = ["--path", "orbit", "--frames", "5", "--out", str(out)]
    assert render.main([str(fitted_plane_scene), *options]) == 0
    frames = iio.imread(out, plugin="pyav")
    assert frames.shape == (5, 24, 32, 3)
    # With one time, all images show that time: only the camera moves.
    cameras = read_cameras(fitted_plane_scene / "cameras.json")
    write_cameras(tmp_path / "three.json", cameras[[0, 0, 0]])
    frozen = ["--camera", str(tmp_path / "three.json"), "--time", "0.5", "--out", str(out)]
    assert render.main([str(fitted_plane_scene), *frozen]) == 0
    frames = iio.imread(out, plugin="pyav").astype(int)
    assert len(frames) == 3 and np.abs(frames[0] - frames[2]).max() < 12  # H.264 is lossy


@pytest.mark.parametrize(
    "options, text",
    [
        (["--time", "1.5"], "--time: expected at most 1, got 1.5"),
        (["--time", "nan"], "got nan"),
        (["--frame", "6"], "0 to 5"),
        (["--seconds", "-1"], "got -1"),
        (["--time", "0", "--frame", "0"], "--time, --frame: expected one"),
        (["--path", "orbit", "--out", "orbit.png"], "expected a .mp4"),
        (["--time", "0", "--out", "image.gif"], "expected a .png"),
        (["--camera", "missing.json"], "missing.json"),
    ],
)
def test_invalid_options_of_render(fitted_plane_scene, options, text, capsys):
    assert exit_code(render.main, [fitted_plane_scene, *options]) == 2
    assert text in one_line(capsys)


@pytest.mark.parametrize(
    "content, text",
    [
        # The camera file of another program.
        ({"camera_angle_x": 0.7, "frames": [{"transform_matrix": np.eye(4).tolist()}]}, "width"),
        ({"width": 32, "height": 24, "frames": []}, "at least one camera"),
        ({"width": 32, "height": 24, "fx": 30, "fy": 30, "cx": 16, "cy": 12}, "cam_from_world"),
        (
            {"width": 32, "height": 24, "fx": 30, "fy": 30, "cx": 16, "cy": 12}
            | {"cam_from_world": np.eye(3).tolist()},
            "expected shape (4, 4), got (3, 3)",
        ),
        (
            {"width": 32, "height": 24, "fx": 30, "fy": 30, "cx": 16, "cy": 12}
            | {"cam_from_world": (2 * np.eye(4)).tolist()},
            "cam_from_world",
        ),
        ([1, 2], "a list of such cameras with time"),
        ("camera", "expected a JSON object or list, got str"),
    ],
)
def test_malformed_camera_files(fitted_plane_scene, tmp_path, content, text, capsys):
    path = tmp_path / "camera.json"
    path.write_text(json.dumps(content))
    assert render.main([str(fitted_plane_scene), "--camera", str(path)]) == 2
    line = one_line(capsys)
    assert str(path) in line and text in line


def test_a_camera_file_that_is_not_json(fitted_plane_scene, tmp_path, capsys):
    path = tmp_path / "camera.json"
    path.write_text('{"width": 32,')
    assert render.main([str(fitted_plane_scene), "--camera", str(path)]) == 2
    assert "camera.json" in one_line(capsys)


def test_a_fit_that_does_not_exist(plane_scene, tmp_path, capsys):
    assert render.main([str(plane_scene.directory)]) == 2
    assert "msdyn-fit" in one_line(capsys)
    assert render.main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in one_line(capsys)


def test_a_damaged_sequence(fitted_plane_scene, tmp_path, capsys):
    path = tmp_path / "sequence.safetensors"
    path.write_bytes((fitted_plane_scene / "fit" / path.name).read_bytes()[:5000])
    assert render.main([str(path)]) == 2
    assert str(path) in one_line(capsys)


def test_fit_takes_options_and_prints_the_folder(plane_scene, tmp_path, capsys):
    out = tmp_path / "elsewhere"
    options = [*QUICK, "--k-primitive", "2", "--levels", "2", "--out", str(out)]
    assert fit.main([str(plane_scene.directory), *options]) == 0
    assert str(out) in capsys.readouterr().out
    written = read_json(out / "config.json")["options"]
    assert written["motion"]["k_primitive"] == 2 and written["motion"]["levels"] == 2
    assert written["static_gaussians"] == 12_000  # of the preset
    assert render.main([str(out / "sequence.safetensors"), "--out", str(tmp_path / "x.png")]) == 0


def test_a_nan_in_depth(plane_scene, capsys):
    depth = plane_scene.depth(3)
    depth[2, 5] = np.nan
    with (plane_scene.directory / "depth" / "00003.npy").open("wb") as file:
        np.save(file, depth)
    assert fit.main([str(plane_scene.directory), *QUICK]) == 2
    line = one_line(capsys)
    assert "00003.npy" in line and "NaN" in line


def test_an_object_without_tracks(plane_scene, capsys):
    path = plane_scene.directory / "masks" / "00002.png"
    mask = iio.imread(path)
    mask[:4, :4] = 3
    iio.imwrite(path, mask)
    assert fit.main([str(plane_scene.directory), *QUICK]) == 2
    assert "[3] have no track" in one_line(capsys)


def test_frames_of_differing_sizes(plane_scene, capsys):
    iio.imwrite(plane_scene.directory / "images" / "00001.png", np.zeros((20, 32, 3), np.uint8))
    assert fit.main([str(plane_scene.directory), *QUICK]) == 2
    line = one_line(capsys)
    assert "00001.png: expected 32x24 px, got 32x20" in line


def test_a_folder_that_is_not_a_scene(tmp_path, capsys):
    assert fit.main([str(tmp_path), *QUICK]) == 2
    assert "scene.json" in one_line(capsys)


@pytest.mark.parametrize(
    "options", [["--epochs", "0"], ["--preset", "fast"], ["--levels", "7"], ["--no-such-option"]]
)
def test_invalid_options_of_fit(plane_scene, options, capsys):
    with pytest.raises(SystemExit) as stop:
        fit.main([str(plane_scene.directory), *options])
    assert stop.value.code == 2
    assert options[-1].lstrip("-").split("-", maxsplit=1)[0] in capsys.readouterr().err


def test_depth_of_zero_everywhere_is_an_error(plane_scene, capsys):
    for frame in range(len(plane_scene)):
        write_depth(plane_scene.directory, frame, np.zeros(plane_scene.size, np.float32))
    assert fit.main([str(plane_scene.directory), *QUICK]) == 2
    assert "depth" in one_line(capsys)


def test_waiting_threads_sleep_unless_told_otherwise():
    """OpenMP reads the variable when torch loads it, so it must be set before."""
    code = "import os, sys, msdyn.cli; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    own = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    for given, expected in (({}, "PASSIVE False"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE False")):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=own | given,
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == expected
