"""What the name of a checkpoint means: a folder, or a name on a hub.

A folder in the current directory must not take the place of a repository by having its name.
"""

from __future__ import annotations

import re
from pathlib import Path

from msdyn.errors import InputError

__all__ = ["REPOSITORY", "folder_of"]

REPOSITORY = re.compile(r"[A-Za-z0-9_-][\w.-]*/[\w.-]+(?::[\w./-]+)?", re.ASCII)
"""`owner/name`, or `owner/name:revision`."""


def folder_of(model: str) -> Path | None:
    """Return the folder that a name of a checkpoint stands for, None for a name on a hub.

    Raises:
        InputError: there is a folder of the name, which has the form of a name on a hub.
    """
    path = Path(model).expanduser()
    if not path.is_dir():
        return None
    if REPOSITORY.fullmatch(model):
        raise InputError(
            f"{model}: has the form of a name on a hub, and there is such a folder here; "
            f"write ./{model} for the folder, or run this elsewhere"
        )
    return path
