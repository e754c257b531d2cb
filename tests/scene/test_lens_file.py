"""`lens.json`: read as it was written, or refused in one line."""

import json

import pytest

from msdyn.errors import InputError
from msdyn.geometry import Lens
from msdyn.scene import FrameLenses, original_lenses, read_lenses, write_lenses

LENSES = tuple(
    Lens("OPENCV", (100.0 + i, 101, 64, 48, -0.2, 0.05, 0, 0), 128, 96, skew=0.5) for i in range(2)
)


def test_the_file_is_read_as_it_was_written(tmp_path):
    lenses = FrameLenses.of((LENSES[0], LENSES[1], LENSES[0]))
    assert lenses.of_frame == (0, 1, 0) and lenses[2].lens == LENSES[0]
    write_lenses(tmp_path / "lens.json", lenses)
    assert read_lenses(tmp_path / "lens.json", 3) == lenses == original_lenses(tmp_path, 3)
    assert FrameLenses.of(LENSES[:1] * 4).of_frame == ()
    content = json.loads((tmp_path / "lens.json").read_text())
    del content["lenses"][0]["pinhole"]  # chosen again
    (tmp_path / "lens.json").write_text(json.dumps(content))
    assert read_lenses(tmp_path / "lens.json") == lenses


@pytest.mark.parametrize(
    "change, message",
    [
        ({"format": "other"}, "format: expected 'msdyn-lens'"),
        ({"version": 2}, "version: expected 1, got 2"),
        ({"lenses": []}, "lenses"),
        ({"lenses": [{"model": "WIDE", "params": [1], "width": 128, "height": 96}]}, "one of the"),
        ({"lenses": [{"model": "PINHOLE", "params": "x", "width": 128, "height": 96}]}, "params"),
        ({"of_frame": [0, 2, 0]}, "of_frame: expected 0 to 1"),
        ({"of_frame": [0]}, "of_frame: expected 3 frames, got 1"),
        ({"of_frame": []}, "of_frame: missing"),
    ],
)
def test_wrong_files(tmp_path, change, message):
    write_lenses(tmp_path / "lens.json", FrameLenses.of((LENSES[0], LENSES[1], LENSES[0])))
    content = json.loads((tmp_path / "lens.json").read_text()) | change
    (tmp_path / "lens.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as error:
        read_lenses(tmp_path / "lens.json", 3)
    assert "\n" not in str(error.value) and "lens.json" in str(error.value)


def test_a_scene_that_was_not_undistorted(tmp_path):
    with pytest.raises(InputError, match="--lens original: .* has no lens.json"):
        original_lenses(tmp_path, 3)
