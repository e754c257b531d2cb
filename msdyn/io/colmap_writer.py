"""COLMAP's text format: `cameras.txt`, `images.txt`, `points3D.txt`.

COLMAP's conventions are ours: OpenCV axes, `cam_from_world`, quaternions `wxyz` in the files, pixel
centres at +0.5. Every image has a camera of its own where the intrinsics differ, one is shared
otherwise.

Reference: colmap.github.io/format.html
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msdyn.errors import InputError
from msdyn.files import atomic_path
from msdyn.geometry import Cameras

__all__ = ["write_colmap"]


def write_colmap(
    directory: str | os.PathLike,
    cameras: Cameras,
    names: Sequence[str],
    points: np.ndarray | None = None,
    colours: np.ndarray | None = None,
) -> Path:
    """Write cameras as a sparse model of COLMAP, each file atomically, and return the folder.

    Args:
        directory: where the three files go.
        cameras: one an image, in the world to be kept.
        names: [T] names of the image files.
        points: [P, 3] world points to go with them, scene units; none by default.
        colours: [P, 3] uint8 RGB of the points.

    Raises:
        InputError: another number of names than of cameras.
    """
    from scipy.spatial.transform import Rotation

    directory = Path(directory)
    if len(names) != len(cameras):
        raise InputError(
            f"names: expected one for each of {len(cameras)} cameras, got {len(names)}"
        )
    intrinsics = cameras.intrinsics
    shared = len(intrinsics) == 0 or bool((intrinsics == intrinsics[0]).all())
    lines = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, fx, fy, cx, cy"]
    for number, k in enumerate(intrinsics[: 1 if shared else None], start=1):
        values = _numbers([k[0, 0], k[1, 1], k[0, 2], k[1, 2]])
        lines.append(f"{number} PINHOLE {cameras.width} {cameras.height} {values}")
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


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    """Return numbers as text that reads back exactly."""
    return " ".join(repr(float(value)) for value in values)


def _write(path: Path, lines: list[str]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
