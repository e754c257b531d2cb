"""Gains of frames in a fit: where they start, what they do to the losses, what is kept of them."""

import json
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from clips import two_boxes
from interrupted_fits import interrupted_and_resumed
from small_fits import config

from msdyn.devices import choose_device
from msdyn.evaluate import evaluate_frames
from msdyn.fit import fit_scene
from msdyn.fit.data import load_fit_data
from msdyn.fit.exposure import FrameExposure
from msdyn.fit.flicker import Flicker
from msdyn.reading import read_json
from msdyn.scene import Scene
from msdyn.sequence import load_sequence
from msdyn.synthetic import write_priors
from msdyn.view import write_report

FRAMES = 12


def steps(count=FRAMES):
    """Log gains of an exposure that steps twice, and of a white balance that drifts."""
    stops = np.where(np.arange(count) % 8 < 4, -0.25, 0.25)[:, None]
    gains = stops * np.log(2) / 2.4 + 0.04 * np.linspace(-1, 1, count)[:, None] * [1, 0, -1]
    return gains - gains.mean(0)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean") / "scene"
    write_priors(two_boxes(FRAMES, 96, 72), folder, level="exact", seed=0)
    return Scene(folder)


@pytest.fixture(scope="module")
def flickering(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flickering") / "scene"
    write_priors(two_boxes(FRAMES, 96, 72), folder, level="exact", seed=0)
    for gain, path in zip(steps(), sorted((folder / "images").glob("*.png")), strict=True):
        colour = (iio.imread(path) / 255 + 0.055) * np.exp(gain) - 0.055
        iio.imwrite(path, (colour.clip(0, 1) * 255).round().astype(np.uint8))
    return Scene(folder)


def data_of(scene, holdout_every=0):
    return load_fit_data(
        scene, long_side=None, holdout_every=holdout_every, device=choose_device("cpu")
    )


def test_auto_uses_gains_only_of_a_flickering_clip(
    clean, flickering, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("TQDM_DISABLE", "")
    options = config(tmp_path)
    assert options.exposure == "auto"
    off = FrameExposure.of(clean, data_of(clean), options)
    assert not off.used and off.result() is None and off.summary() == {"used": False}
    assert "exposure auto: off" in capsys.readouterr().err
    on = FrameExposure.of(flickering, data_of(flickering), options)
    assert on.used and on.summary()["significant"]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "exposure auto: on, exposure varies by 0.5" in said
    found = on.result()
    np.testing.assert_allclose(found.log_gains, steps(), atol=0.01)  # 0.004 when written
    never = FrameExposure.of(flickering, data_of(flickering), replace(options, exposure="off"))
    always = FrameExposure.of(clean, data_of(clean), replace(options, exposure="on"))
    assert not never.used and always.used and not always.summary()["significant"]
    assert "exposure on" in capsys.readouterr().err


def test_held_out_frames_have_no_part_in_it(flickering, tmp_path):
    """Their gains are those of their neighbours, whatever their images are."""
    data = data_of(flickering, holdout_every=4)
    assert data.held_out == [3, 7]
    black = replace(
        data, rgb=data.rgb.changed(lambda frame, image: image // 3 if frame in (3, 7) else image)
    )
    options = config(tmp_path, exposure="on")
    one, other = (FrameExposure.of(flickering, d, options).result() for d in (data, black))
    assert np.array_equal(one.log_gains, other.log_gains)
    around = one.log_gains[[1, 2, 4, 5]]
    np.testing.assert_allclose(one.log_gains[3], np.median(around, axis=0))
    np.testing.assert_allclose(one.log_gains[data.frames].mean(0), 0, atol=1e-6)


def test_held_out_frames_take_part_in_a_drift_but_not_in_a_flash(flickering, tmp_path):
    data = data_of(flickering, holdout_every=2)
    assert data.held_out == [1, 3, 5, 7, 9]
    gains = np.arange(FRAMES)[:, None] * [0.01, 0.02, -0.03]
    gains[[2, 3, 4]] += [[0.5], [9], [0.0]]
    fitted = FrameExposure(data, config(tmp_path), Flicker(gains, 500, 0.5, True))
    found = fitted.result().log_gains
    np.testing.assert_allclose(found[[7, 9]], gains[[7, 9]], atol=1e-6)  # a drift
    assert np.abs(found[5] - gains[5]).max() < 0.05  # two frames after a flash
    assert np.abs(found[3] - np.arange(FRAMES)[3] * np.array([0.01, 0.02, -0.03])).max() < 0.05
    np.testing.assert_allclose(found[1], gains[[0, 2]].mean(0), atol=1e-6)  # two frames only


def test_initial_colours_are_sampled_from_even_images(clean, flickering, tmp_path):
    data, plain = data_of(flickering), data_of(clean)
    exposure = FrameExposure.of(flickering, data, config(tmp_path))
    even = exposure.evened(data)

    def differences(data):
        pairs = [(data.rgb.numpy(f).astype(float), plain.rgb.numpy(f)) for f in range(FRAMES)]
        return np.array([np.abs(np.median(a - b)) for a, b in pairs])

    assert differences(data).min() > 3 and differences(even).max() <= 1
    off = FrameExposure.of(clean, plain, config(tmp_path, exposure="off"))
    assert off.evened(plain) is plain


def test_steps_recover_gains_from_rendered_colours(flickering, tmp_path):
    """Plain gradients of the L1 loss lead from no gains to the true ones; the mean stays zero."""
    data = data_of(flickering)
    fitted = FrameExposure.of(flickering, data, config(tmp_path, exposure="on"))
    true = torch.from_numpy(steps()).float()
    with torch.no_grad():
        fitted.log_gains.zero_()
    colours = torch.rand(1, 72, 96, 3, generator=torch.Generator().manual_seed(0))
    alpha = torch.ones(1, 72, 96)
    for step in range(40 * FRAMES):
        frame = np.array([step % FRAMES])
        truth = data.batch(frame)
        seen = torch.exp(true[frame])[:, None, None] * (colours + 0.055) - 0.055
        truth = replace(truth, rgb=seen.clamp(0, 1))
        image = fitted.applied(colours, alpha, truth)
        (image - truth.rgb).abs().mean().backward()
        fitted.step()
    torch.testing.assert_close(fitted.log_gains.detach(), true, atol=0.01, rtol=0)
    assert float(fitted.log_gains.detach().mean(0).abs().max()) < 1e-6


def test_white_and_black_of_a_frame_are_limits(flickering, tmp_path):
    data = data_of(flickering)
    exposure = FrameExposure.of(flickering, data, config(tmp_path, exposure="on"))
    truth = data.batch(np.array([5]))
    rgb = torch.tensor([1.5, 1.5, 0.2]).repeat(1, 72, 96, 1).requires_grad_()
    with torch.no_grad():
        exposure.log_gains.fill_(0.2)
    white = replace(truth, rgb=torch.tensor([1.0, 0.9, 0.0]).repeat(1, 72, 96, 1))
    image = exposure.applied(rgb, torch.ones(1, 72, 96), white)
    image.sum().backward()
    assert rgb.grad is not None
    assert image[0, 0, 0, 0] == 1.0 and rgb.grad[0, 0, 0, 0] == 0.0
    # Where the frame is not white, what is too bright has a gradient.
    assert image[0, 0, 0, 1] > 1.7 and rgb.grad[0, 0, 0, 1] > 1.2
    assert 0.2 < image[0, 0, 0, 2] < 0.3 and rgb.grad[0, 0, 0, 2] > 1.2


def test_a_fit_with_gains(flickering, tmp_path):
    """Files, losses and report."""
    options = config(tmp_path, epochs=2, long_side=32)
    sequence = fit_scene(flickering, options)
    folder = tmp_path / "fit"
    written = load_sequence(folder)
    assert np.array_equal(written.exposure.log_gains, sequence.exposure.log_gains)
    np.testing.assert_allclose(written.exposure.log_gains, steps(), atol=0.03)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["exposure"] > 0
    assert read_json(folder / "refinement.json")["exposure"]["used"]
    with_gains = evaluate_frames(written, flickering, [0, 5])["mpsnr"]
    without = evaluate_frames(load_without(folder), flickering, [0, 5])["mpsnr"]
    assert with_gains > without + 0.1
    page = write_report(flickering, folder).read_text()
    assert "exposure of the input" in page and "white balance of the input: red / green" in page


def load_without(folder):
    sequence = load_sequence(folder)
    sequence.exposure = None
    return sequence


@pytest.mark.reliability
def test_an_interrupted_fit_with_gains_resumes_exactly(flickering, tmp_path):
    options = config(tmp_path, epochs=2, long_side=32)
    whole = fit_scene(flickering, replace(options, out=tmp_path / "whole"))
    resumed = interrupted_and_resumed(flickering, options, 9)
    assert np.array_equal(resumed.exposure.log_gains, whole.exposure.log_gains)
    assert torch.equal(resumed.static.harmonics, whole.static.harmonics)
