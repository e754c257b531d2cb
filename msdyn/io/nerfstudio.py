"""nerfstudio's `transforms.json` as the cameras of a clip: its frames in the order of their names.

`msdyn.io.nerfstudio_paths` parses and writes the format.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from msdyn.errors import InputError
from msdyn.geometry import NEGLIGIBLE_PX, Cameras, Lens
from msdyn.io.nerfstudio_paths import DISTORTION, number_of, parse_transforms
from msdyn.io.posed_images import PosedImages
from msdyn.reading import natural_order, read_json, reading, shown

__all__ = ["read_nerfstudio"]

_FISHEYE = "OPENCV_FISHEYE"
_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", _FISHEYE)


def read_nerfstudio(path: str | os.PathLike) -> PosedImages:
    """Read the cameras of a `transforms.json`, sorted by the numbers in the names of their images.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: a key is missing or wrong, sizes differ, or a distortion cannot be inverted.
    """
    path = Path(path)
    with reading(path, "transforms.json of nerfstudio"):
        return _parse(path, read_json(path))


def _parse(path: Path, content: Any) -> PosedImages:
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise InputError(f"{path}: frames: expected a list of at least one posed image")
    model = content.get("camera_model", "OPENCV")
    if model not in _MODELS:
        raise InputError(
            f"{path}: camera_model: expected one of {', '.join(_MODELS)}, got {shown(model)}"
        )
    if content.get("is_fisheye") is True:  # of Instant NGP
        model = _FISHEYE
    names = [str(frame.get("file_path", index)) for index, frame in enumerate(frames)]
    order = sorted(range(len(names)), key=lambda i: natural_order(names[i]))
    cameras, _ = parse_transforms(path, content, distorted=True)
    lenses = _lenses(path, content, cameras, model == _FISHEYE)
    return PosedImages(
        "nerfstudio json",
        cameras[order],
        names=tuple(names[i] for i in order),
        lenses=None if lenses is None else tuple(lenses[i] for i in order),
    )


def _lenses(
    path: Path, content: dict[str, Any], cameras: Cameras, fisheye: bool
) -> list[Lens] | None:
    """Return the lens of each frame, None where all are pinhole cameras.

    As nerfstudio undistorts images: k1 k2 k3 p1 p2 of OpenCV's model, or k1 k2 k3 k4 of its fisheye
    model.
    """
    size, lenses = (cameras.width, cameras.height), []
    for number, (frame, k) in enumerate(zip(content["frames"], cameras.intrinsics, strict=True)):
        where = f"{path}: frame {number}"
        values = {**content, **frame}
        given = {k: number_of(values, k, where) if k in values else 0.0 for k in DISTORTION}
        k1, k2, k3, k4, p1, p2 = (given[key] for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
        focal = (float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]))
        unread = ("p1", p1 or p2) if fisheye else ("k4", k4)
        if unread[1]:
            raise InputError(f"{where}: {unread[0]}: expected 0 with this camera_model")
        with reading(where, "lens"):
            if fisheye:
                lens = Lens(_FISHEYE, (*focal, k1, k2, k3, k4), *size)
            else:
                lens = Lens("FULL_OPENCV", (*focal, k1, k2, p1, p2, k3, 0, 0, 0), *size)
            if k3 == 0 and not fisheye:
                lens = Lens("OPENCV", (*focal, k1, k2, p1, p2), *size)
        lenses.append(lens)
    different = set(lenses)
    with reading(path, "file of lenses"):
        return lenses if any(lens.displacement > NEGLIGIBLE_PX for lens in different) else None
