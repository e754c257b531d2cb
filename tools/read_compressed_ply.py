"""Compressed PLY files, read by plyfile, and unpacked as PlayCanvas's engine does.

The reader of the package fourdgs (0.6) agrees with it in all but the orientations: it takes the
index of the largest component of a quaternion in the order xyzw, where PlayCanvas's has wxyz.

Reference: `gsplat-compressed-data.js` in github.com/playcanvas/engine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from plyfile import PlyData
from read_spz import file_at
from splats import Splats

SH_C0 = 0.28209479177387814


def compressed_ply_splats(path: Path) -> Splats:
    """Return the Gaussians of a file, in the order of the file."""
    content = PlyData.read(path)
    vertex, chunk = content["vertex"], content["chunk"]
    own = np.arange(len(vertex)) // 256
    bounds = {p.name: np.asarray(chunk[p.name], float)[own] for p in chunk.properties}
    words = {p.name: np.asarray(vertex[p.name]).astype(np.int64) for p in vertex.properties}

    def within(name: str, keys: str, shifts: list[tuple[int, int]]) -> np.ndarray:
        columns = []
        for key, (shift, bits) in zip(keys, shifts, strict=True):
            share = (words[name] >> shift & (2**bits - 1)) / (2**bits - 1)
            prefix = "scale_" if name == "packed_scale" else ""
            low, high = bounds[f"min_{prefix}{key}"], bounds[f"max_{prefix}{key}"]
            columns.append(low + share * (high - low))
        return np.stack(columns, 1)

    uneven = [(21, 11), (11, 10), (0, 11)]
    rgb = within("packed_color", "rgb", [(24, 8), (16, 8), (8, 8)])
    harmonics = ((rgb - 0.5) / SH_C0)[:, None]
    if "sh" in content:
        sh = content["sh"]
        rest = np.stack([np.asarray(sh[f"f_rest_{i}"]) for i in range(len(sh.properties))], 1)
        rest = (rest * (8 / 255) - 4).reshape(len(rest), 3, -1).swapaxes(1, 2)
        harmonics = np.concatenate([harmonics, rest], 1)
    return Splats(
        within("packed_position", "xyz", uneven),
        _quats_wxyz(words["packed_rotation"]),
        np.exp(within("packed_scale", "xyz", uneven)),
        (words["packed_color"] & 255) / 255,
        harmonics,
    )


def _quats_wxyz(words: np.ndarray) -> np.ndarray:
    """Return the quaternions of their three smaller components and the index of the largest."""
    small = np.stack([words >> shift & 1023 for shift in (20, 10, 0)], 1) / 1023 - 0.5
    small = small * np.sqrt(2)
    largest = np.sqrt(np.maximum(1 - (small**2).sum(1), 0))
    quats = np.empty((len(words), 4))
    for index in range(4):
        own = words >> 30 == index
        others = [i for i in range(4) if i != index]
        quats[np.ix_(own, others)] = small[own]
        quats[own, index] = largest[own]
    return quats


def splats_at(path: Path, time: float) -> Splats:
    """Return the Gaussians of a file, or of the file of a folder that is nearest in time."""
    return compressed_ply_splats(path if path.is_file() else file_at(path, time))
