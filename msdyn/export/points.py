"""`points`: a coloured point cloud per time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Real, UInt8

from msdyn.export.manifest import manifest
from msdyn.geometry import Cameras, depth_in_camera, import_open3d, world_points_from_depth
from msdyn.io import write_points_ply
from msdyn.progress import track
from msdyn.render import render_image
from msdyn.scene import frame_path
from msdyn.sequence import GaussianSequence, PartSelection
from msdyn.writing import atomic_path, write_json

__all__ = ["export_points", "surface_points", "to_open3d"]


def surface_points(
    sequence: GaussianSequence, time: float, what: PartSelection | None = None
) -> tuple[Float64[np.ndarray, "points 3"], UInt8[np.ndarray, "points 3"]]:
    """Return the surface points visible to the clip's camera at a time, in the world, and colours.

    One point per pixel, from rendered depth; pixels that are less than half covered are left out.
    """
    what = what or PartSelection()
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
    # Partly covered pixels are blended with black; dividing by alpha undoes it.
    colours = image.rgb[covered] / image.alpha[covered, None]
    return points, (colours.clip(0, 1) * 255).round().astype(np.uint8)


def export_points(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    what: PartSelection | None = None,
    *,
    clean: bool = False,
    voxel: float | None = None,
) -> list[Path]:
    """Write one PLY of points per time and `manifest.json`; by open3d where it is installed.

    Args:
        sequence: the fit.
        out: folder.
        times: normalised.
        what: the part of the sequence to export; everything by default.
        clean: merge the points in voxels, remove statistical outliers and write normals, towards
            the camera; needs open3d.
        voxel: side of a voxel, scene units; by default the size of a pixel at the median depth.

    Raises:
        MissingExtraError: `clean` without open3d.
    """
    if clean:
        import_open3d()
    (out / "manifest.json").unlink(missing_ok=True)
    paths, counts = [], []
    for number, time in enumerate(track(times, "export points", unit="file")):
        points, colours = surface_points(sequence, float(time), what)
        path = frame_path(out, number, ".ply")
        if clean:
            cloud = _cleaned(points, colours, sequence.camera_at(float(time)), voxel)
            with atomic_path(path) as temporary:
                import_open3d().io.write_point_cloud(str(temporary), cloud)
            counts.append(len(cloud.points))
        else:
            _write(path, points, colours)
            counts.append(len(points))
        paths.append(path)
    content = manifest(sequence, times, paths, "points") | {"points": counts}
    write_json(out / "manifest.json", content)
    return [*paths, out / "manifest.json"]


def to_open3d(points: Real[np.ndarray, "points 3"], colours: UInt8[np.ndarray, "points 3"]) -> Any:
    """Return points and their colours as an `open3d.geometry.PointCloud`.

    Raises:
        MissingExtraError: open3d is not installed.
    """
    open3d = import_open3d()
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points.astype(np.float64)))
    cloud.colors = open3d.utility.Vector3dVector(colours / 255)
    return cloud


def _write(
    path: Path, points: Real[np.ndarray, "points 3"], colours: UInt8[np.ndarray, "points 3"]
) -> None:
    try:
        open3d = import_open3d()
    except ImportError:
        write_points_ply(path, points, colours)
        return
    with atomic_path(path) as temporary:
        open3d.io.write_point_cloud(str(temporary), to_open3d(points, colours))


def _cleaned(
    points: Float64[np.ndarray, "points 3"],
    colours: UInt8[np.ndarray, "points 3"],
    camera: Cameras,
    voxel: float | None,
) -> Any:
    """Return the points as a cloud of open3d: merged, without outliers, with normals.

    An outlier is further from its 20 neighbours, on average, than the mean of all points plus two
    standard deviations.
    """
    cloud = to_open3d(points, colours)
    if voxel is None and len(points):
        depth = np.median(depth_in_camera(camera.cam_from_world[0], points))
        voxel = float(depth / camera.intrinsics[0, 0, 0])
    if voxel:
        cloud = cloud.voxel_down_sample(voxel)
    if len(cloud.points) > 20:
        cloud, _ = cloud.remove_statistical_outlier(20, 2.0)
    if len(cloud.points) > 3:
        cloud.estimate_normals()
        cloud.orient_normals_towards_camera_location(camera.centres[0])
    return cloud
