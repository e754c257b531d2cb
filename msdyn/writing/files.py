"""Writing files that nobody sees half of.

A file is written under a temporary name, brought to the disk and renamed. Temporary names tell the
process that made them, so that those of ended ones can be removed. Below a folder that is opened
for writing (`opened_root`) nothing is written through a link.
"""

import contextlib
import errno
import itertools
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msdyn.errors import InputError, MsdynError, ResourceError
from msdyn.interruption import forget_temporary, keep_temporary
from msdyn.writing.disk import disk_error, full_disk, refused_space
from msdyn.writing.processes import own_tag, tag_has_ended

__all__ = [
    "atomic_path",
    "opened_root",
    "refuse_links",
    "scratch_folder",
    "sweep",
    "temporary_path",
    "without_nan",
    "write_json",
]

_TEMPORARY = re.compile(r".*~([0-9a-f]+(?:-[0-9a-f]+){3})-\d+(\.[^.]*)?")
_SCRATCH = "msdyn-scratch"
_numbers = itertools.count()
# Folders that this process has opened for writing, each with its device and inode.
_roots: dict[Path, tuple[int, int]] = {}


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary sibling of `path` (same suffix), moved onto `path` when the block succeeds.

    On an exception the temporary file is removed and `path` keeps its previous content. A `path`
    that is a link to a file is replaced, not what it links to.

    Raises:
        InputError: a folder of an opened root on the way to the file is a link.
        ResourceError: the disk is full, or does not let the file be written, as far as can be told,
            whatever the block itself raises then.
    """
    path = Path(path)
    _check_place(path)
    temporary = temporary_path(path)
    keep_temporary(temporary)
    try:
        with _told_in_one_line(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        forget_temporary(temporary)


def temporary_path(path: Path) -> Path:
    """Return a new name beside `path`, with its suffix, that `sweep` understands."""
    stem = os.fsdecode(os.fsencode(path.stem)[:80])
    return path.with_name(f".{stem}~{own_tag()}-{next(_numbers)}{path.suffix}")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder for intermediate files, which is removed at the end of the block.

    It is in the folder that TMPDIR names. Those of processes that have ended are removed.
    """
    parent = Path(tempfile.gettempdir())
    for old in parent.glob(f"{_SCRATCH}~*"):
        match = _TEMPORARY.fullmatch(old.name)
        if match and tag_has_ended(match[1]) and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)
    folder = parent / f"{_SCRATCH}~{own_tag()}-{next(_numbers)}"
    keep_temporary(folder)
    try:
        with _told_in_one_line(folder):
            folder.mkdir(mode=0o700)
        try:
            yield folder
        except Exception as error:
            told = None if isinstance(error, MsdynError) else full_disk(error, folder)
            if told is None:
                raise
            raise told from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        forget_temporary(folder)


def sweep(folder: Path) -> int:
    """Remove the temporary files below a folder whose processes have ended; return how many.

    Links are not followed.
    """
    removed = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            match = _TEMPORARY.fullmatch(name) if name.startswith(".") else None
            if match and tag_has_ended(match[1]):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(parent, name))
                    removed += 1
    return removed


@contextlib.contextmanager
def opened_root(folder: Path) -> Iterator[None]:
    """Have writing below an existing folder refuse links, and notice when the folder vanishes."""
    key = Path(os.path.abspath(folder))
    if key in _roots:
        yield
        return
    status = folder.stat()
    _roots[key] = (status.st_dev, status.st_ino)
    try:
        yield
    except Exception as error:
        if isinstance(error, ResourceError):
            raise
        told = _vanished_root()
        if told is None and not isinstance(error, MsdynError):
            told = full_disk(error, folder)
        if told is None:
            raise
        raise told from error
    finally:
        _roots.pop(key, None)


def refuse_links(root: Path, path: Path) -> None:
    """Raise if a folder between `root` and `path`, or `path` itself as a folder, is a link.

    `root` itself may be one: the user has named it.

    Raises:
        InputError: with the link, where it points, and the cure.
    """
    top = Path(os.path.abspath(root))
    parts = Path(os.path.abspath(path)).relative_to(top).parts
    for count in range(1, len(parts) + 1):
        part = top.joinpath(*parts[:count])
        if part.is_symlink() and not part.is_file():
            raise InputError(
                f"{part}: is a link to {os.readlink(part)}, and nothing is written through links "
                "inside a scene or a result; replace it by a folder, or remove it"
            )


def _vanished_root() -> ResourceError | None:
    """Return what is to be said if a folder that is open for writing is not there any more."""
    for root, known in _roots.items():
        try:
            status = os.stat(root)
        except (FileNotFoundError, NotADirectoryError):
            return ResourceError(f"{root}: the folder vanished while the command was writing to it")
        except OSError:
            continue
        if (status.st_dev, status.st_ino) != known:
            return ResourceError(f"{root}: another folder took its place while it was written to")
    return None


def _check_place(path: Path) -> None:
    """Refuse links below the opened roots, and to make a root again that has vanished."""
    whole = Path(os.path.abspath(path))
    for root in _roots:
        if whole.is_relative_to(root):
            gone = _vanished_root()
            if gone:
                raise gone
            refuse_links(root, whole.parent)


@contextlib.contextmanager
def _told_in_one_line(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Raise ResourceError for what is a matter of the disk in the block."""
    try:
        yield
    except MsdynError:
        raise
    except (IsADirectoryError, NotADirectoryError):
        raise
    except Exception as error:
        told = disk_error(error, path)
        if told is None and temporary is not None and temporary.exists():
            told = refused_space(temporary)
        if told is None and isinstance(error, FileNotFoundError) and not path.parent.is_dir():
            told = ResourceError(f"{path.parent}: the folder vanished while it was written to")
        if told is None:
            raise
        # The user knows the file by its own name.
        raise ResourceError(str(told).replace(str(temporary), str(path))) from error


def _sync(path: Path) -> None:
    """Bring the content of a file to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk, where the file system can do that."""
    with contextlib.suppress(OSError):
        _sync(path)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def without_nan(value: Any) -> Any:
    """Replace numbers that JSON does not know (infinity, NaN) by None, in dicts of dicts too."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
