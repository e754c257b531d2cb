"""The layout of a recording is found by its files where --from does not say it."""

from pathlib import Path

import pytest

from msdyn.cli.preprocess import options
from msdyn.errors import InputError
from msdyn.preprocess.config import IMPORT_KINDS, ImportConfig, PreprocessConfig
from msdyn.preprocess.recording_kinds import KNOWN_BY, kind_of, with_kind

FILES = {
    "lerobot": "meta/info.json",
    "dycheck": "dataset.json camera/0.json depth/1x/0.npy",
    "nerfies": "dataset.json camera/0.json",
    "panoptic": "train_meta.json",
    "blender": "transforms_train.json",
    "recording": "cameras.json",
    "vipe": "rgb/clip.mp4 pose/clip.npz",
    "record3d": "EXR_RGBD/rgb/0.png",
    "mcap": "metadata.yaml",
}


def folder_of(path, files):
    for name in files.split():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"")
    return path


@pytest.mark.parametrize("kind", FILES)
def test_each_kind_is_found(tmp_path, kind):
    path = folder_of(tmp_path / "a", FILES[kind])
    assert set(FILES) == set(KNOWN_BY) == set(IMPORT_KINDS)
    assert kind_of(path) == kind
    arguments, line = with_kind([str(path), "--max-frames", "8"])
    assert arguments == ["--from", kind, str(path), "--max-frames", "8"]
    assert f"--from {kind}" in line and str(path) in line
    assert with_kind(["--from", "auto", str(path)])[0] == ["--from", kind, str(path)]
    assert with_kind([str(path), "--from=auto"])[0] == ["--from", kind, str(path)]
    kept = ["--from", "vipe", str(path)]
    assert with_kind(kept) == (kept, "")
    folder_of(path, "scene.json")
    # DyCheck, Nerfies and HyperNeRF have a scene.json of their own.
    assert kind_of(path) == (kind if kind in ("dycheck", "nerfies") else None)


def test_the_command_takes_it(tmp_path, capsys):
    path = folder_of(tmp_path / "rig", "train_meta.json")
    config = options([str(path), "--input-camera", "3"])
    assert isinstance(config, ImportConfig) and config.kind == "panoptic"
    assert "--from panoptic" in capsys.readouterr().out
    assert type(options(["clip.mp4"])) is PreprocessConfig


@pytest.mark.parametrize("name", ["a.mcap", "a.R3D", "a.bag"])
def test_files(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert kind_of(tmp_path / name) in ("mcap", "record3d")


def test_a_folder_of_images_is_a_clip(tmp_path):
    """Also with cameras beside the images; and the values of options are no recordings."""
    path = folder_of(tmp_path / "a", "0.png cameras.json transforms.json images/0.png")
    assert with_kind([str(path)]) == ([str(path)], "")
    other = folder_of(tmp_path / "b", "cameras.json points.npz")
    arguments = ["clip.mp4", "--cameras", "files", "--cameras-path", str(other)]
    assert with_kind(arguments) == (arguments, "")


def test_what_is_of_no_known_layout(tmp_path, capsys):
    path = folder_of(tmp_path / "a", "notes.txt")
    with pytest.raises(SystemExit) as end:
        options(["--from", "auto", str(path)])
    error = capsys.readouterr().err.strip()
    assert end.value.code == 2 and len(error.splitlines()) == 1
    assert all(kind in error for kind in KNOWN_BY) and str(path) in error
    assert with_kind([str(path)]) == ([str(path)], "")  # the frames stage says what it expects


@pytest.mark.parametrize(
    "files, layout, cameras",
    [
        ("images/0.png transforms.json", "nerfstudio", "transforms.json"),
        ("images/0.png sparse/0/cameras.bin", "COLMAP", "sparse/0"),
    ],
)
def test_images_and_cameras_apart(tmp_path, files, layout, cameras):
    path = folder_of(tmp_path / "a", files)
    expected = f"msdyn-preprocess {path / 'images'} --cameras files --cameras-path {path / cameras}"
    with pytest.raises(InputError, match=layout) as error:
        with_kind([str(path)])
    assert expected in str(error.value)
    assert Path(str(error.value).split()[-1]).exists()
