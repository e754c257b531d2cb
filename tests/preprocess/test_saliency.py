"""Correction of outlines by a network for salient objects, here one that knows the truth."""

import hashlib
import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from moving import write_scene

from msdyn.cli.preprocess import main
from msdyn.errors import InputError
from msdyn.preprocess import pipeline, preprocess_video
from msdyn.preprocess.checkpoints.pinned import PINNED
from msdyn.preprocess.imaging.windows import window_of
from msdyn.preprocess.masks.saliency import find_saliency, with_salient_outlines
from msdyn.scene import IGNORE

FRAMES, HEIGHT, WIDTH = 5, 60, 80


def white(image):
    return (image[..., 0] > 127).astype(np.float32)


def true_masks():
    """Return a body [T, H, W] with a thin leg, 1, and a box apart from it, 2."""
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    masks[:, 10:30, 10:40] = 1
    masks[:, 30:38, 14:18] = 1
    masks[:, 20:40, 55:70] = 2
    return masks


def by_motion(true):
    """Return masks without the leg, with a strip of shadow."""
    masks = true.copy()
    masks[:, 30:38, 14:18] = 0
    masks[:, 30:34, 22:40] = 1
    return masks


@pytest.fixture
def corrected(tmp_path):
    """A function that corrects masks of a clip that is white where it is salient."""

    def correct(salient, masks, predict=white):
        images = np.repeat(salient[..., None], 3, -1).astype(np.uint8) * 255
        scene = write_scene(tmp_path / f"scene{len(list(tmp_path.iterdir()))}", images)
        return np.asarray(with_salient_outlines(scene, masks, predict)[0])

    return correct


def test_limbs_are_added_and_shadows_removed(corrected):
    true = true_masks()
    np.testing.assert_array_equal(corrected(true > 0, by_motion(true)), true)


def test_the_surroundings_are_shown_and_nothing_else(corrected):
    shapes = []

    def recorded(image):
        shapes.append(image.shape)
        return white(image)

    true = true_masks()
    corrected(true > 0, true, recorded)
    # Object 1: 28 x 30, with 6 px on every side; object 2: 20 x 15, with 4 and 3.
    assert set(shapes) == {(6 + 28 + 6, 6 + 30 + 6, 3), (28, 21, 3)}
    assert len(shapes) == 2 * FRAMES


def test_a_salient_neighbour_is_not_taken(corrected):
    """What is large, or of another object, or ignored, does not become part of an object."""
    true = true_masks()
    salient = true > 0
    salient[:, 10:30, 40:46] = True  # touches object 1: a fifth of its area
    masks = true.copy()
    np.testing.assert_array_equal(corrected(salient, masks), masks)
    masks[:, 10:30, 40:43] = 2
    masks[:, 10:30, 43:46] = IGNORE
    np.testing.assert_array_equal(corrected(salient, masks), masks)


@pytest.mark.parametrize(("columns", "removed"), [(9, True), (10, False)])
def test_large_parts_are_not_removed(corrected, columns, removed):
    """Object 1 has 632 px; 180 of them may be removed, 200 not."""
    true = true_masks()
    salient = true > 0
    salient[:, 10:30, 40 - columns : 40] = False
    result = corrected(salient, true)
    assert (result[:, 10:30, 40 - columns : 40] == (0 if removed else 1)).all()


def test_an_object_that_the_network_does_not_see_is_left_alone(corrected):
    """In frames without agreement; and in all, without agreement in most."""
    true, masks = true_masks(), by_motion(true_masks())
    salient = true > 0
    salient[2] = False
    result = corrected(salient, masks)
    np.testing.assert_array_equal(result[2], masks[2])
    np.testing.assert_array_equal(result[[0, 1, 3, 4]], true[[0, 1, 3, 4]])
    salient[:3] = False
    np.testing.assert_array_equal(corrected(salient, masks), masks)


def test_nothing_moves_or_only_specks(corrected):
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    masks[0] = IGNORE
    masks[1, :3, :3] = 1

    def fail(_):
        raise AssertionError("there is nothing to look at")

    np.testing.assert_array_equal(corrected(masks > 0, masks, fail), masks)


def test_an_object_at_the_border_and_of_the_whole_image(corrected):
    masks = np.ones((FRAMES, HEIGHT, WIDTH), np.uint8)
    np.testing.assert_array_equal(corrected(masks > 0, masks), masks)


def test_where_the_network_cannot_be_had(tmp_path, monkeypatch):
    """`on` fails in one line before anything is computed; `auto` and `off` do without."""
    monkeypatch.setenv("MSDYN_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert find_saliency("auto", offline=True) is None
    assert find_saliency("off", offline=True) is None
    with pytest.raises(InputError, match=r"saliency: on, but u2netp cannot be had: not on this"):
        find_saliency("on", offline=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"onnxruntime is not installed \(pip install"):
        find_saliency("on", offline=True)


def test_the_command_fails_before_anything_is_computed(clip, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(clip / "clip.mp4"), "--out", str(out), "--saliency", "on"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "saliency: on, but u2netp cannot be had" in error
    assert not out.exists()


def test_the_pipeline_corrects_outlines_once(config, monkeypatch):
    """Of masks by motion; again without, where that is asked for, and never others."""
    calls = []

    def predict(image):
        calls.append(image.shape)
        return np.ones(image.shape[:2], np.float32)  # agrees with nothing

    def found(choice, *, offline):
        return None if choice == "off" else predict

    monkeypatch.setattr(pipeline, "find_saliency", found)
    config = replace(config, masks="motion")
    stages = preprocess_video(config).info.stages
    count = len(calls)
    assert count >= 6 and stages["masks"]["quality"]["salient_objects"] == 0
    preprocess_video(config)
    assert len(calls) == count
    again = preprocess_video(replace(config, saliency="off")).info.stages
    assert "salient_objects" not in again["masks"]["quality"]
    preprocess_video(replace(config, masks="none", redo=("masks",)))
    assert len(calls) == count


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / PINNED["u2netp"].file).write_bytes(b"no network")
    monkeypatch.setenv("MSDYN_WEIGHTS", str(tmp_path))
    with pytest.raises(InputError, match="not the expected file of weights"):
        find_saliency("auto", offline=True)


@pytest.fixture
def u2netp(shared, monkeypatch):
    """The real network."""
    pytest.importorskip("onnxruntime")
    path = shared / "weights" / PINNED["u2netp"].file
    if not path.is_file():
        pytest.skip("needs u2netp.onnx in ../shared/weights")
    content = path.read_bytes()
    assert len(content) == PINNED["u2netp"].size
    # The digest that the package rembg expects of the same file.
    assert hashlib.md5(content).hexdigest() == "8e83ca70e441ab06c318d82300c84806"
    monkeypatch.setenv("MSDYN_WEIGHTS", str(path.parent))
    return find_saliency("on", offline=True)


def test_a_disc_is_salient(u2netp):
    """Of any size of image, in any colour: it is scaled by its brightest value."""
    for height, width, colour in ((90, 120, (220, 60, 40)), (200, 101, (30, 90, 60))):
        y, x = np.mgrid[:height, :width]
        disc = np.hypot(y - height / 2, x - width / 2) < 30
        image = np.full((height, width, 3), 12, np.uint8)
        image[disc] = colour
        found = u2netp(image)
        assert found.shape == (height, width) and 0 <= found.min() and found.max() <= 1
        assert ((found >= 0.5) & disc).sum() / ((found >= 0.5) | disc).sum() > 0.9


@pytest.mark.parametrize(
    ("margins", "expected"),
    [
        ({}, (slice(10, 14), slice(2, 12))),
        ({"margin_px": 3}, (slice(7, 17), slice(0, 15))),
        ({"margin_share": 0.2}, (slice(9, 15), slice(0, 14))),
    ],
)
def test_boxes_of_masks(margins, expected):
    mask = np.zeros((20, 30), bool)
    mask[10:14, 2:12] = True
    assert window_of(mask, **margins) == expected
    assert window_of(np.zeros((20, 30)), **margins) is None
