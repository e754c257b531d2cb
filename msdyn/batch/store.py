"""Where a batch is kept: a folder of this machine, or anything fsspec opens, by one interface.

Files appear at once or not at all: on a disk they are renamed, object stores write them whole.
"""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdyn.errors import InputError, MissingExtraError, ResourceError
from msdyn.reading import read_bytes
from msdyn.writing import atomic_path

__all__ = ["Store", "file_system", "local_path"]

_LARGEST = 2**31
"""Bytes of a file that is read whole."""


@dataclass(frozen=True)
class Store:
    """A folder and what is below it; names are relative to it, with slashes.

    Attributes:
        url: of the folder: a path, or a URL such as `s3://bucket/run`.
    """

    url: str

    @property
    def folder(self) -> Path | None:
        """The folder, where it is one of this machine."""
        return local_path(self.url)

    def place(self, name: str) -> str:
        """Return the path or URL of a file."""
        folder = self.folder
        return str(folder / name) if folder is not None else posixpath.join(self.url, name)

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, None where there is none.

        Raises:
            ResourceError: the store does not answer.
        """
        folder = self.folder
        if folder is not None:
            path = folder / name
            return read_bytes(path, _LARGEST) if path.is_file() else None
        system, root = self._system()
        try:
            return system.cat_file(f"{root}/{name}")
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._trouble(name, error) from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file.

        Raises:
            ResourceError: the disk or the store refuses.
        """
        folder = self.folder
        if folder is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes(content)
            return
        system, root = self._system()
        try:
            self._make_parent(system, f"{root}/{name}")
            system.pipe_file(f"{root}/{name}", content)
        except Exception as error:
            raise self._trouble(name, error) from error

    def get(self, name: str, path: Path) -> None:
        """Copy a file from the store.

        Raises:
            FileNotFoundError: there is none.
            ResourceError: the disk or the store refuses.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = self.folder
        with atomic_path(path) as temporary:
            if folder is not None:
                shutil.copyfile(folder / name, temporary)
                return
            system, root = self._system()
            try:
                system.get_file(f"{root}/{name}", str(temporary))
            except FileNotFoundError:
                raise
            except Exception as error:
                raise self._trouble(name, error) from error

    def put(self, path: Path, name: str) -> None:
        """Copy a file to the store.

        Raises:
            ResourceError: the disk or the store refuses.
        """
        folder = self.folder
        if folder is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(path, temporary)
            return
        system, root = self._system()
        try:
            self._make_parent(system, f"{root}/{name}")
            system.put_file(str(path), f"{root}/{name}")
        except Exception as error:
            raise self._trouble(name, error) from error

    def names(self, folder_name: str = "", *, deep: bool = False) -> list[str]:
        """Return the sorted names of the files in a folder of the store; none where it is missing.

        Args:
            folder_name: of the folder; the store itself by default.
            deep: also those of folders below it.
        """
        return sorted(self._names(folder_name, deep))

    def _names(self, folder_name: str, deep: bool) -> Iterator[str]:
        folder = self.folder
        if folder is not None:
            start = folder / folder_name
            if not start.is_dir():
                return
            for path, folders, files in os.walk(start):
                folders[:] = sorted(folders) if deep else []
                for file in files:
                    yield (Path(path) / file).relative_to(folder).as_posix()
            return
        system, root = self._system()
        start = f"{root}/{folder_name}".rstrip("/")
        try:
            system.invalidate_cache()
            found = system.find(start) if deep else system.ls(start, detail=True)
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._trouble(folder_name, error) from error
        if not deep:
            found = [entry["name"] for entry in found if entry.get("type") != "directory"]
        start = f"{root.strip('/')}/"
        for path in found:
            name = str(path).strip("/")
            if name.startswith(start):
                yield name.removeprefix(start)

    def _system(self) -> tuple[Any, str]:
        """Return the file system of fsspec, and the path of this folder in it."""
        return file_system(self.url)

    @staticmethod
    def _make_parent(system: Any, path: str) -> None:
        """Make the folder of a file, where the file system has folders."""
        if getattr(system, "protocol", "") in ("memory", "file", "sftp", "ssh", "hdfs", "smb"):
            system.makedirs(posixpath.dirname(path), exist_ok=True)

    def _trouble(self, name: str, error: Exception) -> ResourceError:
        return ResourceError(f"{self.place(name)}: {type(error).__name__}: {error}")


def local_path(uri: str) -> Path | None:
    """Return the path that a URI names on this machine; None for other URIs."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Path(uri)
    return Path(rest) if scheme in ("file", "local") else None


def file_system(uri: str) -> tuple[Any, str]:
    """Return the file system of fsspec for a URI, and the path in it.

    Raises:
        MissingExtraError: fsspec, or what it needs for this URI, is not installed.
        InputError: an unknown kind of URI.
    """
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtraError(
            f'{uri}: needs fsspec; install it with: pip install "msdyn[cluster]"'
        ) from error
    try:
        system, path = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        raise MissingExtraError(f"{uri}: {error}") from error
    except ValueError as error:
        raise InputError(f"{uri}: {error}") from error
    return system, str(path).rstrip("/")
