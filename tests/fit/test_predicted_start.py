"""A fit that starts from a prediction."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import two_boxes
from oracle_network import SCALE, Oracle

from msdyn.cli import fit
from msdyn.errors import InputError
from msdyn.evaluate import evaluate_tracks
from msdyn.feedforward.assemble import Pruning, assemble
from msdyn.feedforward.inference import predict_windows
from msdyn.fit import Fitter, MotionConfig, preset
from msdyn.fit.predicted_start import load_prediction, predicted_tracks
from msdyn.geometry import project, transform_points
from msdyn.scene import Scene
from msdyn.sequence import save_sequence
from msdyn.synthetic import write_priors

FRAMES, WIDTH, HEIGHT = 10, 96, 72


@pytest.fixture(scope="module")
def truth():
    return two_boxes(FRAMES, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def scene(truth, tmp_path_factory):
    """Sensor-like priors, and an exact prediction."""
    scene = Scene(write_priors(truth, tmp_path_factory.mktemp("boxes") / "scene", level="sensor"))
    chosen = [list(range(FRAMES))]
    windows, _ = predict_windows(
        Oracle(truth.spec, chosen),
        scene,
        chosen,
        size=(WIDTH, HEIGHT),
        scale=SCALE,
        device=torch.device("cpu"),
    )
    sequence, _ = assemble(scene, windows, moving=0.003, pruning=Pruning())
    (scene.directory / "predict").mkdir()
    save_sequence(sequence, scene.directory / "predict" / "sequence.safetensors")
    return scene


def options(scene, tmp_path, **changes):
    small = replace(
        preset("quick"),
        scene=scene.directory,
        out=tmp_path / "fit",
        static_gaussians=3000,
        moving_gaussians=1500,
        motion=MotionConfig(prefit_steps=30),
        refine="none",
        device="cpu",
    )
    return replace(small, **changes)


def prediction(scene, tmp_path):
    fitter = Fitter(scene, options(scene, tmp_path, init="predict"))
    return load_prediction(scene, fitter.data.fit_from_scene), fitter.data


def test_trajectories_are_visible_on_their_object_only(scene, truth, tmp_path):
    predicted, data = prediction(scene, tmp_path)
    tracks = predicted_tracks(predicted, data, np.random.default_rng(0))
    assert set(tracks.object) == set(truth.spec.objects) and len(tracks) > 500
    assert (tracks.lifetimes > 0).all() and tracks.lifetimes.mean() > 0.3 * FRAMES
    for frame in (0, FRAMES - 1):
        seen = tracks.at(frame)
        local = transform_points(data.cameras.cam_from_world[frame], tracks.xyz[seen])
        xy = project(data.cameras.intrinsics[frame], local)
        np.testing.assert_allclose(xy, tracks.xy[seen], atol=1e-6)
        column, row = np.floor(xy).astype(int).T
        mask = data.mask[frame].numpy()[row, column]
        assert (mask == tracks.object[tracks.track[seen]]).all()
        seen_depth = data.depth[frame].numpy()[row, column]
        assert np.abs(local[:, 2] / seen_depth - 1).max() < 0.1


@pytest.mark.reliability
def test_an_exact_prediction_is_a_better_start_than_tracks(scene, truth, tmp_path):
    errors = {}
    for init in ("tracks", "predict", "both"):
        fitter = Fitter(scene, options(scene, tmp_path / init, init=init))
        fitter.directory.mkdir(parents=True)
        count = len(fitter.data.tracks)
        fitter.start()
        errors[init] = evaluate_tracks(fitter.state(), scene)["epe3d_moving"]
        assert fitter.sequence.objects == truth.spec.objects
        assert len(fitter.data.tracks) == count  # the losses have the tracks of the scene
    # 4, 4 and 16 cm.
    assert max(errors["predict"], errors["both"]) < 0.4 * errors["tracks"], errors


def test_the_command(scene, tmp_path, capsys):
    out = tmp_path / "fit"
    arguments = [str(scene.directory), "--out", str(out), "--preset", "quick", "--epochs", "1"]
    arguments += ["--static-gaussians", "300", "--moving-gaussians", "200", "--refine", "none"]
    arguments += ["--prefit-steps", "5", "--joint-refinement", "off", "--long-side", "64"]
    assert fit.main([*arguments, "--init", "predict"]) == 0
    assert (out / "sequence.safetensors").is_file()


def test_without_a_prediction(truth, tmp_path, capsys):
    scene = Scene(write_priors(truth, tmp_path / "scene", level="sensor"))
    assert fit.main([str(scene.directory), "--init", "predict"]) == 2
    assert "no prediction yet; make one with `msdyn-predict" in capsys.readouterr().err


def test_a_prediction_in_which_nothing_moves(scene, tmp_path):
    predicted, data = prediction(scene, tmp_path)
    none = torch.zeros(0, dtype=torch.long)
    still = predicted.replaced(
        moving=predicted.moving.select(none),
        motion=predicted.motion.select(none),
        labels=predicted.labels[none],
    )
    with pytest.raises(InputError, match="expected moving Gaussians in the prediction"):
        predicted_tracks(still, data, np.random.default_rng(0))
