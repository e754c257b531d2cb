"""PLY files: Gaussians as 3D Gaussian Splatting stores them, and coloured points.

Binary, little-endian, float32. Parameters of Gaussians are stored before activation, as in msdyn:
`f_dc_*` and `f_rest_*` (spherical harmonics of the colour minus one half; the rest channel by
channel), `opacity` (logit), `scale_*` (logarithm) and `rot_*` (quaternion, wxyz). Normals are zero;
viewers expect these columns.

Reference: `save_ply` in github.com/graphdeco-inria/gaussian-splatting.
"""

from __future__ import annotations

import os

import numpy as np
from jaxtyping import Float, Real, Shaped, UInt8

from msdyn.errors import InputError
from msdyn.writing import atomic_path

__all__ = ["write_gaussians_ply", "write_points_ply"]

_TYPES = {"f": "float", "u": "uchar"}


def write_gaussians_ply(
    path: str | os.PathLike,
    *,
    means: Float[np.ndarray, "gaussians 3"],
    log_scales: Float[np.ndarray, "gaussians 3"],
    quats_wxyz: Float[np.ndarray, "gaussians 4"],
    opacity_logits: Float[np.ndarray, " gaussians"],
    harmonics: Float[np.ndarray, "gaussians coefficients 3"],
) -> None:
    """Write Gaussians, atomically.

    Args:
        path: file name, `.ply`.
        means: scene units.
        log_scales: natural logarithms of scene units.
        quats_wxyz: normalised before they are stored.
        opacity_logits: before the sigmoid.
        harmonics: the (degree + 1)^2 coefficients of the colour minus one half.

    Raises:
        InputError: a number is not finite.
    """
    count = len(means)
    unit = quats_wxyz / np.maximum(np.linalg.norm(quats_wxyz, axis=-1, keepdims=True), 1e-12)
    columns = {name: means[:, i] for i, name in enumerate("xyz")}
    columns |= {f"n{name}": np.zeros(count) for name in "xyz"}
    columns |= {f"f_dc_{i}": harmonics[:, 0, i] for i in range(3)}
    rest = harmonics[:, 1:].swapaxes(1, 2).reshape(count, -1)  # channel by channel
    columns |= {f"f_rest_{i}": rest[:, i] for i in range(rest.shape[1])}
    columns["opacity"] = opacity_logits
    columns |= {f"scale_{i}": log_scales[:, i] for i in range(3)}
    columns |= {f"rot_{i}": unit[:, i] for i in range(4)}
    _write(path, {name: column.astype("<f4") for name, column in columns.items()})


def write_points_ply(
    path: str | os.PathLike,
    points: Real[np.ndarray, "points 3"],
    colours: UInt8[np.ndarray, "points 3"],
) -> None:
    """Write a point cloud, atomically.

    Args:
        path: file name, `.ply`.
        points: scene units.
        colours: RGB.

    Raises:
        InputError: a number is not finite.
    """
    columns = {name: points[:, i].astype("<f4") for i, name in enumerate("xyz")}
    names = ("red", "green", "blue")
    columns |= {name: colours[:, i].astype("u1") for i, name in enumerate(names)}
    _write(path, columns)


def _write(path: str | os.PathLike, columns: dict[str, Shaped[np.ndarray, " rows"]]) -> None:
    for name, column in columns.items():
        if not np.isfinite(column).all():
            raise InputError(f"{path}: {name}: expected finite numbers, got NaN or infinity")
    first = next(iter(columns.values()))
    rows = np.empty(len(first), [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        rows[name] = column
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property {_TYPES[c.dtype.kind]} {name}" for name, c in columns.items()]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join([*header, "end_header", ""]).encode("ascii"))
        file.write(rows.tobytes())
