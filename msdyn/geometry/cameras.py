"""Pinhole cameras and projection.

Conventions: OpenCV axes (x right, y down, z forward), `cam_from_world` 4x4, pixel centres at +0.5,
z-depth. The projection functions take numpy arrays or torch tensors, broadcast over leading
dimensions and keep dtype and device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Real, Shaped
from torch import Tensor

from msdyn.devices import upload
from msdyn.errors import InputError
from msdyn.geometry.rigid import Array, Similarity
from msdyn.reading import check_image_size

__all__ = [
    "CameraTensors",
    "Cameras",
    "depth_in_camera",
    "invert_transforms",
    "look_at",
    "nearest_pixels",
    "project",
    "transform_points",
    "unproject",
    "world_points_from_depth",
]

_LARGEST = 1e12
"""Of what is computed with cameras in single precision."""
_SAME = 1e-9
"""Difference of centres (scene units) or elements of poses below which they are the same."""


def transform_points(
    dst_from_src: Float[Array, "*#batch rows 4"], points: Float[Array, "*#batch points 3"]
) -> Float[Array, "*#batch points 3"]:
    """Map points [..., P, 3] by transforms [..., 4, 4] (or [..., 3, 4]) to [..., P, 3]."""
    return points @ dst_from_src[..., :3, :3].swapaxes(-1, -2) + dst_from_src[..., None, :3, 3]


def project(
    intrinsics: Float[Array, "*#batch 3 3"], points_cam: Float[Array, "*#batch points 3"]
) -> Float[Array, "*#batch points 2"]:
    """Project points in camera coordinates to pixels.

    Args:
        intrinsics: [..., 3, 3].
        points_cam: [..., P, 3], scene units; depth zero gives infinity or NaN, as division does.

    Returns:
        Pixels [..., P, 2], the centre of the first pixel at (0.5, 0.5).
    """
    homogeneous = points_cam @ intrinsics.swapaxes(-1, -2)
    return homogeneous[..., :2] / homogeneous[..., 2:]


def unproject(
    intrinsics: Float[Array, "*#batch 3 3"],
    xy: Float[Array, "*#batch points 2"],
    depth: Float[Array, "*#batch points"],
) -> Float[Array, "*#batch points 3"]:
    """Return the camera-frame points of pixels at given z-depths, the inverse of `project`.

    Args:
        intrinsics: [..., 3, 3], with zero skew.
        xy: [..., P, 2] px.
        depth: [..., P] z-depth in scene units.

    Returns:
        [..., P, 3] in camera coordinates.
    """
    x: Any = (xy[..., 0] - intrinsics[..., None, 0, 2]) / intrinsics[..., None, 0, 0] * depth
    y: Any = (xy[..., 1] - intrinsics[..., None, 1, 2]) / intrinsics[..., None, 1, 1] * depth
    if isinstance(depth, np.ndarray):
        return cast(Array, np.stack([x, y, np.broadcast_to(depth, x.shape)], axis=-1))
    return cast(Array, torch.stack([x, y, cast(Tensor, depth).expand_as(x)], dim=-1))


def depth_in_camera(
    cam_from_world: Float[Array, "*#batch 4 4"], points: Float[Array, "*#batch points 3"]
) -> Float[Array, "*#batch points"]:
    """Return the z-depth [..., P] of world points [..., P, 3] in cameras [..., 4, 4]."""
    return (points @ cam_from_world[..., 2, :3, None])[..., 0] + cam_from_world[..., 2, 3, None]


def nearest_pixels(
    xy: Real[np.ndarray, "*batch 2"], height: int, width: int
) -> tuple[Int[np.ndarray, "*batch"], Int[np.ndarray, "*batch"], Bool[np.ndarray, "*batch"]]:
    """Return the row and column of the pixel at each position, and whether it is inside the image.

    Args:
        xy: px, the centre of the first pixel at (0.5, 0.5); NaN and infinity are outside.
        height, width: of the image, px.

    Returns:
        Rows and columns, clipped to the image border (NaN to 0), and whether the position is inside
        the image.
    """
    inside = np.asarray(((xy >= 0) & (xy < np.array([width, height]))).all(-1))  # false for NaN
    safe = np.nan_to_num(xy, nan=0.0, posinf=0.0, neginf=0.0).clip(0, [width - 1, height - 1])
    return safe[..., 1].astype(int), safe[..., 0].astype(int), inside


def invert_transforms(
    dst_from_src: Float[np.ndarray, "*batch 4 4"],
) -> Float[np.ndarray, "*batch 4 4"]:
    """Invert rigid transforms [..., 4, 4]."""
    rotation = dst_from_src[..., :3, :3].swapaxes(-1, -2)
    inverse = np.zeros_like(dst_from_src)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ dst_from_src[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse


def look_at(
    centre: Real[np.ndarray, " 3"], target: Real[np.ndarray, " 3"], down: Real[np.ndarray, " 3"]
) -> Float[np.ndarray, "4 4"]:
    """Return `cam_from_world` [4, 4] of a camera at `centre` that looks at `target`.

    Args:
        centre: [3] camera centre.
        target: [3] point on the optical axis, different from `centre`.
        down: [3] world direction that points down in the image, not parallel to the optical axis.

    Raises:
        InputError: the view direction is zero or parallel to `down`.
    """
    forward = np.asarray(target, np.float64) - centre
    right = np.cross(down, forward)
    if np.linalg.norm(forward) < 1e-12 or np.linalg.norm(right) < 1e-9 * np.linalg.norm(forward):
        raise InputError(
            "look_at: expected a target different from the centre, and a view direction not "
            "parallel to `down`"
        )
    forward = forward / np.linalg.norm(forward)
    right = right / np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = rotation
    cam_from_world[:3, 3] = -rotation @ centre
    return cam_from_world


@dataclass(frozen=True)
class Cameras:
    """A sequence of pinhole cameras of one image size (a single camera is a sequence of length 1).

    Attributes:
        intrinsics: [T, 3, 3] float64, zero skew, pixels.
        cam_from_world: [T, 4, 4] float64, rigid.
        width: image width in pixels.
        height: image height in pixels.
    """

    intrinsics: Float[np.ndarray, "cameras 3 3"]
    cam_from_world: Float[np.ndarray, "cameras 4 4"]
    width: int
    height: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "intrinsics", np.asarray(self.intrinsics, np.float64))
        object.__setattr__(self, "cam_from_world", np.asarray(self.cam_from_world, np.float64))
        count = len(self.cam_from_world)
        for name, shape in (("intrinsics", (count, 3, 3)), ("cam_from_world", (count, 4, 4))):
            value = getattr(self, name)
            if value.shape != shape:
                raise InputError(f"{name}: expected shape {shape}, got {value.shape}")
            if not np.isfinite(value).all():
                raise InputError(f"{name}: expected finite numbers, got NaN or infinity")
            if np.abs(value).max(initial=0) > _LARGEST:
                raise InputError(
                    f"{name}: expected numbers up to {_LARGEST:.0e}, got {np.abs(value).max():.3g}"
                )
        check_image_size(self.width, self.height, "camera size")
        if count and (self.intrinsics[:, [0, 1], [0, 1]] <= 0).any():
            raise InputError("focal length: expected positive fx and fy")
        gram = self.cam_from_world[:, :3, :3] @ self.cam_from_world[:, :3, :3].swapaxes(1, 2)
        deviation = np.abs(gram - np.eye(3)).max(initial=0.0)
        if deviation > 1e-3 or (np.linalg.det(self.cam_from_world[:, :3, :3]) < 0).any():
            raise InputError(
                "cam_from_world: expected rotations in the upper left 3x3, got a matrix with a "
                f"deviation of {deviation:.3g} from orthonormality or a negative determinant"
            )
        if count and np.abs(self.cam_from_world[:, 3] - [0, 0, 0, 1]).max() > 1e-6:
            raise InputError("cam_from_world: expected the last row 0 0 0 1")

    @classmethod
    def pinhole(
        cls,
        focal: float | Float[np.ndarray, " cameras"],
        width: int,
        height: int,
        cam_from_world: Float[np.ndarray, "*batch 4 4"],
        centre: tuple[float, float] | None = None,
    ) -> Cameras:
        """Make cameras with square pixels.

        Args:
            focal: focal length in pixels, shared or one per camera.
            width, height: image size in pixels.
            cam_from_world: rigid.
            centre: principal point (cx, cy) in pixels; the image centre by default.
        """
        cam_from_world = np.asarray(cam_from_world, np.float64).reshape(-1, 4, 4)
        intrinsics = np.zeros((len(cam_from_world), 3, 3))
        intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
        intrinsics[:, :2, 2] = (width / 2, height / 2) if centre is None else centre
        intrinsics[:, 2, 2] = 1
        return cls(intrinsics, cam_from_world, width, height)

    def __len__(self) -> int:
        return len(self.cam_from_world)

    def __getitem__(
        self, index: int | np.integer | slice | Shaped[np.ndarray, " chosen"] | list[int]
    ) -> Cameras:
        """Return the cameras at an index (a sequence of length 1), slice, index list or mask."""
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"camera {index}: expected below {len(self)}")
            index = [int(index)]
        return replace(
            self, intrinsics=self.intrinsics[index], cam_from_world=self.cam_from_world[index]
        )

    def __iter__(self) -> Iterator[Cameras]:
        return (self[i] for i in range(len(self)))

    @property
    def world_from_cam(self) -> Float[np.ndarray, "cameras 4 4"]:
        """[T, 4, 4]."""
        return invert_transforms(self.cam_from_world)

    @property
    def centres(self) -> Float[np.ndarray, "cameras 3"]:
        """[T, 3] camera centres in the world."""
        return self.world_from_cam[:, :3, 3]

    @property
    def share_centre(self) -> bool:
        """Whether all have one centre: a camera that is static or only rotates."""
        return bool(np.ptp(self.centres, axis=0).max() < _SAME)

    @property
    def share_pose(self) -> bool:
        """Whether all have one pose."""
        return bool(np.ptp(self.cam_from_world, axis=0).max() < _SAME)

    def interpolated(self, positions: Real[np.ndarray, " positions"]) -> Cameras:
        """Interpolate at fractional indices: centres linearly, rotations along the geodesic.

        Args:
            positions: indices, 0 to the last; an integer returns that camera exactly.

        Raises:
            InputError: an index out of range.
        """
        from scipy.spatial.transform import Rotation

        positions = np.asarray(positions, np.float64)
        last = len(self) - 1
        if positions.size and not (positions.min() >= 0 and positions.max() <= last):
            raise InputError(f"camera position: expected 0 to {last}, got {positions}")
        low = np.floor(positions).astype(int)
        high = np.minimum(low + 1, last)
        fraction = positions - low
        start = self.cam_from_world[low, :3, :3]
        relative = self.cam_from_world[high, :3, :3] @ start.swapaxes(1, 2)
        partial = Rotation.from_rotvec(
            fraction[:, None] * Rotation.from_matrix(relative).as_rotvec().reshape(-1, 3)
        )
        rotation = partial.as_matrix().reshape(-1, 3, 3) @ start
        centres = self.centres
        centre = centres[low] + fraction[:, None] * (centres[high] - centres[low])
        pose = np.tile(np.eye(4), (len(positions), 1, 1))
        pose[:, :3, :3] = rotation
        pose[:, :3, 3] = -(rotation @ centre[..., None])[..., 0]
        is_integer = (fraction == 0)[:, None, None]
        intrinsics_low, intrinsics_high = self.intrinsics[low], self.intrinsics[high]
        return replace(
            self,
            intrinsics=intrinsics_low
            + fraction[:, None, None] * (intrinsics_high - intrinsics_low),
            cam_from_world=np.where(is_integer, self.cam_from_world[low], pose),
        )

    def tensors(self, device: torch.device | str = "cpu") -> CameraTensors:
        """Return the cameras as float32 tensors on a device."""
        intrinsics, pose = (
            upload(values.astype(np.float32), torch.device(device))
            for values in (self.intrinsics, self.cam_from_world)
        )
        return CameraTensors(intrinsics, pose, self.width, self.height)

    def resized(self, width: int, height: int) -> Cameras:
        """Return the same cameras for images resampled to another size."""
        intrinsics = self.intrinsics.copy()
        intrinsics[:, 0] *= width / self.width
        intrinsics[:, 1] *= height / self.height
        return replace(self, intrinsics=intrinsics, width=width, height=height)

    def shrunk(self, long_side: int) -> Cameras:
        """Return the same cameras for images whose longer side is at most `long_side` px."""
        factor = min(1.0, long_side / max(self.width, self.height))
        width, height = (max(1, round(factor * n)) for n in (self.width, self.height))
        return self.resized(width, height)

    def transformed(self, new_from_old: Similarity) -> Cameras:
        """Return the same cameras in the world coordinates of `new_from_old`."""
        cam_from_world = np.zeros_like(self.cam_from_world)
        rotation = self.cam_from_world[:, :3, :3] @ new_from_old.rotation.T
        cam_from_world[:, :3, :3] = rotation
        cam_from_world[:, :3, 3] = -_rotate(rotation, new_from_old.apply(self.centres))
        cam_from_world[:, 3, 3] = 1
        return replace(self, cam_from_world=cam_from_world)


@dataclass(frozen=True)
class CameraTensors:
    """Cameras as tensors on one device.

    Attributes:
        intrinsics: px.
        cam_from_world: rigid, scene units.
        width, height: image size in pixels.
    """

    intrinsics: Float[Tensor, "cameras 3 3"]
    cam_from_world: Float[Tensor, "cameras 4 4"]
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.intrinsics)

    def __getitem__(self, index: slice | Int[Tensor, " chosen"]) -> CameraTensors:
        """Return the cameras of a slice or at an index tensor."""
        return replace(
            self, intrinsics=self.intrinsics[index], cam_from_world=self.cam_from_world[index]
        )

    @property
    def centres(self) -> Float[Tensor, "cameras 3"]:
        """Camera centres in the world."""
        rotation = self.cam_from_world[:, :3, :3]
        return -(rotation.mT @ self.cam_from_world[:, :3, 3:]).squeeze(-1)


def _rotate(
    rotation: Float[np.ndarray, "*batch 3 3"], vectors: Float[np.ndarray, "*batch 3"]
) -> Float[np.ndarray, "*batch 3"]:
    return (rotation @ vectors[..., None])[..., 0]


def world_points_from_depth(
    depth: Real[np.ndarray, "height width"], camera: Cameras
) -> Float[np.ndarray, "height width 3"]:
    """Unproject a map of z-depth of one camera to world points.

    Pixels of depth 0 (unknown) map to the camera centre: mask them out.
    """
    height, width = depth.shape
    ys, xs = np.mgrid[0:height, 0:width]
    xy = np.stack([xs + 0.5, ys + 0.5], axis=-1).reshape(-1, 2)
    points = unproject(camera.intrinsics[0], xy, depth.reshape(-1).astype(np.float64))
    return transform_points(camera.world_from_cam[0], points).reshape(height, width, 3)
