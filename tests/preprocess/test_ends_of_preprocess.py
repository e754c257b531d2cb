"""How preprocessing ends: links in the scene, another process, a full disk."""

import dataclasses
import errno
import json
import shutil

import numpy as np
import pytest

from msdyn.cli.preprocess import main
from msdyn.errors import InputError, ResourceError
from msdyn.preprocess import STAGES, pipeline, preprocess_video, results
from msdyn.preprocess.multiview import colmap_matching
from msdyn.preprocess.records import CONFIDENCE
from msdyn.scene import Scene, check_scene
from msdyn.writing import LOCK, require_space, writing_to


@pytest.fixture(autouse=True)
def without_report(monkeypatch):
    monkeypatch.setattr(pipeline, "write_report", lambda scene, points: None)


@pytest.mark.parametrize(
    "folder, stage",
    [("images", "frames"), ("masks", "masks"), ("depth", "depth"), (CONFIDENCE, "depth")],
)
def test_a_folder_that_is_a_link_is_refused_before_anything_is_removed(
    config, tmp_path, folder, stage
):
    scene = preprocess_video(config)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "00000.png").write_text("precious")
    shutil.rmtree(scene.directory / folder, ignore_errors=True)
    (scene.directory / folder).symlink_to(elsewhere)
    before = (scene.directory / "scene.json").read_bytes()
    with pytest.raises(InputError, match=f"{folder}: is a link to .*elsewhere.*replace it"):
        preprocess_video(dataclasses.replace(config, redo=(stage,)))
    assert (elsewhere / "00000.png").read_text() == "precious"
    assert (scene.directory / "scene.json").read_bytes() == before
    assert not (scene.directory / LOCK).exists()


def test_a_file_that_is_a_link_is_replaced(config, tmp_path):
    scene = preprocess_video(config)
    other = tmp_path / "tracks.npz"
    shutil.move(scene.directory / "tracks.npz", other)
    before = other.read_bytes()
    (scene.directory / "tracks.npz").symlink_to(other)
    check_scene(preprocess_video(dataclasses.replace(config, redo=("tracks",))))
    assert other.read_bytes() == before
    assert not (scene.directory / "tracks.npz").is_symlink()


def test_a_scene_directory_given_as_a_link_is_fine(config, tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "large")
    preprocess_video(dataclasses.replace(config, out=tmp_path / "link"))
    assert (tmp_path / "large" / "scene.json").is_file()


def test_a_second_process_is_refused(config, ran):
    with writing_to(config.directory):
        lock = config.directory / LOCK
        lock.write_text(json.dumps(json.loads(lock.read_text()) | {"pid": 1, "began": 0}))
    with pytest.raises(InputError, match="process 1 on .*is writing here; wait until"):
        preprocess_video(config)
    assert not ran and [path.name for path in config.directory.iterdir()] == [LOCK]


def test_a_full_disk_ends_a_stage_and_keeps_those_before(config, ran, monkeypatch):
    write = results.write_mask

    def full(directory, frame, mask):
        if frame == 5:
            raise OSError(errno.ENOSPC, "No space left on device", "00005.png")
        write(directory, frame, mask)

    monkeypatch.setattr(results, "write_mask", full)
    with pytest.raises(ResourceError, match="No space left on device; free"):
        preprocess_video(config)
    assert list(Scene(config.out).info.stages) == ["frames", "tracks"]
    assert not (config.out / LOCK).exists()
    monkeypatch.setattr(results, "write_mask", write)
    ran.clear()
    check_scene(preprocess_video(config))
    assert ran == list(STAGES[2:])


def test_an_error_of_a_library_about_the_disk_exits_with_4(config, monkeypatch, capsys):
    def full(*_):
        raise RuntimeError("[database_sqlite.cc:1737] SQLite error: database or disk is full")

    monkeypatch.setattr(pipeline, "write_track_result", full)
    monkeypatch.setattr("msdyn.cli.preprocess.parse", lambda *_, **__: config)
    assert main([]) == 4
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and f"{config.directory}: No space left" in error


def test_colmap_is_not_begun_without_space_for_its_database(tmp_path, monkeypatch):
    class Clip(Scene):
        size = (10, 10)

        def __init__(self):
            pass

        def __len__(self):
            return 10**9

    with pytest.raises(ResourceError, match="MB are needed and .* free; .*TMPDIR"):
        colmap_matching._new_database(Clip(), tmp_path / "features.db")
    require_space(tmp_path, 1, "")
    require_space(tmp_path / "nowhere", 10**18, "")


def test_equal_clips_give_equal_files(config, tmp_path):
    for name in ("a", "b"):
        preprocess_video(dataclasses.replace(config, out=tmp_path / name))
    names = ["tracks.npz", "cameras.json", "depth/00003.npy", "masks/00003.png"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert np.any(Scene(tmp_path / "a").masks())
