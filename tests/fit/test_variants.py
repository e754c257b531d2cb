"""The variants of the method: effect of each option, storage and resuming."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from msdyn.fit import FitConfig, Fitter, fit_scene, preset
from msdyn.fit.config import MotionConfig
from msdyn.fit.sampling import frames_of_step
from msdyn.scene import Scene, write_mask, write_tracks
from msdyn.sequence import load_sequence


def config(tmp_path, **changes) -> FitConfig:
    small = replace(
        preset("quick"), epochs=6, static_gaussians=600, moving_gaussians=300, device="cpu"
    )
    changes.setdefault("motion", MotionConfig(prefit_steps=5, joint_refinement="off"))
    return replace(small, out=tmp_path / "fit", **changes)


def saved_equals(sequence, tmp_path):
    again = load_sequence(tmp_path / "fit")
    for time in (0.0, 0.37, 1.0):
        torch.testing.assert_close(
            again.at(time).means, sequence.at(time).means, atol=1e-6, rtol=1e-6
        )
    return again


@pytest.mark.reliability
def test_a_free_residual_of_every_gaussian(plane_scene, tmp_path):
    options = config(tmp_path, motion=MotionConfig(levels=4, prefit_steps=5))
    sequence = fit_scene(plane_scene, options)
    assert sequence.num_levels == 4 and sequence.motion.residual is not None
    assert sequence.motion.residual.shape == (len(sequence.moving), len(plane_scene), 3)
    own = sequence.motion.residual.detach()
    assert 0 < own.norm(dim=-1).mean() < 0.1
    frame = torch.tensor([2.5])
    rotations, without = sequence.motion.patterns(
        sequence.moving.means, sequence.motion.weights, frame
    )
    levels = sequence.num_levels - 1
    static = len(sequence.static)
    torch.testing.assert_close(sequence.posed(frame, levels=levels).means[:, static:], without)
    # Halfway between two key frames, rotated by all other levels.
    expected = without[0] + (rotations[0] @ own[:, 2:4].mean(1)[..., None])[..., 0]
    torch.testing.assert_close(sequence.posed(frame).means[0, static:], expected)
    saved_equals(sequence, tmp_path)


@pytest.mark.slow
def test_residuals_are_inherited_by_new_gaussians(plane_scene, tmp_path):
    options = config(tmp_path, motion=MotionConfig(levels=4, prefit_steps=5), epochs=4)
    growing = replace(
        options.density, every=8, start=0.1, stop=0.9, grow_gradient=1e-6, max_moving=1000
    )
    sequence = fit_scene(plane_scene, replace(options, density=growing))
    assert sequence.motion.residual is not None
    assert len(sequence.moving) == len(sequence.motion.residual) != options.moving_gaussians


@pytest.mark.slow
def test_time_varying_weights(plane_scene, tmp_path):
    # The lower half of the square becomes a second object, so that there are two patterns.
    tracks = plane_scene.tracks
    for frame in range(len(plane_scene)):
        mask = plane_scene.mask(frame)
        mask[12:][mask[12:] == 1] = 2
        write_mask(plane_scene.directory, frame, mask)
    lower = np.where(tracks.xy[:, 0, 1] > 12, 2, 1)
    write_tracks(plane_scene.directory / "tracks.npz", replace(tracks, object=lower))
    plane_scene = Scene(plane_scene.directory)
    constant = fit_scene(plane_scene, config(tmp_path / "constant"))
    motion = MotionConfig(weights="time-varying", prefit_steps=5)
    sequence = fit_scene(plane_scene, config(tmp_path, motion=motion))
    frames = len(plane_scene)
    for own, plain in zip(sequence.motion.weights, constant.motion.weights, strict=True):
        assert own.varies and own.logits.shape[1:] == (plain.index.shape[1], frames)
        torch.testing.assert_close(own.values.sum(1), torch.ones(len(own.index), frames))
    several = next(b for b in sequence.motion.weights if b.index.shape[1] > 1)
    assert several.logits.detach().std(-1).max() > 1e-3  # weights differ between frames
    saved_equals(sequence, tmp_path)


def test_equal_weights_in_all_frames_agree_with_constant_weights(plane_scene, tmp_path):
    """Values and gradients agree."""
    fitter = Fitter(plane_scene, config(tmp_path))
    fitter.start()
    sequence = fitter.sequence
    field, weights = sequence.motion.patterns, sequence.motion.weights
    keys = len(field.key_frames)
    varying = [
        replace(b, logits=b.logits.detach()[..., None].repeat(1, 1, keys).requires_grad_())
        for b in weights
    ]
    times = torch.tensor([0.0, 1.3, 4.0])
    quats = sequence.moving.quats_wxyz
    points = sequence.moving.means.detach().requires_grad_()
    expected = field.pose(points, quats, weights, times)
    actual = field.pose(points, quats, varying, times)
    for a, b in zip(actual[:2], expected[:2], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    upstream = torch.randn(actual[1].shape, generator=torch.Generator().manual_seed(0))
    ours = torch.autograd.grad((actual[1] * upstream).sum(), [v.logits for v in varying])
    theirs = torch.autograd.grad((expected[1] * upstream).sum(), [b.logits for b in weights])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.sum(-1), b, atol=1e-4, rtol=1e-3)
    with torch.no_grad():
        back = field.undo(actual[1][1], varying, 1.3)
    torch.testing.assert_close(back, points.detach(), atol=1e-5, rtol=1e-5)


def test_one_flat_layer(plane_scene, tmp_path):
    motion = MotionConfig(model="single", k=3, prefit_steps=5)
    sequence = fit_scene(plane_scene, config(tmp_path, motion=motion))
    assert sequence.num_levels == 1 and sequence.motion.patterns.num_patterns(0) <= 3
    saved_equals(sequence, tmp_path)


def test_colour_loss_only(plane_scene, tmp_path):
    fitter = Fitter(plane_scene, config(tmp_path, losses="rgb"))
    fitter.start()
    terms, _, _ = fitter.objective(fitter.sequence, fitter.data.frames[:1], 0)
    assert set(terms) == {"rgb"}


@pytest.mark.parametrize("degree", [1, pytest.param(3, marks=pytest.mark.reliability)])
def test_view_dependent_colours(plane_scene, tmp_path, degree):
    sequence = fit_scene(plane_scene, config(tmp_path, sh_degree=degree))
    assert sequence.static.harmonics.shape[1] == (degree + 1) ** 2
    finer = sequence.static.harmonics[:, 1:].detach().abs().mean()
    # Adam changes a parameter by at most about its learning rate per step.
    assert 0 < finer < 36 * FitConfig().rate.harmonics / 20
    saved_equals(sequence, tmp_path)


@pytest.mark.reliability
def test_opacities_are_reset(plane_scene, tmp_path):
    options = config(tmp_path)
    density = replace(options.density, reset_every=20, start=0.0, stop=1.0, every=1000)
    fitter = Fitter(plane_scene, replace(options, density=density))
    fitter.start()
    largest = []
    for _ in range(22):
        fitter._one_step(frames_of_step(fitter.data.frames, fitter.config, fitter.step))
        fitter.step += 1
        largest.append(float(fitter.sequence.static.opacities.max()))
    threshold = 2 * density.prune_opacity
    assert min(largest[:20]) > 0.5 and largest[20] == pytest.approx(threshold, rel=1e-4)
    assert largest[21] < 1.1 * threshold  # Adam's momentum is reset too


@pytest.mark.slow
def test_an_interrupted_variant_resumes_exactly(plane_scene, tmp_path, monkeypatch):
    motion = MotionConfig(levels=4, weights="time-varying", prefit_steps=5)
    options = config(tmp_path, motion=motion, epochs=4)
    uninterrupted = fit_scene(plane_scene, replace(options, out=tmp_path / "uninterrupted"))
    step = Fitter._one_step

    def stopping(self, frames):
        if self.step == 13:
            raise KeyboardInterrupt
        return step(self, frames)

    monkeypatch.setattr(Fitter, "_one_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit_scene(plane_scene, options)
    monkeypatch.setattr(Fitter, "_one_step", step)
    resumed = fit_scene(plane_scene, options)
    for name, value in uninterrupted.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
