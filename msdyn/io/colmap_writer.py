"""COLMAP's text format: `cameras.txt`, `images.txt`, `points3D.txt`.

The conventions are those of msdyn: OpenCV axes, `cam_from_world`, pixel centres at +0.5.
Quaternions are `wxyz` in the files. All images share one camera unless the intrinsics differ.

Reference: colmap.github.io/format.html
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Real, UInt8

from msdyn.errors import InputError
from msdyn.geometry import Cameras, Lens
from msdyn.writing import atomic_path

__all__ = ["write_colmap"]


def write_colmap(
    directory: str | os.PathLike,
    cameras: Cameras,
    names: Sequence[str],
    points: Real[np.ndarray, "points 3"] | None = None,
    colours: UInt8[np.ndarray, "points 3"] | None = None,
    lenses: Sequence[Lens] | None = None,
) -> Path:
    """Write cameras as a sparse model of COLMAP, each file atomically, and return the folder.

    Args:
        directory: folder of the three files.
        cameras: one per image.
        names: of the image files.
        points: 3D points of the model, scene units; none by default.
        colours: RGB of the points; black by default.
        lenses: one per image, written in place of the intrinsics of `cameras`.

    Raises:
        InputError: the number of names is not that of the cameras, or a lens has a skew.
    """
    from scipy.spatial.transform import Rotation

    directory = Path(directory)
    if len(names) != len(cameras):
        raise InputError(
            f"names: expected one for each of {len(cameras)} cameras, got {len(names)}"
        )
    if lenses is None:
        values = cameras.intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]].tolist()
        lenses = [Lens("PINHOLE", tuple(row), cameras.width, cameras.height) for row in values]
    if any(lens.skew for lens in lenses):
        raise InputError("COLMAP: expected cameras without skew; leave --lens out")
    shared = len(set(lenses)) < 2
    lines = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"]
    for number, lens in enumerate(lenses[: 1 if shared else None], start=1):
        size = f"{lens.width} {lens.height}"
        lines.append(f"{number} {lens.model} {size} {_numbers(lens.params)}")
    _write(directory / "cameras.txt", lines)

    lines = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME; then its 2D points (none)"]
    quats_xyzw = Rotation.from_matrix(cameras.cam_from_world[:, :3, :3]).as_quat()
    rows = zip(quats_xyzw, cameras.cam_from_world[:, :3, 3], names, strict=True)
    for number, (q, t, name) in enumerate(rows, start=1):
        camera = 1 if shared else number
        lines += [f"{number} {_numbers([q[3], *q[:3], *t])} {camera} {name}", ""]
    _write(directory / "images.txt", lines)

    lines = ["# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[]"]
    points = np.zeros((0, 3)) if points is None else points
    colours = np.zeros((len(points), 3), np.uint8) if colours is None else colours
    for number, (point, colour) in enumerate(zip(points, colours, strict=True), start=1):
        lines.append(f"{number} {_numbers(point)} {' '.join(map(str, colour.tolist()))} 0")
    _write(directory / "points3D.txt", lines)
    return directory


def _numbers(values: Sequence[float] | Real[np.ndarray, " values"]) -> str:
    """Return numbers as text that converts back to the same numbers."""
    return " ".join(repr(float(value)) for value in values)


def _write(path: Path, lines: list[str]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
