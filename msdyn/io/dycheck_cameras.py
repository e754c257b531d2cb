"""Cameras of DyCheck's folder format, `camera/<name>.json`; see `dycheck`.

The distortion is OpenCV's, with three radial and two tangential coefficients, and a skew in px.

Reference: `Camera` in nerfies/camera.py (github.com/google/nerfies), which DyCheck's follows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from msdyn.errors import InputError
from msdyn.geometry import NEGLIGIBLE_PX, Cameras, Lens
from msdyn.io.posed_images import checked_cameras, pinhole_matrix
from msdyn.reading import read_json, reading

__all__ = ["entry_of", "read_dycheck_camera", "read_dycheck_lens"]


def read_dycheck_camera(path: Path) -> Cameras:
    """Read `camera/<name>.json`: one camera, at full size, without distortion.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: a key is missing or wrong, or the camera has a distortion.
    """
    camera, lens = read_dycheck_lens(path)
    if lens.displacement > NEGLIGIBLE_PX:
        raise InputError(
            f"{path}: expected a camera without distortion, got one that moves pixels by up to "
            f"{lens.displacement:.1f} px"
        )
    return camera


def read_dycheck_lens(path: Path) -> tuple[Cameras, Lens]:
    """Read `camera/<name>.json`: one camera, at full size, and its lens with the distortion.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: a key is missing or wrong, or the distortion cannot be inverted.
    """
    with reading(path, "camera of DyCheck"):
        return _parse(path, read_json(path))


def _parse(path: Path, content: Any) -> tuple[Cameras, Lens]:
    values: dict[str, np.ndarray] = {}
    shapes = {
        "orientation": (3, 3), "position": (3,), "focal_length": (), "principal_point": (2,),
        "image_size": (2,), "skew": (), "pixel_aspect_ratio": (), "radial_distortion": (3,),
        "tangential_distortion": (2,),
    }  # fmt: skip
    if isinstance(content, dict) and "tangential" in content:  # older files
        content = {"tangential_distortion": content["tangential"], **content}
    for key, shape in shapes.items():
        value = entry_of(path, content, key)
        with reading(f"{path}: {key}", "array of numbers"):
            values[key] = np.asarray(value, np.float64)
        if values[key].shape != shape:
            raise InputError(f"{path}: {key}: expected shape {shape}, got {values[key].shape}")
    focal = float(values["focal_length"])
    k = pinhole_matrix(
        focal, focal * float(values["pixel_aspect_ratio"]), *values["principal_point"].tolist()
    )
    pose = np.eye(4)
    pose[:3, :3] = values["orientation"]
    pose[:3, 3] = -values["orientation"] @ values["position"]
    width, height = (int(side) for side in values["image_size"])
    camera = checked_cameras(path, k[None], pose[None], width, height)
    (k1, k2, k3), (p1, p2) = values["radial_distortion"], values["tangential_distortion"]
    lens = Lens(
        "FULL_OPENCV",
        (k[0, 0], k[1, 1], k[0, 2], k[1, 2], k1, k2, p1, p2, k3, 0, 0, 0),
        width,
        height,
        float(values["skew"]),
    )
    _ = lens.displacement  # raises where the distortion cannot be inverted
    return camera, lens


def entry_of(path: Path, content: Any, key: str) -> Any:
    """Return a value of a JSON object; without it, raise an InputError that names file and key."""
    if not isinstance(content, dict) or key not in content:
        raise InputError(f"{path}: {key} is missing")
    return content[key]
