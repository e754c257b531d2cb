"""`points`: a coloured point cloud for every time."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from msdyn.errors import MissingExtraError
from msdyn.export.manifest import manifest
from msdyn.files import atomic_path, write_json
from msdyn.geometry import world_points_from_depth
from msdyn.io import write_points_ply
from msdyn.render import render_image
from msdyn.scene import frame_path
from msdyn.sequence import GaussianSequence, What

__all__ = ["export_points", "surface_points", "to_open3d"]


def surface_points(
    sequence: GaussianSequence, time: float, what: What | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the clip's camera sees at a time as points [P, 3] in the world, and [P, 3] uint8.

    One point a pixel, from rendered depth; pixels that are less than half covered are left out.
    """
    what = what or What()
    camera = sequence.camera_at(time)
    image = render_image(
        sequence,
        camera,
        time,
        levels=what.num_levels(sequence),
        objects=what.labels(sequence),
        background=what.background == "on",
    )
    covered = image.alpha > 0.5
    points = world_points_from_depth(image.depth, camera)[covered]
    # Behind a pixel that is not all covered there is black: the colour itself is brighter.
    colours = image.rgb[covered] / image.alpha[covered, None]
    return points, (colours.clip(0, 1) * 255).round().astype(np.uint8)


def export_points(
    sequence: GaussianSequence, out: Path, times: np.ndarray, what: What | None = None
) -> list[Path]:
    """Write one PLY of points a time and `manifest.json`; through open3d where it is installed."""
    (out / "manifest.json").unlink(missing_ok=True)
    paths, counts = [], []
    for number, time in enumerate(tqdm(times, desc="export points", unit="file")):
        points, colours = surface_points(sequence, float(time), what)
        path = frame_path(out, number, ".ply")
        _write(path, points, colours)
        paths.append(path)
        counts.append(len(points))
    content = manifest(sequence, times, paths, "points") | {"points": counts}
    write_json(out / "manifest.json", content)
    return [*paths, out / "manifest.json"]


def to_open3d(points: np.ndarray, colours: np.ndarray) -> Any:
    """Return points [P, 3] and their colours [P, 3] uint8 as an `open3d.geometry.PointCloud`.

    Raises:
        MissingExtraError: open3d is not installed.
    """
    open3d = _open3d()
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points.astype(np.float64)))
    cloud.colors = open3d.utility.Vector3dVector(colours / 255)
    return cloud


def _write(path: Path, points: np.ndarray, colours: np.ndarray) -> None:
    try:
        open3d = _open3d()
    except ImportError:
        write_points_ply(path, points, colours)
        return
    with atomic_path(path) as temporary:
        open3d.io.write_point_cloud(str(temporary), to_open3d(points, colours))


def _open3d() -> Any:
    try:
        return import_module("open3d")
    except ImportError as error:
        raise MissingExtraError('open3d is not installed: pip install "msdyn[open3d]"') from error
