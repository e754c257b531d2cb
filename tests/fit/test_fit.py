"""Whole fits of a small scene with exact truth: accuracy, resuming, worlds, degenerate scenes."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import two_boxes
from interrupted_fits import interrupted_and_resumed

from msdyn.errors import InputError
from msdyn.evaluate import Variant, evaluate_frames, evaluate_tracks, evaluate_views
from msdyn.fit import FitConfig, Fitter, MotionConfig, fit_scene, preset
from msdyn.fit.density import GaussianSet
from msdyn.geometry import Cameras, Similarity
from msdyn.reading import read_json
from msdyn.scene import Scene, Tracks, write_cameras, write_depth, write_mask, write_tracks
from msdyn.sequence import load_sequence
from msdyn.synthetic import write_priors
from msdyn.writing import write_json


@pytest.fixture(scope="session")
def boxes(tmp_path_factory):
    """A scene directory with exact priors: two boxes that move over a table."""
    directory = tmp_path_factory.mktemp("boxes") / "scene"
    truth = two_boxes(12, 96, 72)
    write_priors(truth, directory, level="exact", seed=0)
    return directory


def config(**changes) -> FitConfig:
    small = replace(
        preset("quick"),
        epochs=16,
        static_gaussians=3000,
        moving_gaussians=1500,
        motion=MotionConfig(prefit_steps=40),
        refine="none",  # cameras and depth are exact
        device="cpu",
    )
    return replace(small, **changes)


def tiny(**changes) -> FitConfig:
    """Return the options of a short fit of few Gaussians, where quality does not matter."""
    few = {"static_gaussians": 600, "moving_gaussians": 300, "long_side": 48, "epochs": 1}
    return config(
        **{**few, "motion": MotionConfig(prefit_steps=5, joint_refinement="off"), **changes}
    )


@pytest.fixture(scope="session")
def fitted(boxes):
    return fit_scene(Scene(boxes), config())


def copy_scene(boxes, tmp_path):
    return Scene(shutil.copytree(boxes, tmp_path / "scene", ignore=shutil.ignore_patterns("fit")))


@pytest.mark.slow
def test_motion_and_appearance_are_recovered(boxes, fitted):
    scene = Scene(boxes)
    full = evaluate_views(fitted, scene)
    frozen = evaluate_views(fitted, scene, variant=Variant(frozen=True))
    # 22.7 and 16.0 dB when written, within 0.03 dB for three seeds.
    assert full["mpsnr"] > 22 and full["mpsnr"] > frozen["mpsnr"] + 5.5
    tracks = evaluate_tracks(fitted, scene)
    assert tracks is not None and tracks["drawn"] > 0.99
    # In metres; a pixel is 0.012 wide and the boxes move by 0.3. 0.024 when written.
    assert tracks["epe3d_moving"] < 0.03
    training = evaluate_frames(fitted, scene, list(range(len(scene))))
    assert training["mpsnr"] > 26


@pytest.mark.slow
def test_output_files_of_a_fit(boxes, fitted):
    folder = boxes / "fit"
    again = load_sequence(boxes)
    assert torch.equal(again.at(0.3).means, fitted.at(0.3).means)
    written = read_json(folder / "config.json")
    assert written["options"]["epochs"] == 16 and written["msdyn"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 16 * 12 and rows[-1]["psnr"] > rows[0]["psnr"] + 3
    assert {"rgb", "mask", "depth", "track", "rigidity"} <= set(rows[-1])
    assert len(list((folder / "previews").glob("*.png"))) == 5
    np.testing.assert_array_equal(
        fitted.cameras.cam_from_world, Scene(boxes).cameras.cam_from_world
    )


@pytest.mark.slow
def test_an_interrupted_fit_resumes_exactly(boxes, tmp_path):
    scene = copy_scene(boxes, tmp_path)
    # Short, with densifications before and after the interruption.
    options = tiny(epochs=3)
    options = replace(options, density=replace(options.density, every=10, start=0.1, stop=0.9))
    uninterrupted = fit_scene(scene, replace(options, out=tmp_path / "uninterrupted"))

    resumed = interrupted_and_resumed(scene, replace(options, out=tmp_path / "resumed"), 22)
    assert resumed.num_gaussians == uninterrupted.num_gaussians
    for name, value in uninterrupted.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    rows = (tmp_path / "resumed" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[0])["step"] == 20  # entries before the interruption are kept


@pytest.mark.slow
def test_other_options_restart_and_finished_fits_are_not_repeated(boxes, fitted, monkeypatch):
    calls = []
    step = Fitter._one_step

    def counted(self, frames):
        calls.append(self.step)
        return step(self, frames)

    monkeypatch.setattr(Fitter, "_one_step", counted)
    again = fit_scene(Scene(boxes), config())
    assert not calls
    assert torch.equal(again.at(0.7).means, fitted.at(0.7).means)
    out = boxes.parent / "other"
    shutil.copytree(boxes / "fit", out)
    fit_scene(Scene(boxes), tiny(out=out))
    assert calls[0] == 0


@pytest.mark.slow
def test_the_result_is_in_the_world_of_the_input(boxes, tmp_path):
    """The same scene at another scale and position gives the same result there."""
    scene = copy_scene(boxes, tmp_path)
    fitted = fit_scene(scene, tiny(epochs=4))
    world = Similarity.of(250.0, [100.0, -40.0, 7.0])
    write_cameras(scene.directory / "cameras.json", scene.cameras.transformed(world))
    for frame in range(len(scene)):
        write_depth(scene.directory, frame, 250 * scene.depth(frame))
    moved = fit_scene(Scene(scene.directory), tiny(epochs=4, restart=True))
    ours = fitted.at(0.5).means.mean(1) * 250 + torch.tensor([100.0, -40, 7])
    # Rounding differences grow to a few thousandths of the scene size.
    torch.testing.assert_close(moved.at(0.5).means.mean(1), ours, atol=5.0, rtol=0)
    psnr = [evaluate_frames(s, scene, [0, 5, 11])["mpsnr"] for s in (fitted, moved)]
    assert psnr[1] == pytest.approx(psnr[0], abs=0.7)


@pytest.mark.slow
def test_frames_can_be_held_out(boxes, tmp_path):
    scene = Scene(boxes)
    motion = MotionConfig(prefit_steps=40, joint_refinement="off")
    options = config(epochs=6, holdout_every=4, motion=motion, out=tmp_path / "fit")
    sequence = fit_scene(scene, options)
    assert sequence.motion.key_frames.tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    held_out = evaluate_frames(sequence, scene, [3, 7])["mpsnr"]
    between = evaluate_frames(sequence, scene, [2, 4, 6, 8])["mpsnr"]
    assert held_out > between - 4 and held_out > 20


def test_a_scene_without_objects(boxes, tmp_path):
    scene = copy_scene(boxes, tmp_path)
    tracks = scene.tracks
    for frame in range(len(scene)):
        write_mask(scene.directory, frame, np.zeros(scene.size, np.uint8))
    static = Tracks.from_dense(
        tracks.xy, tracks.visible, tracks.confidence, 0 * tracks.object, tracks.query_frame
    )
    write_tracks(scene.directory / "tracks.npz", static)
    sequence = fit_scene(Scene(scene.directory), tiny(epochs=2))
    assert len(sequence.moving) == 0 and len(sequence.static) > 500
    again = load_sequence(scene.directory)
    assert torch.equal(again.at(0.5).means, again.at(0.9).means)


@pytest.mark.slow
@pytest.mark.parametrize("levels", [pytest.param(1, marks=pytest.mark.reliability), 2])
def test_fewer_levels(boxes, tmp_path, levels):
    options = tiny(motion=MotionConfig(levels=levels, prefit_steps=5))
    sequence = fit_scene(Scene(boxes), replace(options, out=tmp_path / "fit"))
    assert sequence.motion.num_levels == levels


def test_smaller_images(boxes, tmp_path):
    fitter = Fitter(Scene(boxes), config(long_side=48, out=tmp_path / "fit"))
    assert fitter.data.rgb.shape[1:3] == (36, 48)
    assert fitter.data.cameras.intrinsics[0, 0, 2] == pytest.approx(24)
    depth = fitter.data.depth[range(len(fitter.data.depth))]
    assert float(depth.median()) == pytest.approx(1, rel=0.05)


def test_an_object_without_tracks_is_refused(boxes, tmp_path):
    scene = copy_scene(boxes, tmp_path)
    tracks = scene.tracks
    write_tracks(scene.directory / "tracks.npz", tracks.select(tracks.object != 2))
    with pytest.raises(InputError, match=r"object\(s\) \[2\] have no track"):
        fit_scene(Scene(scene.directory), config())


@pytest.mark.slow
def test_a_damaged_checkpoint_is_reported(boxes, tmp_path):
    scene = copy_scene(boxes, tmp_path)
    (scene.directory / "fit").mkdir()
    (scene.directory / "fit" / "checkpoint.safetensors").write_bytes(b"half a file")
    with pytest.raises(InputError, match="not a readable checkpoint .* --restart"):
        fit_scene(scene, tiny())
    fit_scene(scene, tiny(restart=True))


def test_a_missing_gpu_is_reported(boxes):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(InputError, match="expected a CUDA device for cuda, torch finds none"):
        Fitter(Scene(boxes), config(device="cuda"))


@pytest.mark.slow
def test_new_gaussians_inherit_weights_and_labels(boxes, tmp_path, monkeypatch):
    sizes_after = []
    refine = GaussianSet.refine

    def watched(self, step, info, columns):
        changed = refine(self, step, info, columns)
        if changed:
            sizes_after.append(
                {k: len(v) for k, v in self.params.items()}
                | {k: len(v) for k, v in self.state.items() if isinstance(v, torch.Tensor)}
            )
        return changed

    monkeypatch.setattr(GaussianSet, "refine", watched)
    options = tiny(epochs=4, out=tmp_path / "fit")
    options = replace(
        options, density=replace(options.density, every=10, start=0.1, grow_gradient=1e-5)
    )
    sequence = fit_scene(Scene(boxes), options)
    assert sizes_after and all(len(set(sizes.values())) == 1 for sizes in sizes_after)
    assert len(sequence.moving) > 300
    # The patterns of a Gaussian are those of its object.
    motion = sequence.motion
    labels = motion.patterns.objects[motion.weights[0].index[:, 0]]
    assert torch.equal(labels, sequence.labels)


def test_cameras_of_another_size_are_refused(boxes, tmp_path):
    scene = copy_scene(boxes, tmp_path)
    path = scene.directory / "cameras.json"
    write_json(path, {**read_json(path), "width": 50})
    with pytest.raises(InputError, match="expected size 96x72, got 50x72"):
        fit_scene(Scene(scene.directory), config())
    assert isinstance(Scene(boxes).cameras, Cameras)
