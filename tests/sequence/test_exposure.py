"""Exposure of a sequence: its formula, files, editing, and where it is applied and where not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from unchecked import construct_unchecked

from msdyn.errors import InputError
from msdyn.geometry import Similarity
from msdyn.render import render_image, render_images
from msdyn.sequence import (
    Exposure,
    load_sequence,
    retime_object,
    save_sequence,
    without_objects,
)
from msdyn.sequence.exposure import exposed

STORED = Path(__file__).parents[1] / "stored" / "hierarchy.safetensors"


def encoded(light):
    """The sRGB curve of IEC 61966-2-1."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.fixture(scope="module")
def older():
    """A sequence of a file of before there was exposure."""
    return load_sequence(STORED)


@pytest.fixture
def sequence(older):
    frames = np.arange(len(older.timeline), dtype=float)
    gains = 0.1 * np.stack([np.sin(frames), np.cos(2 * frames), -np.sin(frames)], axis=1)
    return older.replaced(exposure=Exposure(gains))


def test_a_gain_of_light_is_a_gain_of_colour():
    """More light through the sRGB curve is the gain of its encoded colours, above black."""
    light = np.linspace(0.01, 0.4, 3 * 40).reshape(1, 5, 8, 3)
    gains = np.array([[2.0, 0.7, 1.0]])
    rgb, alpha = torch.from_numpy(encoded(light)), torch.ones(1, 5, 8).double()
    log_gains = torch.from_numpy(np.log(gains) / 2.4)
    expected = encoded(light * gains)
    np.testing.assert_allclose(exposed(rgb, alpha, log_gains), expected, atol=1e-3)
    # Of colours multiplied by alpha, it is that of the colours multiplied by alpha.
    half = exposed(0.5 * rgb, 0.5 * alpha, log_gains)
    np.testing.assert_allclose(half, 0.5 * exposed(rgb, alpha, log_gains), rtol=1e-12)
    assert torch.equal(exposed(rgb, alpha, torch.zeros(1, 3).double()), rgb)


def test_its_gradient():
    random = torch.Generator().manual_seed(0)
    rgb = torch.rand(2, 3, 4, 3, generator=random, dtype=torch.float64, requires_grad=True)
    log_gains = torch.randn(2, 3, generator=random, dtype=torch.float64, requires_grad=True)
    alpha = torch.rand(2, 3, 4, generator=random, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: exposed(a, alpha, b), (rgb, log_gains))


def test_stops_are_of_light():
    doubled = Exposure(np.full((2, 3), np.log(2.0) / 2.4))
    np.testing.assert_allclose(doubled.stops, 1.0)


def test_it_is_interpolated_over_time():
    exposure = Exposure(np.array([[0.0, 0.1, 0.2], [0.2, 0.1, 0.0], [0.4, 0.1, 0.0]]))
    expected = [[0.05, 0.1, 0.15], [0.4, 0.1, 0.0]]
    np.testing.assert_allclose(exposure.at(np.array([0.25, 2.0])), expected)


def test_it_is_stored_and_older_files_have_none(older, sequence, tmp_path):
    assert older.exposure is None
    save_sequence(older, tmp_path / "older.safetensors")
    with safe_open(tmp_path / "older.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "exposure" in name]  # noqa: SIM118
    save_sequence(sequence, tmp_path / "s.safetensors")
    again = load_sequence(tmp_path / "s.safetensors")
    assert np.array_equal(again.exposure.log_gains, sequence.exposure.log_gains)


@pytest.mark.parametrize(
    "change",
    [
        lambda gains: gains[1:],
        lambda gains: gains[:, :2],
        lambda gains: gains.int(),
        lambda gains: gains + 9,
        lambda gains: gains * float("nan"),
    ],
)
def test_damaged_files(sequence, tmp_path, change):
    path = tmp_path / "s.safetensors"
    save_sequence(sequence, path)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors["exposure.log_gains"] = change(tensors["exposure.log_gains"]).contiguous()
    save_file(tensors, path, metadata)
    with pytest.raises(InputError, match="exposure.log_gains") as caught:
        load_sequence(path)
    assert "\n" not in str(caught.value)


def test_invalid_exposure(older):
    with pytest.raises(InputError, match="expected gains of"):
        older.replaced(exposure=Exposure(np.zeros((len(older.timeline) + 1, 3))))
    with pytest.raises(InputError, match="exposure: expected log gains"):
        construct_unchecked(Exposure, log_gains=np.zeros(3))
    with pytest.raises(InputError, match="up to 8"):
        Exposure(np.full((2, 3), np.nan))


def test_it_is_kept_by_edits(sequence):
    keys = len(sequence.motion.key_frames)
    label, frames = sequence.objects[0], np.zeros(keys)
    edited = [
        sequence.rescaled(Similarity.of(3.0, [0.1, 0, 0])),
        without_objects(sequence, [label]),
        retime_object(sequence, label, frames),
        sequence.to("cpu"),
    ]
    for other in edited:
        assert other.exposure is sequence.exposure


def test_images_have_it_only_where_it_is_asked_for(older, sequence):
    camera, frame = older.cameras[1], 1
    time = older.timeline.time_of_frame(frame)
    plain = render_image(older, camera, time)
    assert np.array_equal(render_image(sequence, camera, time).rgb, plain.rgb)
    assert np.array_equal(render_image(older, camera, time, exposure=True).rgb, plain.rgb)
    image = render_image(sequence, camera, time, exposure=True)
    gain = np.exp(sequence.exposure.log_gains[frame])
    expected = gain * (plain.rgb + 0.055 * plain.alpha[..., None]) - 0.055 * plain.alpha[..., None]
    unclipped = (plain.rgb > 0) & (plain.rgb < 1)
    assert unclipped.any()
    np.testing.assert_allclose(image.rgb[unclipped], expected.clip(0, 1)[unclipped], atol=1e-6)
    assert np.abs(image.rgb - plain.rgb).max() > 0.01
    assert np.array_equal(image.depth, plain.depth) and image.rgb.max() <= 1
    (listed,) = render_images(sequence, camera, [time], exposure=True)
    assert np.array_equal(listed.rgb, image.rgb)
