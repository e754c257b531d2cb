"""PLY files of 3D Gaussian Splatting, by plyfile."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from plyfile import PlyData
from splats import Splats


def splats_at(folder: Path, time: float) -> Splats:
    """Return the Gaussians of the file of a folder that is nearest to a normalised time."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    nearest = int(np.abs(np.subtract(manifest["times"], time)).argmin())
    vertex = PlyData.read(folder / manifest["files"][nearest])["vertex"]
    names = [p.name for p in vertex.properties]

    def columns(prefix: str) -> np.ndarray:
        count = sum(name.startswith(prefix) for name in names)
        return np.stack([vertex[f"{prefix}{i}"] for i in range(count)], -1) if count else None

    harmonics = columns("f_dc_")[:, None]
    if (rest := columns("f_rest_")) is not None:
        rest = rest.reshape(len(rest), 3, -1).swapaxes(1, 2)
        harmonics = np.concatenate([harmonics, rest], 1)
    return Splats(
        np.stack([vertex[name] for name in "xyz"], -1),
        columns("rot_"),
        np.exp(columns("scale_")),
        1 / (1 + np.exp(-vertex["opacity"].astype(float))),
        harmonics,
    )
