"""Locks of folders: one writer, left locks, names of the other process."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from msdyn.errors import InputError, ResourceError
from msdyn.writing import LOCK, atomic_path, locks, temporary_path, writing_to
from msdyn.writing.processes import own_process

HOLD = """
import sys, time
from pathlib import Path
from msdyn.writing import writing_to
with writing_to(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def holder(folder):
    """Start a process that locks a folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    return process


def leave_lock(folder, **changes):
    """Write the lock of this process with other facts."""
    folder.mkdir(exist_ok=True)
    content = replace(own_process(), **changes).to_json()
    (folder / LOCK).write_text(json.dumps(content | {"command": "msdyn-fit x", "since": "now"}))


def test_a_second_process_is_refused_and_told_of_the_first(tmp_path):
    first = holder(tmp_path / "out")
    with pytest.raises(InputError) as refusal, writing_to(tmp_path / "out"):
        pass
    text = str(refusal.value)
    assert f"process {first.pid} on {own_process().host}, since 2" in text and "--out" in text
    assert "\n" not in text and "remove" not in text
    first.communicate("")
    assert not (tmp_path / "out").exists()  # it was made by the other, and is empty
    with writing_to(tmp_path / "out"):
        assert (tmp_path / "out" / LOCK).is_file()


def test_a_killed_process_leaves_a_lock_that_is_taken_over(tmp_path):
    first = holder(tmp_path)
    first.kill()
    first.wait()
    assert (tmp_path / LOCK).is_file()
    with writing_to(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes",
    [{"began": 1}, {"boot": "an earlier one"}, {"pid": 2**22 + 7}],
    ids=["number used again", "other boot", "no such process"],
)
def test_locks_of_ended_processes(tmp_path, changes):
    leave_lock(tmp_path / "out", **changes)
    with writing_to(tmp_path / "out"):
        pass
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "changes",
    [{"boot": "other", "host": "elsewhere"}, {"space": "pid:[1]"}],
    ids=["another machine", "another container"],
)
def test_locks_of_processes_that_cannot_be_seen(tmp_path, changes):
    leave_lock(tmp_path, **changes)
    with pytest.raises(InputError, match=rf"or remove .*{LOCK} if that process has ended"):
        with writing_to(tmp_path):
            pass
    assert (tmp_path / LOCK).is_file()


@pytest.mark.parametrize("content", ["", "[]", '{"pid": "1"}', '{"pid"', "[" * 100000])
def test_a_damaged_lock_counts_for_ten_seconds(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    with pytest.raises(InputError, match="process"), writing_to(tmp_path):
        pass
    os.utime(tmp_path / LOCK, (1, 1))
    with writing_to(tmp_path):
        pass


def test_a_thread_may_lock_again_another_thread_may_not(tmp_path):
    refused = []

    def other():
        try:
            with writing_to(tmp_path):
                pass
        except InputError as error:
            refused.append(str(error))

    with writing_to(tmp_path), writing_to(tmp_path / "."):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1 and not list(tmp_path.iterdir())


def test_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(locks.os, "link", refuse)
    with writing_to(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    leave_lock(tmp_path, boot="other", host="elsewhere")
    with pytest.raises(InputError), writing_to(tmp_path):
        pass


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="expected a folder, got a file"):
        with writing_to(tmp_path / "file"):
            pass


def test_temporary_files_of_ended_processes_are_removed(tmp_path):
    (tmp_path / "images").mkdir()
    name = temporary_path(tmp_path / "images" / "00001.png").name
    tag = own_process().tag
    alive = tmp_path / "images" / name
    dead = tmp_path / "images" / name.replace(tag, replace(own_process(), began=1).tag)
    distant = tmp_path / name.replace(tag, replace(own_process(), boot="x", host="y").tag)
    other = tmp_path / "images" / ".00001-abcdef.png"
    for path in (alive, dead, distant, other):
        path.write_text("half")
    with writing_to(tmp_path):
        pass
    assert alive.exists() and distant.exists() and other.exists() and not dead.exists()


def test_nothing_is_written_through_a_link(tmp_path):
    elsewhere, scene = tmp_path / "elsewhere", tmp_path / "scene"
    elsewhere.mkdir()
    (elsewhere / "00000.png").write_text("precious")
    scene.mkdir()
    (scene / "depth").symlink_to(elsewhere)
    (scene / "tracks.npz").symlink_to(elsewhere / "00000.png")
    with writing_to(scene):
        with pytest.raises(InputError, match="depth: is a link to .*elsewhere.*; replace it by"):
            with atomic_path(scene / "depth" / "00000.png") as path:
                path.write_text("other")
        with atomic_path(scene / "tracks.npz") as path:  # the link itself is replaced
            path.write_text("tracks")
    assert [p.name for p in elsewhere.iterdir()] == ["00000.png"]
    assert (elsewhere / "00000.png").read_text() == "precious"
    assert (scene / "tracks.npz").read_text() == "tracks"
    (scene / "fit").symlink_to(elsewhere)
    with pytest.raises(InputError, match="fit: is a link"):
        with writing_to(scene / "fit", inside=scene):
            pass
    # A folder of the user's own may be one.
    with writing_to(scene / "fit"), atomic_path(scene / "fit" / "config.json") as path:
        path.write_text("{}")
    assert (elsewhere / "config.json").is_file()


def test_a_folder_that_vanishes(tmp_path):
    with pytest.raises(ResourceError, match="vanished while the command was writing to it"):
        with writing_to(tmp_path / "out"):
            (tmp_path / "out").rename(tmp_path / "moved")
            with atomic_path(tmp_path / "out" / "images" / "00000.png") as path:
                path.write_text("x")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ResourceError, match="another folder took its place"):
        with writing_to(tmp_path / "new"):
            (tmp_path / "new").rename(tmp_path / "old")
            (tmp_path / "new").mkdir()
            raise FileNotFoundError(2, "No such file", "scene.json")
