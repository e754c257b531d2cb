"""Structure from motion by COLMAP's global mapper (GLOMAP), behind plain arrays."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from msdyn.io import load_pycolmap
from msdyn.preprocess.contracts import SparsePoints
from msdyn.preprocess.multiview.colmap import colmap_camera, quiet
from msdyn.preprocess.multiview.intrinsics import KnownIntrinsics
from msdyn.scene import Scene

__all__ = ["Mapping", "map_cameras", "polish"]

# The longest tracks of features, so many per frame: on clips with long tracks three times faster
# than all of them, and as exact.
TRACKS_PER_FRAME = 500
POLISH_ITERATIONS = 10  # 50 change the focal length by less than 0.01 %


@dataclass(frozen=True)
class Mapping:
    """A reconstruction by the mapper.

    Attributes:
        intrinsics: [3, 3], px.
        registered: [T] frames whose camera was found.
        cam_from_world: [T, 4, 4], the identity where not registered.
        points: static structure.
        error: px, mean reprojection error.
        model: COLMAP's own reconstruction, for `polish`.
        tried: number of frames in the database.
    """

    intrinsics: Float[np.ndarray, "3 3"]
    registered: Bool[np.ndarray, " frames"]
    cam_from_world: Float[np.ndarray, "frames 4 4"]
    points: SparsePoints
    error: float
    model: Any
    tried: int

    @property
    def focal(self) -> float:
        """px, along the rows."""
        return float(self.intrinsics[0, 0])

    @property
    def share(self) -> float:
        """Share of the frames in the database that were registered."""
        return float(self.registered.sum() / self.tried)


def map_cameras(
    scene: Scene,
    database: Path,
    focal: float | KnownIntrinsics,
    folder: Path,
    *,
    seed: int,
) -> Mapping | None:
    """Solve cameras and structure of matched frames, from an initial focal length in px, or from
    intrinsics that are known.

    Returns:
        The largest reconstruction, or None where there is none.
    """
    pycolmap = load_pycolmap()
    copy = folder / "mapping.db"
    shutil.copyfile(database, copy)  # the mapper writes into it
    with pycolmap.Database.open(copy) as opened:
        opened.update_camera(colmap_camera(scene, focal))
        tried = opened.num_images()
    options = pycolmap.GlobalPipelineOptions()
    options.random_seed = options.mapper.random_seed = seed
    # In one thread, as the order of sums depends on the threads: five runs on a clip of 20 frames
    # gave five results in two threads, and one in one thread, in 8.8 s instead of 6.0 s.
    options.num_threads = options.mapper.num_threads = 1
    options.mapper.bundle_adjustment.ceres.solver_options.num_threads = 1
    options.multiple_models = False
    options.mapper.track_required_tracks_per_view = TRACKS_PER_FRAME
    if isinstance(focal, KnownIntrinsics) and focal.fixed:
        options.mapper.bundle_adjustment.refine_focal_length = False
    output = folder / "mapping"
    output.mkdir(exist_ok=True)
    with quiet():
        found = pycolmap.global_mapping(copy, scene.directory / "images", output, options)
    if not found:
        return None
    largest = max(found.values(), key=lambda model: model.num_reg_images())
    return _read(largest, len(scene), tried)


def polish(mapping: Mapping, focal: float | None = None, *, fixed: bool = False) -> Mapping:
    """Return the mapping after another bundle adjustment, with a loss of the scale of the errors.

    With `focal` (px) given, the focal length is set to it and fixed; with `fixed`, the intrinsics
    are kept as they are.

    The mapper's loss is quadratic for all errors below a pixel, though most features are several
    times more exact than that and the others are outliers: on a rendered clip of known cameras the
    robust loss reduces the error of the focal length from 1.5 to 0.8 % and that of the path from
    0.087 to 0.062 %.
    """
    pycolmap = load_pycolmap()
    points, rotation = mapping.points, mapping.cam_from_world[mapping.points.frame, :3, :3]
    local = (rotation @ points.xyz[points.point][..., None])[..., 0]
    local += mapping.cam_from_world[points.frame, :3, 3]
    camera = next(iter(mapping.model.cameras.values()))
    k = mapping.intrinsics
    error = k[[0, 1], [0, 1]] * local[:, :2] / local[:, 2:] + k[:2, 2] - points.xy
    options = pycolmap.BundleAdjustmentOptions()
    if focal is not None:
        camera.params = [focal, *camera.params[1:]]
    options.refine_focal_length = focal is None and not fixed
    options.ceres.loss_function_type = pycolmap.LossFunctionType.SOFT_L1
    options.ceres.loss_function_scale = 0.5 * float(np.median(np.linalg.norm(error, axis=1)))
    options.ceres.solver_options.max_num_iterations = POLISH_ITERATIONS
    options.ceres.solver_options.num_threads = 1
    config = pycolmap.BundleAdjustmentConfig()
    for image in mapping.model.reg_image_ids():
        config.add_image(image)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    with quiet():  # pycolmap.bundle_adjustment itself would print, whatever the log level
        pycolmap.create_default_bundle_adjuster(options, config, mapping.model).solve()
        mapping.model.update_point_3d_errors()
    return _read(mapping.model, len(mapping.registered), mapping.tried)


def _read(model: Any, frames: int, tried: int) -> Mapping:
    """Return the arrays of a reconstruction of COLMAP."""
    registered = np.zeros(frames, bool)
    cam_from_world = np.tile(np.eye(4), (frames, 1, 1))
    frame_of_image = {}
    for image in model.images.values():
        if image.has_pose:
            frame = frame_of_image[image.image_id] = int(Path(image.name).stem)
            registered[frame] = True
            cam_from_world[frame, :3] = image.cam_from_world().matrix()
    xyz, point, frame, xy = [], [], [], []
    for number, solved in enumerate(model.points3D.values()):
        xyz.append(solved.xyz)
        for element in solved.track.elements:
            point.append(number)
            frame.append(frame_of_image[element.image_id])
            xy.append(model.images[element.image_id].points2D[element.point2D_idx].xy)
    points = SparsePoints(
        np.array(xyz, np.float64).reshape(-1, 3),
        np.array(point, int),
        np.array(frame, int),
        np.array(xy, np.float32).reshape(-1, 2),
    )
    camera = next(iter(model.cameras.values()))
    k = np.asarray(camera.calibration_matrix(), np.float64)
    error = float(model.compute_mean_reprojection_error())
    return Mapping(k, registered, cam_from_world, points, error, model, tried)
