"""Files that a command needs, looked for before the packages that read them are imported.

The readers say the same, seconds later: importing them takes long. What a file holds is left to
them.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

__all__ = ["require_files", "require_scene", "require_sequence", "require_video"]

_RESULTS = {"fit": "fit", "predict": "prediction"}


def require_scene(folder: Path) -> None:
    """Raise FileNotFoundError unless a folder is a scene directory."""
    if not (folder / "scene.json").is_file():
        require_files(folder)
        raise FileNotFoundError(
            f"{folder}: not a scene directory (no scene.json); msdyn-preprocess VIDEO makes one"
        )


def require_sequence(path: Path, source: str) -> None:
    """Raise FileNotFoundError unless a path is a sequence, or a folder that has one.

    Args:
        path: a sequence.safetensors, its folder, or a scene directory.
        source: folder of the scene directory that has it, "fit" or "predict".
    """
    require_files(path)
    inside = path / source / "sequence.safetensors"
    if path.is_dir() and not (path / "sequence.safetensors").is_file() and not inside.is_file():
        raise FileNotFoundError(
            f"{inside}: no {_RESULTS[source]} yet; make one with `msdyn-{source} {path}`"
        )


def require_video(path: Path) -> None:
    """Raise FileNotFoundError unless a path, or a pattern of names, leads to a file."""
    if not (glob.has_magic(str(path)) and glob.glob(str(path))):
        require_files(path)


def require_files(*paths: Path | None) -> None:
    """Raise FileNotFoundError for the first path where there is nothing; None is passed over."""
    for path in paths:
        if path is not None and not os.path.lexists(path):
            raise FileNotFoundError(f"{path}: no such file or folder")
