"""Recordings at any time, by rerun's own reader of chunks."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from rerun.chunk import RrdReader
from scipy.spatial.transform import Rotation
from splats import Splats

from msdyn.export.gaussians import rotated_harmonics

SH_C0 = 0.28209479177387814


Rows: TypeAlias = dict[tuple[str, str], list[tuple[float, Any]]]


def rows_of(path: Path) -> Rows:
    """Return, by entity and component, times in seconds (-inf for ever) and what was logged."""
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read(path: Path, _changed: int) -> Rows:
    rows: Rows = {}
    for chunk in RrdReader(path).stream():
        if not chunk.entity_path.startswith("/world"):
            continue
        table = chunk.to_record_batch()
        seconds = [-np.inf] * len(table)
        if not chunk.is_static:
            seconds = [v / 1e9 for v in table.column("clip").cast("int64").to_pylist()]
        for name in table.schema.names:
            if not name.startswith(("GaussianSplats3D:", "Transform3D:")):
                continue
            column = table.column(name)
            for row, second in enumerate(seconds):
                if column[row].is_valid:
                    key = (chunk.entity_path, name.replace(":", "."))
                    rows.setdefault(key, []).append((second, column[row]))
    return {key: sorted(values, key=lambda value: value[0]) for key, values in rows.items()}


def latest(path: Path, entity: str, name: str, seconds: float) -> np.ndarray | None:
    """Return what holds at a time: what was logged for ever, else last before it."""
    values = rows_of(path).get((entity, name), [])
    valid = [value for second, value in values if second <= seconds + 1e-6]
    if not valid:
        return None
    found = values[0][1] if np.isinf(values[0][0]) else valid[-1]
    return np.array(found.as_py())


def world_from(path: Path, entity: str, seconds: float) -> np.ndarray:
    """Return the transform of an entity: those of all that it is under, in order."""
    world_from_entity = np.eye(4)
    names = entity.split("/")[1:]
    for depth in range(1, len(names) + 1):
        here = "/" + "/".join(names[:depth])
        matrix = np.eye(4)
        mat3x3 = latest(path, here, "Transform3D.mat3x3", seconds)
        translation = latest(path, here, "Transform3D.translation", seconds)
        if mat3x3 is not None:
            matrix[:3, :3] = mat3x3.reshape(3, 3).T  # column by column
        if translation is not None:
            matrix[:3, 3] = translation.reshape(3)
        world_from_entity = world_from_entity @ matrix
    return world_from_entity


def splats_at_seconds(path: Path, seconds: float) -> Splats:
    """Return the splats of a recording at a time on its timeline."""
    parts = []
    for entity in sorted({e for e, name in rows_of(path) if name == "GaussianSplats3D.scales"}):
        means, quats, scales, colours, higher = (
            latest(path, entity, f"GaussianSplats3D.{name}", seconds)
            for name in ("centers", "quaternions", "scales", "colors", "sh_coefficients")
        )
        assert means is not None and quats is not None
        assert scales is not None and colours is not None
        matrix = world_from(path, entity, seconds)
        turned = (Rotation.from_matrix(matrix[:3, :3]) * Rotation.from_quat(quats)).as_quat()
        rgba = np.stack([colours >> shift & 255 for shift in (24, 16, 8, 0)], 1) / 255
        harmonics = ((rgba[:, :3] - 0.5) / SH_C0)[:, None]
        if higher is not None:
            # The viewer evaluates harmonics in the entity's own frame.
            whole = torch.from_numpy(
                np.concatenate([harmonics, higher.reshape(len(means), 15, 3)], 1)
            )
            turn = torch.from_numpy(matrix[:3, :3]).expand(len(means), 3, 3)
            harmonics = rotated_harmonics(whole, turn).numpy()
        parts.append(
            (means @ matrix[:3, :3].T + matrix[:3, 3], turned[:, [3, 0, 1, 2]], scales, rgba[:, 3],
             harmonics)
        )  # fmt: skip
    return Splats(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def splats_at(path: Path, time: float) -> Splats:
    """Return the splats of a recording at a normalised time of what was exported from 0 to 1."""
    times = [second for values in rows_of(path).values() for second, _ in values]
    return splats_at_seconds(path, time * max(times))
