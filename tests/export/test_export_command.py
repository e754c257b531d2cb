"""msdyn-export as a shell command."""

import json

import numpy as np
import pytest
from commands import exit_code

from msdyn.cli import export
from msdyn.export import FORMATS, export_as

EXPECTED = {
    "ply": ["00000.ply", "00001.ply", "manifest.json"],
    "glb": ["sequence.glb"],
    "usdc": ["sequence.usda"],
    "4dgs": ["sequence.4dgs"],
    "spz": ["00000.spz", "00001.spz", "manifest.json"],
    "compressed-ply": ["00000.compressed.ply", "00001.compressed.ply", "manifest.json"],
    "tracks": ["tracks.npz"],
    "objects": ["object_1.txt", "object_2.txt", "objects.json"],
    "flow": ["flow_00000.flo", "flow_00000.npz", "manifest.json", "moving_00000.png"],
    "cameras": ["cameras_tum.txt", "colmap", "transforms.json"],
    "points": ["00000.ply", "00001.ply", "manifest.json"],
    "html": ["sequence.html"],
    "mjcf": ["manifest.json", "meshes", "scene.xml"],
    "urdf": ["manifest.json", "meshes", "object_1.urdf", "object_2.urdf"],
}
FILES = {
    "glb": "sequence.glb",
    "usdc": "sequence.usda",
    "4dgs": "sequence.4dgs",
    "tracks": "tracks.npz",
    "html": "sequence.html",
}
PACKAGES = {"usdc": "pxr", "4dgs": "fourdgs", "spz": "gsply", "compressed-ply": "gsply"}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_format_prints_its_files(exact_file, tmp_path, capsys, name):
    pytest.importorskip(PACKAGES.get(name, "numpy"))
    out = tmp_path / FILES.get(name, "out")
    options = ["--format", name, "--times", "0,1", "--out", str(out)]
    assert export.main([str(exact_file), *options]) == 0
    written = capsys.readouterr().out.strip()
    assert written.startswith(f"{out} (") and written.endswith(("kB)", "MB)", "bytes)"))
    found = sorted(p.name for p in (out.iterdir() if out.is_dir() else [out]))
    assert found == EXPECTED[name]
    assert not [p for p in tmp_path.rglob(".*")]  # no temporary file is left


def test_all_formats_are_tested():
    assert set(EXPECTED) <= set(FORMATS)


def test_the_default_folder_is_in_the_scene_directory(fitted_plane_scene, tmp_path, capsys):
    import shutil

    scene = shutil.copytree(fitted_plane_scene, tmp_path / "scene")
    assert export.main([str(scene), "--format", "objects", "--fps", "20"]) == 0
    content = json.loads((scene / "export" / "objects" / "objects.json").read_text())
    assert content["seconds"] == pytest.approx(np.arange(0, 0.51, 0.05).tolist())
    assert content["world_units"] == "arbitrary"
    assert str(scene / "export" / "objects") in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, text",
    [
        (["--format", "tracks", "--out", "tracks.txt"], "expected a .npz file"),
        (["--format", "glb", "--out", "a.gltf"], "expected a .glb file"),
        (["--format", "usdc", "--tolerance-px", "-1"], "--tolerance-px: expected"),
        (["--format", "ply", "--baked"], "--baked: expected with --format glb or usdc only"),
        (["--format", "objects", "--objects", "7"], "expected some of [1, 2]"),
        (["--format", "objects", "--objects", "one"], "expected numbers with commas"),
        (["--format", "objects", "--levels", "2"], "expected at most 1"),
        (["--format", "ply", "--levels", "3,1"], "--levels: expected 0, 1, or 1,2"),
        (["--format", "ply", "--times", "0:1"], "from:to:count"),
        (["--format", "ply", "--times", "0:2:3"], "expected 0 (first frame)"),
        (["--format", "ply", "--times", "0:1:0"], "from:to:count"),
        (["--format", "ply", "--time", "0", "--times", "0,1"], "--time, --times: expected one"),
        (["--format", "ply", "--time", "0", "--fps", "3"], "--fps, --time: expected one"),
        (["--format", "objects", "--fps", "-3"], "--fps: expected above 0, got -3"),
        (["--format", "tracks", "--points", "3,4,5"], "--points: expected x,y"),
        (["--format", "tracks", "--points", "3,400"], "y from 0 to 72"),
        (["--format", "tracks", "--query-frame", "8"], "expected 0 to 7"),
        (["--format", "flow", "--time", "0.5"], "at least two times"),
    ],
)
def test_invalid_options(exact_file, tmp_path, monkeypatch, options, text, capsys):
    monkeypatch.chdir(tmp_path)
    assert exit_code(export.main, [exact_file, *options]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and text in lines[0]


def test_query_pixels_can_be_given(exact_file, tmp_path):
    options = ["--format", "tracks", "--points", "40,30:50.5,20.5", "--query-frame", "2"]
    out = tmp_path / "t.npz"
    assert export.main([str(exact_file), *options, "--out", str(out)]) == 0
    with np.load(out) as file:
        np.testing.assert_allclose(file["queries_xyt"], [[40, 30, 2], [50.5, 20.5, 2]])


def test_from_python(exact, tmp_path):
    written = export_as(exact, "objects", tmp_path, fps=50.0, objects="2")
    assert [p.name for p in written.files] == ["object_2.txt", "objects.json"]
    assert written.size == sum(p.stat().st_size for p in tmp_path.iterdir())
    with pytest.raises(ValueError, match="expected one of ply"):
        export_as(exact, "obj", tmp_path)
