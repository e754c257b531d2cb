"""What a network for salient objects, here one that knows the truth, says about motion."""

import hashlib
import importlib.util
from dataclasses import replace

import cv2
import imageio.v3 as iio
import numpy as np
import pytest
from moving import iou, panning, paste, texture, write_scene

from msdyn.cli.preprocess import main
from msdyn.errors import InputError
from msdyn.preprocess import preprocess_video
from msdyn.preprocess.checkpoints.pinned import PINNED
from msdyn.preprocess.imaging.windows import window_of
from msdyn.preprocess.masks import motion
from msdyn.preprocess.masks.motion import MotionMasks
from msdyn.preprocess.masks.saliency import Saliency, find_saliency
from msdyn.preprocess.masks.salient_motion import SalientMotion
from msdyn.preprocess.masks.salient_outlines import with_salient_outlines
from msdyn.preprocess.tracks.chained_flow import FlowTracks
from msdyn.scene import IGNORE, Tracks

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
    masks[:, 30:34, 24:40] = 1
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


@pytest.mark.parametrize(("columns", "removed"), [(3, True), (4, False)])
def test_large_parts_are_not_removed(corrected, columns, removed):
    """Object 1 has 632 px; 60 of them may be removed, 80 not."""
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


@pytest.mark.parametrize("masks", ["none", "files"])
def test_masks_that_cannot_use_it_are_told(masks, tmp_path, capsys):
    arguments = ["clip.mp4", "--saliency", "on", "--masks", masks]
    arguments += ["--masks-path", str(tmp_path)] * (masks == "files")
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"saliency: on, but masks is {masks}; use --masks" in error


def test_the_pipeline_asks_the_network_about_every_frame_once(config, monkeypatch):
    """Of masks by motion, and then about their objects; again without, where that is asked for."""
    calls = []

    def predict(image):
        calls.append(image.shape)
        return np.ones(image.shape[:2], np.float32)  # agrees with nothing

    def found(choice, *, offline):
        return None if choice == "off" else Saliency(predict)

    monkeypatch.setattr(motion, "find_saliency", found)
    config = replace(config, masks="motion")
    scene = preprocess_video(config)
    whole = [shape for shape in calls if shape[:2] == scene.size]
    assert len(whole) == len(scene) and len(calls) >= len(whole) + 6
    quality = scene.info.stages["masks"]["quality"]
    assert quality["salient_objects"] == 0 and quality["saliency"] == 0
    count = len(calls)
    preprocess_video(config)
    assert len(calls) == count
    again = preprocess_video(replace(config, saliency="off")).info.stages
    assert not {"salient_objects", "saliency"} & set(again["masks"]["quality"])
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
    found = find_saliency("on", offline=True)
    assert found is not None
    return found.predict


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


def standing(count, frames=FRAMES):
    """Return tracks of a grid over the whole image, none of which moves."""
    y, x = np.mgrid[1 : HEIGHT : HEIGHT / count, 1 : WIDTH : WIDTH / count].reshape(2, -1)
    xy = np.repeat(np.stack([x, y], 1)[:, None], frames, 1)
    shown = np.ones(xy.shape[:2], bool)
    return Tracks.from_dense(xy, shown, shown * 1.0, np.zeros(len(xy)), np.zeros(len(xy)))


@pytest.fixture
def evidence(tmp_path):
    """A function that makes the evidence of a clip that is white where it is salient."""

    def make(salient, tracks, log_odds):
        images = np.repeat(salient[..., None], 3, -1).astype(np.uint8) * 255
        scene = write_scene(tmp_path / f"scene{len(list(tmp_path.iterdir()))}", images)
        return SalientMotion(Saliency(white), scene, tracks, log_odds)

    return make


def left(frames=FRAMES):
    half = np.zeros((frames, HEIGHT, WIDTH), bool)
    half[:, :, : WIDTH // 2] = True
    return half


def odds_of(tracks, moving, size=4.0):
    """Return log odds that say that the tracks move that are on `moving` in the first frame."""
    rows, xy = tracks.at(0)
    odds = np.zeros(len(tracks))
    odds[rows] = np.where(moving[0][xy[:, 1].astype(int), xy[:, 0].astype(int)], size, -size)
    return odds


def test_saliency_is_evidence_where_it_goes_with_the_motion(evidence):
    """By the formula: the odds among tracks as salient, and 20 average ones, to those of all."""
    tracks = standing(20)
    odds = odds_of(tracks, left())
    found = evidence(left(), tracks, odds)
    moves = 1 / (1 + np.exp(-4))
    # A column of 20 tracks next to the border between the halves is less clearly not salient.
    on_left, at_border, on_right = (
        np.log((n * p + 10) / (n * (1 - p) + 10))
        for n, p in ((200, moves), (20, 1 - moves), (180, 1 - moves))
    )
    pixels = found.of_pixels(2)
    assert pixels.shape == (HEIGHT // 2, WIDTH // 2)
    np.testing.assert_allclose(pixels[:, :19], on_left)
    np.testing.assert_allclose(pixels[:, 20], at_border)
    np.testing.assert_allclose(pixels[:, 21:], on_right)
    expected = {value.round(9) for value in (on_left, at_border, on_right)}
    assert set(found.of_tracks().round(9)) == expected
    assert ((found.of_tracks() > 0) == (odds > 0)).all() and on_left > 2


def test_where_still_things_are_salient_the_evidence_is_the_opposite(evidence):
    tracks = standing(20)
    odds = odds_of(tracks, left())
    np.testing.assert_allclose(
        evidence(~left(), tracks, odds).of_pixels(0), evidence(left(), tracks, odds).of_pixels(0)
    )
    assert (evidence(~left(), tracks, odds).of_tracks()[odds > 0] > 2).all()


@pytest.mark.parametrize("case", ["unrelated", "constant", "uncertain", "unknown", "nothing moves"])
def test_saliency_says_nothing(evidence, case):
    """Where it has nothing to do with motion, or no motion is certain."""
    tracks, salient = standing(20), left()
    top = np.zeros_like(salient)
    top[:, : HEIGHT // 2] = True
    odds = odds_of(tracks, top)
    if case == "constant":
        salient[:] = True
    elif case == "uncertain":
        odds = odds_of(tracks, left(), size=1.0)
    elif case == "unknown":
        odds[:] = np.nan
    elif case == "nothing moves":
        odds[:] = -5.0
    found = evidence(salient, tracks, odds)
    assert found.strength < 0.05 and np.abs(found.of_tracks()).max() < 0.05


def test_few_tracks_say_little(evidence):
    strengths = []
    for count in (2, 6, 20):
        tracks = standing(count)
        strengths.append(evidence(left(), tracks, odds_of(tracks, left())).strength)
    assert 0 < strengths[0] < 0.25 and strengths[0] < strengths[1] < strengths[2]


def test_one_odd_frame_does_not_change_the_tracks(evidence):
    tracks, salient = standing(20), left()
    odds = odds_of(tracks, salient)
    before = evidence(salient, tracks, odds).of_tracks()
    salient[3] = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5
    found = evidence(salient, tracks, odds)
    np.testing.assert_allclose(found.of_tracks(), before)
    assert np.abs(found.of_pixels(3)).mean() < 0.6 < np.abs(found.of_pixels(2)).mean()


def test_a_map_is_half_as_large_and_computed_once(tmp_path):
    images = np.zeros((2, 61, 81, 3), np.uint8)
    images[1, :, 40:] = 255
    scene = write_scene(tmp_path / "scene", images)
    calls = []
    saliency = Saliency(lambda image: (calls.append(image), white(image))[1])
    for _ in range(2):
        assert (
            saliency.of_frame(scene, 0).shape == (31, 41) and not saliency.of_frame(scene, 0).any()
        )
        second = saliency.of_frame(scene, 1)
        assert (second[:, :19] == 0).all() and (second[:, 22:] == 255).all()
    assert len(calls) == 2


@pytest.mark.reliability
def test_masks_of_a_real_animal_are_better_with_the_real_network(u2netp, shared, tmp_path):
    frames, width, height = 14, 320, 180
    video = iio.imread(shared / "clips" / "camel.mp4", plugin="pyav")[:frames]
    images = [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in video]
    scene = write_scene(tmp_path / "s", np.stack(images))
    tracks = FlowTracks().track(scene).tracks
    files = [shared / "clips" / "camel_masks" / f"{i:05d}.png" for i in range(frames)]
    truth = [cv2.resize(iio.imread(file), (width, height)) > 0 for file in files]
    overlaps = []
    for saliency in (None, Saliency(u2netp)):
        backend = MotionMasks()
        backend.__dict__["network"] = saliency
        result = backend.segment(scene, tracks, None).masks
        overlaps.append(np.mean([iou(m > 0, t) for m, t in zip(result, truth, strict=True)]))
    # Measured: 0.82 and 0.86.
    assert overlaps[1] > overlaps[0] + 0.02


def test_flat_parts_of_what_moves_are_found(tmp_path):
    """A square with a flat lower half over a flat wall: only saliency knows where it ends."""
    frames, height, width = 14, 120, 160
    clip, _ = panning(frames, (height, width), degrees=0.2, shift=(1.2, 0.3))
    clip[:, 60:] = 128
    sprite = texture(60, 44, seed=4)
    sprite[28:] = 135
    pasted = [paste(image, sprite, (20 + 4 * t, 34)) for t, image in enumerate(clip)]
    scene = write_scene(tmp_path / "s", np.stack([image for image, _ in pasted]))
    tracks = FlowTracks().track(scene).tracks
    truth = {image.tobytes(): true for image, true in pasted}
    network = Saliency(lambda image: truth[image.tobytes()].astype(np.float32))
    overlaps = []
    for saliency in (None, network):
        backend = MotionMasks()
        backend.__dict__["network"] = saliency
        masks = backend.segment(scene, tracks, None).masks
        overlaps.append(np.mean([iou(m > 0, t) for m, (_, t) in zip(masks, pasted, strict=True)]))
    # Measured: 0.46 and 0.60.
    assert overlaps[1] > overlaps[0] + 0.1


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
