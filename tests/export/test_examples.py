"""Every example runs as its docstring describes, and writes its files."""

import re
import runpy
import sys
from pathlib import Path

import imageio.v3 as iio
import pytest

from msdyn.sequence import load_sequence

EXAMPLES = Path(__file__).parents[2] / "examples"
LEAVES = {
    "first_render": ["render.png"],
    "slow_motion": ["slow.mp4"],
    "follow_points": ["tracks.npz"],
    "object_motion": ["objects/objects.json", "objects/object_1.txt"],
    "moving_masks": ["flow.png", "moving.png"],
    "take_it_elsewhere": ["ply/00002.ply", "cameras/transforms.json", "points/00000.ply",
                          "sequence.html"],
    "edit_motion": ["edited.mp4", "edited.safetensors"],
}  # fmt: skip


LONG = {"robot_demo"}
"""Examples that take minutes, run by the tests of reliability."""


def test_all_examples_are_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(LEAVES) | LONG


@pytest.mark.parametrize("name", LEAVES)
def test_an_example(name, exact_file, tmp_path, monkeypatch, capsys):
    path = EXAMPLES / f"{name}.py"
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 45, "an example is one page"
    assert f"python examples/{name}.py scene_dir out" in text
    monkeypatch.setattr(sys, "argv", [str(path), str(exact_file), str(tmp_path)])
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    assert said.strip()
    for left in LEAVES[name]:
        assert (tmp_path / left).stat().st_size > 0
    if name == "edit_motion":
        edited = load_sequence(tmp_path / "edited.safetensors")
        assert edited.objects == [1]
    if name == "moving_masks":
        assert 0.05 < (iio.imread(tmp_path / "moving.png") > 0).mean() < 0.6
        moved = re.match(r"(\d+)% of the pixels", said)
        assert moved and int(moved[1]) > 5
