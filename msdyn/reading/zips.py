"""Members of zip files, read one at a time; their names are never taken for paths."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator

from msdyn.errors import InputError
from msdyn.reading.guard import reading, required_file, shown
from msdyn.reading.limits import LARGEST_TEXT, check_packed

__all__ = ["ZipMembers", "opened_zip"]

_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1


class ZipMembers:
    """The members of an open zip file.

    Attributes:
        names: of the members, in their order; folders are left out.
    """

    def __init__(self, path: str, file: zipfile.ZipFile) -> None:
        self._path, self._file = path, file
        self.names = tuple(info.filename for info in file.infolist() if not info.is_dir())

    def read(self, name: str, largest: int = LARGEST_TEXT) -> bytes:
        """Return the content of a member.

        Raises:
            InputError: there is no such member, it has more than `largest` bytes, is encrypted, or
                damaged.
        """
        where = f"{self._path}: {shown(name)}"
        if name not in self._file.NameToInfo:
            raise InputError(f"{where}: missing in this zip file")
        info = self._file.getinfo(name)
        if info.compress_type not in _PACKINGS or info.flag_bits & _ENCRYPTED:
            raise InputError(f"{where}: expected a member that is stored or deflated")
        if info.file_size > largest:
            raise InputError(f"{where}: expected at most {largest / 1e6:.0f} MB, got more")
        check_packed(info.compress_size, info.file_size, where)
        with reading(where, "member of a zip file"):
            return self._file.read(info)  # up to `file_size`, and compares the checksum


@contextlib.contextmanager
def opened_zip(path: str | os.PathLike) -> Iterator[ZipMembers]:
    """Open a zip file for reading its members in the block; what fails there is an `InputError`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not a zip file.
    """
    path = required_file(path)
    with reading(path, "zip file"), zipfile.ZipFile(path) as file:
        yield ZipMembers(str(path), file)
