"""`msdyn-eval` on scene directories: files, printed table and errors."""

import shutil
import subprocess

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from commands import exit_code
from exact_fits import exact_sequence, save_fit, three_points, write_scene_of

import msdyn
from msdyn.cli.evaluate import main
from msdyn.evaluate import (
    Variant,
    evaluate_frames,
    evaluate_object_motion,
    evaluate_points,
    evaluate_tracks,
    evaluate_views,
    masked_psnr,
)
from msdyn.evaluate.run import EvaluateConfig, evaluate_scene
from msdyn.evaluate.stamp import code_stamp
from msdyn.fit.data import load_fit_data
from msdyn.reading import read_json


def run(capsys, *argv):
    """Return exit code, standard output, and the lines of standard error without progress bars."""
    code = exit_code(main, argv)
    out, err = capsys.readouterr()
    return code, out, [line for line in err.splitlines() if "error" in line]


def test_the_content_of_eval_json(boxes, boxes_fit):
    result = evaluate_scene(EvaluateConfig(boxes.directory))
    written = read_json(boxes.directory / "fit" / "eval.json")
    assert written == result
    protocol = written["protocol"]
    assert protocol["scene"] == "boxes" and protocol["resolution"] == [64, 48]
    assert protocol["test_time_optimisation"] == "none"
    assert protocol["exposure"] == {"frames": "none", "views": "none"}
    assert protocol["seed"] == 5 and protocol["msdyn"] == msdyn.__version__
    assert protocol["variant"] == {"levels": None, "frozen": False}
    assert protocol["frames"] == 8 and protocol["world_units"] == "metric"
    assert protocol["masks"] == "covisibility" and protocol["name"] == "msdyn"
    assert {"torch", "numpy", "commit"} <= set(protocol)
    assert written["views"] == evaluate_views(boxes_fit, boxes)
    assert written["tracks"] == evaluate_tracks(boxes_fit, boxes)
    assert written["points"] == evaluate_points(boxes_fit, boxes)
    assert written["object_motion"] == evaluate_object_motion(boxes_fit, boxes)
    assert written["motion_by_level"].keys() == written["object_motion"]["objects"].keys()
    assert "dycheck" not in written
    # No frame was held out from this fit, and the file says so.
    assert written["frames"]["kept_out_of_the_fit"] is False
    assert set(written["frames"]["frames"]) == {"0"}
    pictures = sorted(p.name for p in (boxes.directory / "fit" / "eval").iterdir())
    chosen = [0, 2, 4, 5, 7]
    assert pictures == sorted(
        ["frame_00000.png", *(f"{v}_{f:05d}.png" for v in ("left15", "right28") for f in chosen)]
    )
    assert iio.imread(boxes.directory / "fit/eval/left15_00004.png").shape == (48, 3 * 64, 3)


def test_frames_kept_out_of_the_fit(boxes, boxes_truth, capsys):
    """Every third frame: evaluated at its own time and camera, printed, saved side by side."""
    every = 3
    data = load_fit_data(boxes, long_side=None, holdout_every=every, device=torch.device("cpu"))
    assert data.held_out == [2, 5]
    sequence = exact_sequence(boxes_truth, data.frames.tolist())
    save_fit(sequence, boxes.directory / "fit", holdout_every=every)
    code, out, errors = run(capsys, boxes.directory)
    assert code == 0 and not errors
    written = read_json(boxes.directory / "fit" / "eval.json")
    frames, fitted = written["frames"], written["fitted_frames"]
    assert frames["kept_out_of_the_fit"] is True and list(frames["frames"]) == ["2", "5"]
    assert list(map(int, fitted["frames"])) == data.frames.tolist()
    assert frames["frames"] == evaluate_frames(sequence, boxes, [2, 5])["frames"]
    of_moving = []
    for frame, psnr in frames["frames"].items():
        assert f"{frame}: {psnr:.2f}" in out
        truth, image, error = np.split(
            iio.imread(boxes.directory / f"fit/eval/frame_{int(frame):05d}.png"), 3, axis=1
        )
        off = (image / 255 - truth / 255)[boxes.mask(int(frame)) > 0]
        of_moving.append(-10 * np.log10((off**2).mean()))
        np.testing.assert_array_equal(truth, boxes.image(int(frame)))
        assert masked_psnr(image / 255, truth / 255) == pytest.approx(psnr, abs=1e-4)
        assert error.any()
    assert "frames kept out of the fit" in out
    assert frames["psnr_moving"] == pytest.approx(np.mean(of_moving), abs=1e-4)
    assert f"moving pixels only: {np.mean(of_moving):.2f}" in out
    assert (
        f"pixels only: {fitted['psnr_moving']:.2f}, of static ones: {fitted['psnr_static']:.2f}"
        in out
    )


def test_moving_and_static_pixels_apart(boxes, boxes_truth):
    """Of a fit whose Gaussians are black, both have the PSNR of the truth against black."""
    sequence = exact_sequence(boxes_truth, [0, 1, 3, 4, 6, 7])
    for part in (sequence.static, sequence.moving):
        with torch.no_grad():
            part.harmonics.fill_(-10.0)
    found = evaluate_frames(sequence, boxes, [1, 4])
    for name, moves in (("psnr_moving", True), ("psnr_static", False)):
        own = [boxes.image(frame)[(boxes.mask(frame) > 0) == moves] / 255 for frame in (1, 4)]
        expected = np.mean([-10 * np.log10((pixels**2).mean()) for pixels in own])
        assert found[name] == pytest.approx(expected, abs=1e-6)


def test_the_table(boxes, capsys):
    code, out, _ = run(capsys, boxes.directory, "--no-pictures")
    written = read_json(boxes.directory / "fit" / "eval.json")
    assert code == 0
    for name, row in (
        ("frames of the fit itself", written["frames"]),
        ("held-out view left15", written["views"]["views"]["left15"]),
        ("held-out views, mean", written["views"]),
    ):
        line = next(line for line in out.splitlines() if line.startswith(name))
        assert line.split()[-4:] == [
            f"{row['mpsnr']:.2f}", f"{row['mssim']:.4f}", "-", f"{row['ssim']:.4f}"
        ]  # fmt: skip
    assert f"{written['tracks']['epe3d_moving']:.4f} m on moving points" in out
    assert not (boxes.directory / "fit" / "eval").exists()


def test_a_scene_without_held_out_views(boxes, capsys):
    shutil.rmtree(boxes.directory / "views")
    code, out, _ = run(capsys, boxes.directory)
    written = read_json(boxes.directory / "fit" / "eval.json")
    assert code == 0 and "views" not in written and written["tracks"] is None
    assert "held-out" not in out and "3D tracks" not in out and "frames of the fit itself" in out


def test_a_scene_without_true_tracks(boxes, capsys):
    for path in boxes.directory.glob("views/*/tracks3d.npz"):
        path.unlink()
    code, out, _ = run(capsys, boxes.directory)
    written = read_json(boxes.directory / "fit" / "eval.json")
    assert code == 0 and written["views"]["images"] == 16 and written["tracks"] is None
    assert "3D tracks" not in out


def test_truth_in_a_folder_of_its_own(boxes, boxes_folder, capsys):
    expected = evaluate_scene(EvaluateConfig(boxes.directory, pictures=False))
    shutil.rmtree(boxes.directory / "views")
    shutil.move(boxes.directory / "fit", boxes.directory.parent / "elsewhere")
    code, out, _ = run(
        capsys, boxes.directory, "--truth", boxes_folder, "--fit",
        boxes.directory.parent / "elsewhere", "--align",
    )  # fmt: skip
    written = read_json(boxes.directory.parent / "elsewhere" / "eval.json")
    assert code == 0 and str(boxes.directory.parent / "elsewhere" / "eval.json") in out
    assert written["protocol"]["cameras"] == "aligned by a similarity"
    # The worlds are the same here: the similarity is the identity.
    assert written["views"]["mpsnr"] == pytest.approx(expected["views"]["mpsnr"], abs=0.01)


def test_a_variant_is_evaluated_and_recorded(boxes, boxes_fit):
    result = evaluate_scene(EvaluateConfig(boxes.directory, frozen=True, pictures=False))
    assert result["protocol"]["variant"] == {"levels": None, "frozen": True}
    frozen = Variant(frozen=True)
    assert result["views"]["mpsnr"] == evaluate_views(boxes_fit, boxes, variant=frozen)["mpsnr"]


def test_infinite_figures_are_null(tmp_path, capsys):
    sequence = three_points()
    scene = write_scene_of(sequence, tmp_path / "points")
    save_fit(sequence, scene.directory / "fit")
    code, out, _ = run(capsys, scene.directory)
    assert code == 0 and " - " in out
    written = read_json(scene.directory / "fit" / "eval.json")
    assert written["views"]["mpsnr"] is None and written["views"]["ssim"] > 0.99


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda d: shutil.rmtree(d / "fit"), "no fit yet; make one with `msdyn-fit"),
        (lambda d: (d / "fit/sequence.safetensors").unlink(), "no fit yet"),
        (lambda d: (d / "fit/config.json").unlink(), "config.json: no such file"),
        (lambda d: (d / "fit/config.json").write_text("{"), "config.json: not valid JSON"),
        (lambda d: (d / "fit/config.json").write_text("{}"), "config.json: options"),
        (lambda d: (d / "scene.json").unlink(), "not a scene directory"),
        (lambda d: (d / "views/left15/cameras.json").unlink(), "cameras.json: no such file"),
    ],
)
def test_missing_files_are_one_line_and_exit_code_2(boxes, capsys, damage, message):
    damage(boxes.directory)
    code, out, errors = run(capsys, boxes.directory)
    assert code == 2 and not out and len(errors) == 1
    assert errors[0].startswith("error: ") and message in errors[0]


def test_a_fit_of_another_clip(boxes, capsys):
    save_fit(three_points(5), boxes.directory / "fit")
    code, _, errors = run(capsys, boxes.directory)
    assert code == 2 and len(errors) == 1 and "expected the 5 frames of the fit, got 8" in errors[0]


def test_the_protocol_of_dycheck_summarises_published_metrics(boxes, capsys):
    code, out, _ = run(capsys, boxes.directory, "--protocol", "dycheck")
    written = read_json(boxes.directory / "fit" / "eval.json")
    assert code == 0 and written["protocol"]["name"] == "dycheck"
    summary = written["dycheck"]
    assert summary["mpsnr"] == written["views"]["mpsnr"] and summary["images"] == 16
    assert summary["mssim"] == written["views"]["mssim"]
    assert summary["mlpips"] == written["views"]["mlpips"]
    assert summary["pck_t"] == written["points"]["pck_t"]
    assert summary["delta_0.05"] == written["points"]["transfer"]["delta_0.05"]
    assert summary["average_jaccard"] == written["points"]["image"]["average_jaccard"]
    assert f"PCK-T {summary['pck_t']:.3f}" in out
    for path in boxes.directory.glob("views/*/tracks3d.npz"):
        path.unlink()
    assert run(capsys, boxes.directory, "--protocol", "dycheck", "--no-pictures")[0] == 0
    assert read_json(boxes.directory / "fit" / "eval.json")["dycheck"]["pck_t"] is None


@pytest.mark.parametrize(
    "damage, arguments, message",
    [
        (lambda d: shutil.rmtree(d / "views"), [], "no held-out views; the dycheck protocol"),
        (lambda d: (d / "views/left15/covisible/00003.png").unlink(), [], "covisible: expected a"),
        (lambda d: None, ["--align"], "uses the cameras of the data"),
    ],
)
def test_the_protocol_of_dycheck_has_requirements(boxes, capsys, damage, arguments, message):
    damage(boxes.directory)
    code, out, errors = run(capsys, boxes.directory, "--protocol", "dycheck", *arguments)
    assert code == 2 and not out and len(errors) == 1 and message in errors[0]


def test_masks_of_some_views_only(boxes):
    """A view without covisibility masks counts whole images, and the protocol says so."""
    shutil.rmtree(boxes.directory / "views/left15/covisible")
    result = evaluate_scene(EvaluateConfig(boxes.directory, pictures=False))
    assert result["protocol"]["masks"] == "covisibility for 1 of 2 views"
    assert result["views"]["views"]["left15"]["covisible"] == 1


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    """The exact commit, marked if files differ, and None for a package outside a checkout."""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(tmp_path)]
    package = tmp_path / "msdyn" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    assert code_stamp(tmp_path)["commit"] is None
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"], ["tag", "v9"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert code_stamp(tmp_path)["commit"] == head.stdout[:12]
    package.write_text("x = 1")
    assert code_stamp(tmp_path)["commit"] == head.stdout[:12] + "-dirty"
    monkeypatch.setenv("PATH", "")
    assert code_stamp(tmp_path)["commit"] is None
