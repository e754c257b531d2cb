"""nerfstudio's `transforms.json` as the cameras of a clip: its frames in the order of their names.

`msdyn.io.nerfstudio_paths` parses and writes the format.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from msdyn.errors import InputError
from msdyn.io.nerfstudio_paths import parse_transforms
from msdyn.io.posed_images import PosedImages
from msdyn.reading import natural_order, read_json, reading

__all__ = ["read_nerfstudio"]

_PINHOLE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE")


def read_nerfstudio(path: str | os.PathLike) -> PosedImages:
    """Read the cameras of a `transforms.json`, sorted by the numbers in the names of their images.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: a key is missing or wrong, sizes differ, or the images have a distortion.
    """
    path = Path(path)
    with reading(path, "transforms.json of nerfstudio"):
        return _parse(path, read_json(path))


def _parse(path: Path, content: Any) -> PosedImages:
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise InputError(f"{path}: frames: expected a list of at least one posed image")
    model = content.get("camera_model", "OPENCV")
    if model not in _PINHOLE:
        raise InputError(
            f"{path}: camera_model: expected one of {', '.join(_PINHOLE)}, got {model!r}"
        )
    names = [str(frame.get("file_path", index)) for index, frame in enumerate(frames)]
    order = sorted(range(len(names)), key=lambda i: natural_order(names[i]))
    cameras, _ = parse_transforms(path, content)
    return PosedImages("nerfstudio json", cameras[order], names=tuple(names[i] for i in order))
