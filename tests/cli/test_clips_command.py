"""msdyn-clips as a shell command."""

import json
import subprocess
import sys
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
from clips import two_boxes
from feedforward.data.toy_clips import posed_clip, tracked_clip, wall_clip

from msdyn.cli import clips
from msdyn.feedforward.data import ClipLibrary, ClipWriter
from msdyn.feedforward.data.convert import register_converter
from msdyn.synthetic import write_truth


def lines(capsys, *arguments, code=0):
    assert clips.main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    return (captured.err if code else captured.out).strip().splitlines()


def test_the_command_is_imported_alone():
    """In a process of its own: clips and training import modules of each other."""
    subprocess.run([sys.executable, "-c", "import msdyn.cli.clips"], check=True)


def test_random_scenes_are_written_listed_and_shown(tmp_path, capsys):
    options = ("--count", 2, "--frames", 3, "--size", 16)
    assert lines(capsys, "random", tmp_path, *options) == [f"2 clips written to {tmp_path}"]
    options = ("--count", 3, *options[2:])
    again = f"1 clips written to {tmp_path}; 2 were there before"
    assert lines(capsys, "random", tmp_path, *options) == [again]
    listed = lines(capsys, "list", tmp_path, "--limit", 2)
    assert listed[1].split() == ["random/000000", "3", "3", "16x16", "poses", "yes"]
    assert listed[3] == "... 1 more (--limit)"
    assert listed[4].startswith("random: 3 clips, 18 frames; 1 draws of each per epoch")
    assert listed[5].startswith("3 clips in 2 shards")
    sheet = tmp_path / "sheet.png"
    lines(capsys, "show", tmp_path, "random/000001", "--out", sheet, "--frames", 2)
    assert iio.imread(sheet).shape == (5 * 164, 2 * 164, 3)


@pytest.mark.parametrize("clip", [wall_clip(), tracked_clip(), posed_clip()])
def test_a_sheet_has_a_row_for_all_that_a_clip_has(clip, tmp_path, capsys):
    with ClipWriter(tmp_path) as writer:
        writer.add(clip)
    lines(capsys, "show", tmp_path, f"toy/{clip.name}", "--out", tmp_path / "a.png")
    rows = {"static": 2, "tracks": 3, "poses": 4}[clip.motion]
    assert iio.imread(tmp_path / "a.png").shape[0] == rows * (107 + 4)


def test_scene_directories(tmp_path, capsys):
    scene = write_truth(two_boxes(4, 48, 36), tmp_path / "boxes")
    out = tmp_path / "out"
    written = lines(capsys, "scene", scene, "--out", out, "--name", "b", "--images", "png")
    assert written == [f"1 clips written to {out}"]
    assert [entry.key for entry in ClipLibrary(out).entries] == ["msdyn/b"]
    (error,) = lines(capsys, "scene", tmp_path, "--out", tmp_path / "none", code=2)
    assert "not a scene directory" in error
    assert not (tmp_path / "none").exists()


def test_a_registered_data_set_is_converted_and_resumed(tmp_path, capsys):
    @register_converter("toyset", layout="anything")
    def convert(source):
        for name in ("a", "b"):
            yield replace(wall_clip(name), dataset=source.name)

    source = tmp_path / "source"
    source.mkdir()
    out = tmp_path / "out"
    assert lines(capsys, "convert", "toyset", source, out) == [f"2 clips written to {out}"]
    expected = f"0 clips written to {out}; 2 were there before"
    assert lines(capsys, "convert", "toyset", source, out) == [expected]
    with pytest.raises(SystemExit) as end:
        clips.main(["convert", "nothing", str(source), str(out)])
    assert end.value.code == 2


def test_damaged_clips_may_be_left_out(tmp_path, capsys, caplog):
    def lost(index):
        raise FileNotFoundError(f"/data/{index}.png: no such file")

    @register_converter("torn", layout="anything")
    def convert(source):
        yield wall_clip("a")
        yield wall_clip("b", frame=lost)
        yield wall_clip("c")

    out = tmp_path / "out"
    (error,) = lines(capsys, "convert", "torn", tmp_path, out, code=2)
    assert "/data/0.png" in error
    written = lines(capsys, "convert", "torn", tmp_path, out, "--skip-damaged")
    assert written == [f"1 clips written to {out}; 1 were there before; 1 left out"]
    assert "left out: /data/0.png: no such file" in caplog.text
    assert [entry.name for entry in ClipLibrary(out).entries] == ["a", "c"]


def test_options_of_random_scenes(tmp_path, capsys):
    options = ("--count", 1, "--frames", 2, "--size", 16, "--dataset", "still")
    lines(capsys, "random", tmp_path, *options, "--scenes.camera-travel", 0, 0)
    clip = ClipLibrary(tmp_path).clip("still/000000")
    np.testing.assert_allclose(clip.world_from_cam[0, :3, 3], clip.world_from_cam[1, :3, 3])
    assert json.loads(clip.about["options"])["camera_travel"] == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("random", "x", "--count", "0"), "error: --count: expected at least 1, got 0"),
        (("random", "x", "--quality", "0"), "error: --quality: expected at least 1, got 0"),
        (
            ("scene", "a", "b", "--out", "x", "--name", "c"),
            "error: --name: expected a single scene",
        ),
    ],
)
def test_a_value_out_of_range_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        clips.main(arguments)
    error = capsys.readouterr().err.strip()
    assert end.value.code == 2 and error.startswith(message) and "\n" not in error


def test_folders_and_clips_that_are_not_there(tmp_path, capsys):
    (error,) = lines(capsys, "list", tmp_path / "nothing", code=2)
    assert "no such file or folder" in error
    (error,) = lines(capsys, "list", tmp_path, code=2)
    assert "expected shards" in error
    with ClipWriter(tmp_path) as writer:
        writer.add(wall_clip())
    (error,) = lines(capsys, "show", tmp_path, "toy/x", "--out", tmp_path / "a.png", code=2)
    assert "clip toy/x: expected one of 1 clips" in error
