"""Stores: folders, fsspec's memory and S3 behave alike."""

from itertools import count

import pytest

from msdyn.batch import Clip, Row, Store
from msdyn.batch.store import local_path
from msdyn.batch.workspace import RECORD, ClipRecord, Workspace, read_record
from msdyn.errors import InputError, MissingExtraError, ResourceError

_numbers = count()


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request, tmp_path):
    if request.param == "folder":
        return Store(str(tmp_path / "run"))
    if request.param == "memory":
        return Store(f"memory://run-{next(_numbers)}")
    return Store(f"{request.getfixturevalue('s3')}/run")


def test_files(store, tmp_path):
    assert store.read("a/b.txt") is None and store.names() == store.names("a") == []
    store.write("a/b.txt", b"one")
    store.write("a/b.txt", b"two")
    store.write("a/c/d.txt", b"")
    store.write("top.txt", b"top")
    assert store.read("a/b.txt") == b"two" and store.read("a/c/d.txt") == b""
    assert store.names() == ["top.txt"] and store.names("a") == ["a/b.txt"]
    assert store.names(deep=True) == ["a/b.txt", "a/c/d.txt", "top.txt"]
    assert store.names("a", deep=True) == ["a/b.txt", "a/c/d.txt"]
    store.get("a/b.txt", tmp_path / "new/copy.txt")
    assert (tmp_path / "new/copy.txt").read_bytes() == b"two"
    store.put(tmp_path / "new/copy.txt", "x/y.txt")
    assert store.read("x/y.txt") == b"two"
    with pytest.raises(FileNotFoundError):
        store.get("none.txt", tmp_path / "none.txt")
    assert not (tmp_path / "none.txt").exists()


def test_workspace_keeps_what_has_changed(store, tmp_path, monkeypatch):
    clip, put = Clip("a/b", "a.mp4"), []
    monkeypatch.setattr(Store, "put", _noting(Store.put, put))
    first = Workspace(store, clip, tmp_path / "one")
    with first.locked():
        record = read_record(store, clip)
        assert record == ClipRecord(clip.digest)
        first.fetch(record)
        first.scene.mkdir()
        (first.scene / "one").write_text("1")
        (first.scene / "two").write_text("2")
        first.source.mkdir()
        (first.source / "a.mp4").write_text("not kept")
        record = first.keep(record, Row(clip.id, "tracks", "done"))
    assert read_record(store, clip) == record
    remote = store.folder is None
    assert len(put) == (2 if remote else 0)
    # Another machine, which has other files of an older try.
    second = Workspace(store, clip, tmp_path / "two")
    with second.locked():
        if remote:
            second.scene.mkdir(parents=True)
            (second.scene / "old").write_text("left over")
            (second.scene / "one").write_text("changed")
        second.fetch(record)
        assert {p.name: p.read_text() for p in second.scene.iterdir()} == {"one": "1", "two": "2"}
        (second.scene / "two").write_text("3")
        (second.scene / "one").unlink()
        put.clear()
        record = second.keep(record, Row(clip.id, "masks", "done"))
    assert put == (["clips/a%2fb/scene/two"] if remote else [])
    assert [row.stage for row in read_record(store, clip).rows] == ["tracks", "masks"]
    # The first machine again: what it has of old files counts for nothing.
    with first.locked():
        first.fetch(record)
        assert {p.name: p.read_text() for p in first.scene.iterdir()} == {"two": "3"}
    second.clear()
    assert second.folder.exists() != remote and not second.source.exists()


def _noting(method, names):
    def put(self, path, name):
        names.append(name)
        method(self, path, name)

    return put


def test_a_clip_that_has_changed_begins_anew(store, tmp_path):
    clip = Clip("a", "a.mp4")
    Workspace(store, clip, tmp_path).note_death(Row("a", "tracks", "crashed"))
    assert len(read_record(store, clip).rows) == 1
    assert read_record(store, Clip("a", "other.mp4")).rows == ()
    assert read_record(store, Clip("a", "a.mp4", metadata={"robot": 1})).rows != ()


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b'{"version": 2}', b'{"version": 1, "rows": 3, "files": {}}',
     b'{"version": 1, "digest": "DIGEST", "rows": [{"clip": "a"}], "files": {}}',
     b'{"version": 1, "digest": "DIGEST", "rows": [{"clip": "a", "stage": "fit", "state": "?"}],'
     b' "files": {}}'],
)  # fmt: skip
def test_damaged_records(tmp_path, content):
    store, clip = Store(str(tmp_path)), Clip("a", "a.mp4")
    store.write(f"clips/a/{RECORD}", content.replace(b"DIGEST", clip.digest.encode()))
    with pytest.raises(InputError) as caught:
        read_record(store, clip)
    assert "\n" not in str(caught.value)


def test_names_of_records_stay_in_their_folder(tmp_path):
    clip = Clip("a", "a.mp4")
    workspace = Workspace(Store("memory://names"), clip, tmp_path)
    workspace.folder.mkdir(parents=True)
    with pytest.raises(InputError, match="not in the clip's folder"):
        workspace.fetch(ClipRecord(clip.digest, files={"../../outside": "1"}))


def test_kinds_of_uris(tmp_path):
    assert str(local_path("a/b.mp4")) == "a/b.mp4" and str(local_path("file:///a/b")) == "/a/b"
    assert local_path("s3://bucket/a") is None
    with pytest.raises((InputError, MissingExtraError), match="nothing"):
        Store("nothing://x").read("a")


def test_a_store_that_does_not_answer(s3):
    with pytest.raises(ResourceError, match=r"no-such-bucket/a/b: \w+"):
        Store("s3://no-such-bucket/a").write("b", b"")
