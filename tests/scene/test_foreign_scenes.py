"""Scene directories of others: records of wrong types, damaged arrays and images are one line."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from msdyn.cli import preprocess
from msdyn.errors import InputError
from msdyn.scene import Keypoints, Scene, Tracks3D, check_scene, save_npz

STORED = Path(__file__).parents[1] / "stored" / "scene"
# Neighbouring cases are alike: one of four is enough for every day.
QUARTERS = [0, *(pytest.param(n, marks=pytest.mark.reliability) for n in (1, 2, 3))]
OTHER = (None, True, -1, 10**30, 2.5, "x", [], {}, [[1]], {"a": {}})


@pytest.fixture
def scene(tmp_path):
    return shutil.copytree(STORED, tmp_path / "scene")


def parts(value, at=()):
    """Yield the place of everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2])
    for key, item in items:
        yield (*at, key)
        if isinstance(item, dict | list):
            yield from parts(item, (*at, key))


def changed(value, place, new, *, remove=False):
    value = copy.deepcopy(value)
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    if remove:
        del inner[place[-1]]
    else:
        inner[place[-1]] = new
    return value


def judged(directory, capsys):
    """Return whether a scene passes the check; it does, or one line says why not."""
    code = preprocess.main(["--check", str(directory)])
    errors = capsys.readouterr().err.strip().splitlines()
    assert code in (0, 2, 3) and len(errors) <= 1, errors
    assert (code == 2) == (len(errors) == 1 and errors[0].startswith("error: "))
    return code != 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scene.json", "cameras.json"])
@pytest.mark.parametrize("part", QUARTERS)
def test_every_value_of_another_type_is_told_in_one_line(scene, capsys, name, part):
    path, refused = scene / name, 0
    content = json.loads(path.read_text())
    cases = [
        changed(content, place, new)
        for number, place in enumerate(parts(content))
        for new in OTHER[number % 2 :: len(place) + 1]
    ]
    cases += [changed(content, place, None, remove=True) for place in parts(content)]
    cases += [*OTHER, content | {"frames": []}]
    for case in cases[part::4]:
        path.write_text(json.dumps(case))
        refused += not judged(scene, capsys)
    assert refused > len(cases[part::4]) / 4


@pytest.mark.parametrize(
    "place, new, message",
    [
        (("frame_count",), "5", "frame_count: expected int, got str"),
        (("frame_count",), 10**9, "frame_count: expected int <= 1000000"),
        (("width",), 10**6, "megapixels"),
        (("fps",), 0, "fps: expected float > 0"),
        (("timestamps",), [0, 1], "timestamps: expected 5, got 2"),
        (("timestamps", 1), "x", r"timestamps\[1\]: expected float, got str"),
        (("stages",), [], "stages: expected object"),
        (("stages", "tracks"), 3, "stages.*: expected object, got int"),
        (("stages", "tracks", "seconds"), "1", "seconds.*: expected float, got str|expected float"),
        (("stages", "depth", "quality", "verdict"), {"grade": "<b>"}, "stages.depth.quality"),
        (("stages", "frames", "options", "source_frames"), [0], "expected one for each of 5"),
        (("stages", "frames", "options", "source_frames", 0), -1, "source_frames"),
        (("stages", "frames", "options", "source_frame_count"), 1, "source_frames: expected 0 to"),
    ],
)
def test_records_name_file_and_key(scene, place, new, message):
    path = scene / "scene.json"
    path.write_text(json.dumps(changed(json.loads(path.read_text()), place, new)))
    with pytest.raises(InputError, match=message) as caught:
        Scene(scene)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_tracks_of_another_number_of_frames_are_refused_before_they_are_read(scene):
    count = 200_000  # 5e8 positions if they were read
    arrays = {
        "xy": np.zeros((1, 2500, 2), np.float32), "visible": np.ones((1, 2500), bool),
        "confidence": np.ones((1, 2500), np.float32), "object": np.zeros(1, np.int32),
        "query_frame": np.zeros(1, np.int32),
    }  # fmt: skip
    save_npz(scene / "tracks.npz", **{k: np.repeat(v, count // 100, 0) for k, v in arrays.items()})
    with pytest.raises(InputError, match=r"tracks\.npz: expected 5 frames, got 2500"):
        _ = Scene(scene).tracks


@pytest.mark.parametrize("name", ["object", "query_frame", "xy"])
@pytest.mark.parametrize("value", [2**40, -(2**40), 1.5, np.nan])
def test_numbers_of_tracks(scene, name, value):
    with np.load(scene / "tracks.npz") as file:
        arrays = dict(file)
    kind = float if isinstance(value, float) else np.int64
    arrays[name] = np.full(arrays[name].shape, value, kind)
    save_npz(scene / "tracks.npz", **arrays)
    if name == "xy" and value == 1.5:
        check_scene(Scene(scene))
        return
    with pytest.raises(InputError, match=name):
        _ = Scene(scene).tracks


def test_keypoints_and_true_tracks():
    good = {"frames": np.array([0, 2]), "xy": np.zeros((2, 1, 2)), "visible": np.ones((2, 1), bool)}
    Keypoints(**good)
    for change in (
        {"frames": np.array([0.0, 2])}, {"frames": np.array([-1, 2])},
        {"visible": np.ones((2, 1))}, {"xy": np.zeros((2, 1, 2), bool)},
    ):  # fmt: skip
        with pytest.raises(InputError, match=next(iter(change))):
            Keypoints(**good | change)
    true = {
        "xyz": np.zeros((2, 3, 3)), "visible": np.ones((2, 3), bool),
        "query_frame": np.array([0, 2]), "query_xy": np.zeros((2, 2)), "object": np.zeros(2, int),
    }  # fmt: skip
    Tracks3D(**true)
    for change in (
        {"query_frame": np.array([0, 3])}, {"query_frame": np.array([0.0, 2])},
        {"visible": np.ones((2, 3))}, {"query_xy": np.full((2, 2), np.nan)},
        {"object": np.full(2, np.nan)}, {"xyz": np.full((2, 3, 3), np.inf)},
    ):  # fmt: skip
        with pytest.raises(InputError, match=next(iter(change))):
            Tracks3D(**true | change)
