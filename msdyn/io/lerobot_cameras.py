"""Cameras and depth that a LeRobotDataset has of a camera. There is no standard; we read these.

With CAM for the camera's name without `observation.images.`:

- intrinsics: `observation.intrinsics.CAM`, `observation.intrinsic.CAM`,
  `observation.camera_intrinsics.CAM`, `camera_intrinsics.CAM`, or `NAME.intrinsics` with the
  camera's whole name; and, of a dataset of one camera, the same names without `.CAM`. A 3x3 matrix,
  9 numbers, or fx fy cx cy, in pixels of the video.
- extrinsics: likewise with `extrinsics`. A 4x4 or 3x4 matrix, or 16 or 12 numbers: the pose of the
  camera in the world (`world_from_cam`) unless the feature's `info` has the `convention`
  "cam_from_world"; axes x right, y down, z forward; metres.
- depth: a depth video `NAME_depth`, `NAME.depth`, `observation.depth.CAM` or
  `observation.depths.CAM`, with the quantisation of lerobot 0.6 in its `info`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from msdyn.errors import InputError
from msdyn.geometry import Cameras, invert_transforms, nearest_rotations
from msdyn.io.lerobot import LeRobotDataset
from msdyn.io.lerobot_columns import column_values
from msdyn.io.lerobot_layout import Feature
from msdyn.io.posed_images import checked_cameras, pinhole_intrinsics, pinhole_matrix

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Calibration", "depth_feature", "find_calibration", "image_size"]

_PREFIXES = {
    "intrinsics": (
        "observation.intrinsics",
        "observation.intrinsic",
        "observation.camera_intrinsics",
        "camera_intrinsics",
    ),
    "extrinsics": (
        "observation.extrinsics",
        "observation.extrinsic",
        "observation.camera_extrinsics",
        "observation.camera_extrinsics_world",
        "camera_extrinsics",
    ),
}
_IMAGES = "observation.images."


@dataclass(frozen=True)
class Calibration:
    """What a dataset says of a camera in the frames of an episode.

    Attributes:
        intrinsics: [T, 3, 3] px of the video; None where it does not say.
        cam_from_world: [T, 4, 4], metres; None where it does not say.
        found: in words.
    """

    intrinsics: Float64[np.ndarray, "frames 3 3"] | None
    cam_from_world: Float64[np.ndarray, "frames 4 4"] | None
    found: str

    def cameras(self, size: tuple[int, int], where: str) -> Cameras | None:
        """Return the cameras; None where intrinsics or extrinsics are missing.

        Args:
            size: (height, width) of the video.
            where: the dataset, for the message.

        Raises:
            InputError: not pinhole cameras.
        """
        if self.intrinsics is None or self.cam_from_world is None:
            return None
        height, width = size
        return checked_cameras(where, self.intrinsics, self.cam_from_world, width, height)


def image_size(feature: Feature) -> tuple[int, int]:
    """Return the height and width of the images of a feature.

    Raises:
        InputError: its shape is not that of images.
    """
    shape = feature.shape
    if len(shape) != 3:
        raise InputError(f"shape: expected height, width and channels, got {list(shape)}")
    named = isinstance(feature.names, list) and len(feature.names) == 3
    first = str(feature.names[0]) if named else ""
    channels_first = first.startswith("c") or (not first and shape[0] in (1, 3))
    return (shape[1], shape[2]) if channels_first else (shape[0], shape[1])


def find_calibration(dataset: LeRobotDataset, table: pa.Table, camera: str) -> Calibration:
    """Return what a dataset says of a camera in an episode.

    Args:
        dataset: for its features.
        table: rows of the episode.
        camera: name of the feature of the camera.

    Raises:
        InputError: a feature with such a name has another shape.
    """
    where = f"{dataset.root}"
    names = {kind: _found(dataset, table, camera, kind) for kind in _PREFIXES}
    intrinsics = cam_from_world = None
    said = []
    if (name := names["intrinsics"]) is not None:
        intrinsics = _matrices(column_values(table, name), f"{where}: {name}")
        said.append(f"intrinsics of {name}")
    if (name := names["extrinsics"]) is not None:
        poses = _poses(column_values(table, name), f"{where}: {name}")
        info = dataset.info.features[name].info or {}
        inverse = str(info.get("convention", "")).startswith("cam_from_world")
        cam_from_world = poses if inverse else invert_transforms(poses)
        said.append(
            f"extrinsics of {name}, read as {'cam_from_world' if inverse else 'world_from_cam'}"
        )
    return Calibration(intrinsics, cam_from_world, " and ".join(said) or "no intrinsics, no poses")


def depth_feature(dataset: LeRobotDataset, camera: str) -> str | None:
    """Return the name of the feature with the depth of a camera; None where there is none."""
    short = camera.removeprefix(_IMAGES)
    names = (
        f"{camera}_depth",
        f"{camera}.depth",
        f"observation.depth.{short}",
        f"observation.depths.{short}",
    )
    return next((name for name in names if name in dataset.info.features), None)


def _found(dataset: LeRobotDataset, table: pa.Table, camera: str, kind: str) -> str | None:
    """Return the name of the feature with the intrinsics or extrinsics of a camera."""
    short = camera.removeprefix(_IMAGES)
    names = [f"{prefix}.{short}" for prefix in _PREFIXES[kind]] + [f"{camera}.{kind}"]
    names += _PREFIXES[kind] if len(dataset.cameras) == 1 else ()
    known = dataset.info.features
    return next((name for name in names if name in known and name in table.column_names), None)


def _matrices(values: np.ndarray, what: str) -> Float64[np.ndarray, "frames 3 3"]:
    """Return intrinsics of a column of 3x3 matrices, 9 numbers or fx fy cx cy."""
    if values.dtype.kind in "iuf" and values.shape[1:] == (4,):
        return np.stack([pinhole_matrix(*map(float, row)) for row in values])
    if values.dtype.kind in "iuf" and values.shape[1:] in ((9,), (3, 3)):
        return pinhole_intrinsics(values.reshape(-1, 3, 3).astype(np.float64), what)
    raise InputError(
        f"{what}: expected intrinsics of shape (3, 3), (9,) or (4,), got {values.shape[1:]}"
    )


def _poses(values: np.ndarray, what: str) -> Float64[np.ndarray, "frames 4 4"]:
    """Return poses of a column of 4x4 or 3x4 matrices, or of 16 or 12 numbers."""
    shapes = {(4, 4): 4, (3, 4): 3, (16,): 4, (12,): 3}
    if values.dtype.kind not in "iuf" or values.shape[1:] not in shapes:
        raise InputError(
            f"{what}: expected poses of shape (4, 4), (3, 4), (16,) or (12,), "
            f"got {values.shape[1:]}"
        )
    poses = np.tile(np.eye(4), (len(values), 1, 1))
    rows = shapes[values.shape[1:]]
    poses[:, :rows] = values.reshape(-1, rows, 4)
    return _rigid(poses, what)


def _rigid(poses: np.ndarray, what: str) -> Float64[np.ndarray, "frames 4 4"]:
    """Return poses with exact rotations, which single precision rounds.

    Raises:
        InputError: the matrices are no rotations.
    """
    if not np.isfinite(poses).all():
        raise InputError(f"{what}: expected finite numbers")
    exact = poses.copy()
    exact[:, :3, :3] = nearest_rotations(poses[:, :3, :3])
    if np.abs(exact - poses).max(initial=0) > 1e-3:
        raise InputError(f"{what}: expected rotations in the upper left 3x3")
    return exact
