"""The folder of one clip: its record, and its files where the stages can work on them.

A clip has the folder `clips/<id>/` in the store of the batch:

    scene/        the scene directory, with its fit
    log.txt       what the commands said
    clip.json     the clip as the manifest has it
    thumbnail.jpg
    record.json   the rows of all that was run, and the files of the clip

The record is written last. In a store of this machine the stages work in that folder itself. Of any
other store the files are fetched to a scratch folder, those that a stage has changed are stored
again, and then the record: a stage is done when the record says so, and an interrupted one has
changed nothing that counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from msdyn.batch.clips import Clip, Row, folder_name, row_of
from msdyn.batch.store import Store
from msdyn.errors import InputError
from msdyn.reading import decode_json
from msdyn.writing import LOCK, forsake_lock, writing_to

__all__ = ["RECORD", "ClipRecord", "Workspace", "clip_folder", "read_record", "tail_of"]

RECORD = "record.json"
_LOCAL_FILES = ".files.json"
"""In a scratch folder: the files that were fetched or stored, as the record has them."""
_SOURCE, _CLIP = "source", "clip.json"
_VERSION = 1


@dataclass(frozen=True)
class ClipRecord:
    """What is known of a clip.

    Attributes:
        digest: of the clip; rows of another one do not count.
        rows: in the order in which they were made, of all rounds.
        files: digests of the clip's files in the store, by their names.
    """

    digest: str
    rows: tuple[Row, ...] = ()
    files: dict[str, str] = field(default_factory=dict)

    def of_round(self, number: int) -> tuple[Row, ...]:
        """Return the rows of a round."""
        return tuple(row for row in self.rows if row.round == number)


def clip_folder(clip: Clip) -> str:
    """Return the name of a clip's folder in the store."""
    return f"clips/{folder_name(clip.id)}"


def read_record(store: Store, clip: Clip) -> ClipRecord:
    """Return the record of a clip; an empty one where there is none, or it is of another clip.

    Raises:
        InputError: the record is invalid.
        ResourceError: the store does not answer.
    """
    name = f"{clip_folder(clip)}/{RECORD}"
    content = store.read(name)
    if content is None:
        return ClipRecord(clip.digest)
    value = decode_json(content, store.place(name))
    if not isinstance(value, dict) or value.get("version") != _VERSION:
        raise InputError(f"{store.place(name)}: expected a record of version {_VERSION}")
    rows, files = value.get("rows"), value.get("files")
    if not isinstance(rows, list) or not isinstance(files, dict):
        raise InputError(f"{store.place(name)}: expected rows and files")
    files = {str(key): str(item) for key, item in files.items()}
    if value.get("digest") != clip.digest:
        return ClipRecord(clip.digest, files=files)
    return ClipRecord(clip.digest, tuple(map(row_of, rows)), files)


def _write_record(store: Store, clip: Clip, record: ClipRecord) -> None:
    value = {
        "version": _VERSION,
        "digest": record.digest,
        "rows": [row.to_json() for row in record.rows],
        "files": record.files,
    }
    text = json.dumps(value, indent=1, allow_nan=False)
    store.write(f"{clip_folder(clip)}/{RECORD}", text.encode())


class Workspace:
    """The folder of a clip on this machine.

    Attributes:
        clip: the clip.
        folder: where the stages work.
    """

    def __init__(self, store: Store, clip: Clip, scratch: Path | None) -> None:
        """Take the folder in the store itself, or one in the scratch folder.

        Args:
            store: of the batch.
            clip: the clip.
            scratch: folder for the files of stores that are not on this machine.
        """
        self.store, self.clip = store, clip
        here = store.folder
        if here is not None:
            self.folder = here / clip_folder(clip)
        elif scratch is None:
            raise ValueError("a store elsewhere needs a scratch folder")
        else:
            run = hashlib.blake2b(store.url.encode(), digest_size=6).hexdigest()
            self.folder = scratch / f"msdyn-batch-{run}" / folder_name(clip.id)
        self._remote = here is None

    @property
    def scene(self) -> Path:
        """The scene directory."""
        return self.folder / "scene"

    @property
    def log(self) -> Path:
        """What the commands say."""
        return self.folder / "log.txt"

    @property
    def uri(self) -> str:
        """Where the results are."""
        return self.store.place(clip_folder(self.clip))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this machine from the folder.

        A batch gives a clip to one worker at a time. So what another machine has locked, in a
        folder that both share, is of a worker that was lost with it.

        Raises:
            InputError: another process of this machine works on the clip.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.scene, self.scene / "fit"):
            forsake_lock(folder)
        with writing_to(self.folder):
            yield

    def fetch(self, record: ClipRecord) -> None:
        """Bring the folder to the state of a record; no-op in a store of this machine."""
        if not self._remote:
            return
        known = self._known()
        for path in self._files():
            if self._name(path) not in record.files:
                path.unlink()
        for name, digest in record.files.items():
            path = self._path(name)
            if known.get(name) != digest or not path.is_file() or _digest(path) != digest:
                self.store.get(f"{clip_folder(self.clip)}/{name}", path)
        self._remember(record.files)

    def describe(self) -> None:
        """Write the clip as the manifest has it, with its metadata, unless that is there."""
        here = Store(str(self.folder))
        text = json.dumps(asdict(self.clip), indent=2).encode()
        if here.read(_CLIP) != text:
            here.write(_CLIP, text)

    def keep(self, record: ClipRecord, row: Row) -> ClipRecord:
        """Store what has changed, then the record with one more row; return that record."""
        files = record.files
        if self._remote:
            files = {self._name(path): _digest(path) for path in self._files()}
            for name, digest in files.items():
                if record.files.get(name) != digest:
                    self.store.put(self._path(name), f"{clip_folder(self.clip)}/{name}")
        record = ClipRecord(record.digest, (*record.rows, row), files)
        _write_record(self.store, self.clip, record)
        if self._remote:
            self._remember(files)
        return record

    def note_death(self, row: Row) -> ClipRecord:
        """Add the row of a worker that has died to the record, and store the log; return it."""
        record = read_record(self.store, self.clip)
        record = ClipRecord(record.digest, (*record.rows, row), record.files)
        if self._remote and self.log.is_file():
            self.store.put(self.log, f"{clip_folder(self.clip)}/{self.log.name}")
        _write_record(self.store, self.clip, record)
        return record

    @property
    def source(self) -> Path:
        """Folder for the video, where it is fetched from elsewhere; not one of the results."""
        return self.folder / _SOURCE

    def drop_source(self) -> None:
        """Remove the video that was fetched."""
        shutil.rmtree(self.source, ignore_errors=True)

    def clear(self) -> None:
        """Remove what is no result: the fetched video, and of a store elsewhere all files here."""
        self.drop_source()
        if self._remote:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return [path for path in found if not self._is_ours(path)]

    def _is_ours(self, path: Path) -> bool:
        """Return whether a file is none of the results: locks, what is half written, the source."""
        half_written = path.name.startswith(".") and "~" in path.name
        ours = path.name in (LOCK, _LOCAL_FILES, RECORD) or half_written
        return ours or path.relative_to(self.folder).parts[0] == _SOURCE

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _path(self, name: str) -> Path:
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise InputError(f"{self.uri}/{RECORD}: {name!r} is not in the clip's folder")
        return path

    def _known(self) -> dict[str, Any]:
        path = self.folder / _LOCAL_FILES
        if not path.is_file():
            return {}
        content = Store(str(self.folder)).read(_LOCAL_FILES)
        try:
            value = decode_json(content or b"{}", str(path))
        except InputError:
            return {}
        return value if isinstance(value, dict) else {}

    def _remember(self, files: dict[str, str]) -> None:
        Store(str(self.folder)).write(_LOCAL_FILES, json.dumps(files).encode())


def tail_of(path: Path, size: int) -> bytes:
    """Return the last bytes of a file; none where there is no such file."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - size))
            return stream.read()
    except OSError:
        return b""


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
