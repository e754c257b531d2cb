"""Wavefront OBJ files of triangle meshes."""

from __future__ import annotations

import os

import numpy as np
from jaxtyping import Float, Int

from msdyn.writing import atomic_path

__all__ = ["write_obj"]


def write_obj(
    path: str | os.PathLike,
    vertices: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
) -> None:
    """Write a triangle mesh, atomically; coordinates have seven significant digits.

    Args:
        path: file name, `.obj`.
        vertices: in any unit.
        faces: vertex indices from 0, counter-clockwise seen from outside.
    """
    lines = [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
