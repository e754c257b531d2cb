"""Prompts for segmentation networks: from the user's file, and from weight-free masks."""

import json

import numpy as np
import pytest
from moving import write_scene

from msdyn.cli.preprocess import main
from msdyn.errors import InputError
from msdyn.preprocess import PreprocessConfig
from msdyn.preprocess.masks.prompts import prompts_from_masks, read_phrases, read_prompts
from msdyn.preprocess.phrases import parse_phrases, prompts_file
from msdyn.scene import Scene, stamp_stage

SIZE = (48, 64)


@pytest.fixture
def scene(tmp_path):
    """Frames 0, 3, 6 and 9 of a video of 128x96, at half size."""
    scene = write_scene(tmp_path / "s", np.zeros((4, *SIZE, 3), np.uint8))
    options = dict(scene.info.stages["frames"]["options"])
    options |= {"source_frames": [0, 3, 6, 9], "source_frame_count": 12}
    options |= {"source_width": 128, "source_height": 96}
    stamp_stage(
        scene.directory, "frames", backend="video", options=options, input_hash="f", seconds=0.0
    )
    return Scene(scene.directory)


def read(tmp_path, scene, content):
    (tmp_path / "p.json").write_text(json.dumps(content))
    return read_prompts(tmp_path / "p.json", scene)


def test_clicks_and_boxes_in_pixels_of_the_video(tmp_path, scene):
    content = {
        "prompts": [
            {"object": 2, "frame": 6, "points": [[100, 50], [20, 90]], "labels": [1, 0]},
            {"frame": 0, "box": [10, 20, 30, 44]},
        ]
    }
    clicks, box = read(tmp_path, scene, content)
    assert (clicks.object, clicks.frame, clicks.box) == (2, 2, None)
    assert clicks.points.tolist() == [[50, 25], [10, 45]] and clicks.labels.tolist() == [1, 0]
    assert (box.object, box.frame, box.box) == (1, 0, (5, 10, 15, 22)) and len(box.points) == 0


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"frame": 6, "points": []}, "expected a box, or at least one point on the object"),
        ({"frame": 6, "points": [[5, 5]], "labels": [0]}, "at least one point on the object"),
        ({"frame": 6, "points": [[5, 5]], "labels": [1, 1]}, "labels: expected 1 of 0 or 1"),
        ({"frame": 6, "points": [[500, 5]]}, "within the video's 128x96"),
        ({"frame": 6, "points": [["a", 5]]}, "points: expected rows of 2 numbers"),
        ({"frame": 6, "box": [30, 5, 10, 20]}, "x0 < x1 and y0 < y1"),
        ({"frame": 5, "points": [[5, 5]]}, "got 5; the nearest one is 6"),
        ({"points": [[5, 5]]}, "frame: expected a frame of the video that is kept, got None"),
        ({"object": 0, "frame": 0, "points": [[5, 5]]}, "object: expected 1 to 254, got 0"),
        (3, "expected an object, got 3"),
        ({"frame": 6, "points": [[5, 5]], "text": "cup, pen"}, "text: expected one noun phrase"),
        ({"frame": 6, "points": [[5, 5]], "text": 3}, "text: expected one noun phrase, got 3"),
    ],
)
def test_prompts_that_are_wrong(tmp_path, scene, entry, message):
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, scene, {"prompts": [entry]})
    assert "prompt 0" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="prompts: expected a list"):
        read(tmp_path, scene, {"clicks": []})


def test_prompts_of_masks_lie_on_their_objects():
    masks = np.zeros((20, 96, 128), np.uint8)
    for t in range(20):
        masks[t, 20:60, 5 + 2 * t : 35 + 2 * t] = 1
        if 5 <= t < 15:
            masks[t, 70:90, 90 - t : 120 - t] = 2
    masks[7, 20:60] = 0  # the first object is missing in a frame
    masks[12, 30:90, 60:128][masks[12, 30:90, 60:128] == 0] = 1  # and bled over for another
    prompts = prompts_from_masks(masks)
    assert {p.object for p in prompts} == {1, 2}
    for p in prompts:
        own = masks[p.frame] == p.object
        for (x, y), label in zip(p.points, p.labels, strict=True):
            assert own[int(y), int(x)] == bool(label)
        rows, columns = np.nonzero(own)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_allclose(p.box, box, atol=2)
    of_one = [p.frame for p in prompts if p.object == 1]
    assert 1 < len(of_one) <= 3 and not {7, 12} & set(of_one)
    assert min(np.diff(sorted(of_one))) >= 4
    assert all(5 <= p.frame < 15 for p in prompts if p.object == 2)
    # Points off an object are on the other.
    both = next(p for p in prompts if p.object == 2)
    assert (both.labels == 0).sum() == 1


def test_nothing_moves_nothing_is_prompted():
    assert prompts_from_masks(np.zeros((5, 48, 64), np.uint8)) == []
    specks = np.zeros((5, 48, 64), np.uint8)
    specks[:, 10, 10] = 1
    assert prompts_from_masks(specks) == []


def test_texts_of_a_file_are_names_or_phrases(tmp_path, scene):
    content = [
        {"text": "red  mug"},
        {"object": 2, "frame": 6, "points": [[100, 50]], "text": "gripper"},
        {"text": "pen"},
        {"text": "pen"},
    ]
    (named,) = read(tmp_path, scene, content)
    assert (named.object, named.name) == (2, "gripper")
    assert read_phrases(tmp_path / "p.json") == ("red mug", "pen")
    for entry, message in (
        ({"text": "pen", "object": 3}, "prompt 0: a text alone finds objects of its own, without"),
        ({"text": ""}, "prompt 0: text: expected one noun phrase, got ''"),
    ):
        (tmp_path / "p.json").write_text(json.dumps([entry]))
        with pytest.raises(InputError, match=message):
            read_phrases(tmp_path / "p.json")


def test_what_is_a_file_and_what_are_phrases(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_phrases(" gripper,red   mug , Gripper") == ("gripper", "red mug")
    assert parse_phrases("tasse à café") == ("tasse à café",)
    assert prompts_file("gone.JSON") is not None and prompts_file("red mug, w/o handle") is None
    assert prompts_file("cup " * 500) is None
    (tmp_path / "clicks").write_text("[]")
    assert prompts_file("clicks") is not None and prompts_file("clicks, cup") is None
    config = PreprocessConfig(tmp_path / "v.mp4", prompts="cup, pen", masks_model="/my/own")
    assert config.phrases == ("cup", "pen") and config.prompts_file is None


def test_a_missing_file_is_one_line(tmp_path, capsys):
    (tmp_path / "v.mp4").touch()
    arguments = [str(tmp_path / "v.mp4"), "--masks", "sam2", "--prompts", "gone.json"]
    assert main(arguments) == 2
    assert capsys.readouterr().err == "error: gone.json: no such file or folder\n"
