"""Pinhole cameras and projection.

Conventions: OpenCV axes (x right, y down, z forward), `cam_from_world` 4x4, pixel centres at +0.5,
z-depth. The projection functions use operators alone, so they take numpy arrays and torch tensors
alike, broadcast over leading dimensions and keep dtype and device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from msdyn.errors import InputError
from msdyn.geometry.rigid import Similarity

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


def transform_points(dst_from_src: Any, points: Any) -> Any:
    """Map points [..., P, 3] by transforms [..., 4, 4] (or [..., 3, 4]) to [..., P, 3]."""
    return points @ dst_from_src[..., :3, :3].swapaxes(-1, -2) + dst_from_src[..., None, :3, 3]


def project(intrinsics: Any, points_cam: Any) -> Any:
    """Project points in camera coordinates to pixels.

    Args:
        intrinsics: [..., 3, 3].
        points_cam: [..., P, 3], scene units; depth zero gives infinity or NaN, as division does.

    Returns:
        Pixels [..., P, 2], the centre of the first pixel at (0.5, 0.5).
    """
    homogeneous = points_cam @ intrinsics.swapaxes(-1, -2)
    return homogeneous[..., :2] / homogeneous[..., 2:]


def unproject(intrinsics: Any, xy: Any, depth: Any) -> Any:
    """Return the camera-frame points of pixels at given z-depths, the inverse of `project`.

    Args:
        intrinsics: [..., 3, 3], with zero skew.
        xy: [..., P, 2] px.
        depth: [..., P] z-depth in scene units.

    Returns:
        [..., P, 3] in camera coordinates.
    """
    x = (xy[..., 0] - intrinsics[..., None, 0, 2]) / intrinsics[..., None, 0, 0] * depth
    y = (xy[..., 1] - intrinsics[..., None, 1, 2]) / intrinsics[..., None, 1, 1] * depth
    if isinstance(depth, np.ndarray):
        return np.stack([x, y, np.broadcast_to(depth, x.shape)], axis=-1)
    return torch.stack([x, y, depth.expand_as(x)], dim=-1)


def depth_in_camera(cam_from_world: Any, points: Any) -> Any:
    """Return the z-depth [..., P] of world points [..., P, 3] in cameras [..., 4, 4].

    It is that of `transform_points`, without the other coordinates.
    """
    return (points @ cam_from_world[..., 2, :3, None])[..., 0] + cam_from_world[..., 2, 3, None]


def nearest_pixels(
    xy: Real[np.ndarray, "*batch 2"], height: int, width: int
) -> tuple[Int[np.ndarray, "*batch"], Int[np.ndarray, "*batch"], Bool[np.ndarray, "*batch"]]:
    """Return the row and column of the pixel that each position lies in, and whether it has one.

    Args:
        xy: px, the centre of the first pixel at (0.5, 0.5); NaN and infinity lie outside.
        height, width: of the image, px.

    Returns:
        Rows and columns, those outside the image clipped to its border (NaN to the first), and
        whether the position lies inside.
    """
    inside = np.asarray(((xy >= 0) & (xy < np.array([width, height]))).all(-1))  # false for NaN
    safe = np.nan_to_num(xy, nan=0.0, posinf=0.0, neginf=0.0).clip(0, [width - 1, height - 1])
    return safe[..., 1].astype(int), safe[..., 0].astype(int), inside


def invert_transforms(dst_from_src: np.ndarray) -> np.ndarray:
    """Invert rigid transforms [..., 4, 4]."""
    rotation = dst_from_src[..., :3, :3].swapaxes(-1, -2)
    inverse = np.zeros_like(dst_from_src)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ dst_from_src[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse


def look_at(centre: np.ndarray, target: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Return `cam_from_world` [4, 4] of a camera at `centre` that looks at `target`.

    Args:
        centre: [3] camera centre.
        target: [3] point on the optical axis, apart from `centre`.
        down: [3] world direction that points down in the image, not along the view.

    Raises:
        InputError: the view direction is zero or along `down`.
    """
    forward = np.asarray(target, np.float64) - centre
    right = np.cross(down, forward)
    if np.linalg.norm(forward) < 1e-12 or np.linalg.norm(right) < 1e-9 * np.linalg.norm(forward):
        raise InputError("look_at: expected a target apart from the centre and not along `down`")
    forward = forward / np.linalg.norm(forward)
    right = right / np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = rotation
    cam_from_world[:3, 3] = -rotation @ centre
    return cam_from_world


@dataclass(frozen=True)
class Cameras:
    """A sequence of pinhole cameras of one image size (a single camera is a sequence of one).

    Attributes:
        intrinsics: [T, 3, 3] float64, zero skew, pixels.
        cam_from_world: [T, 4, 4] float64, rigid.
        width: image width in pixels.
        height: image height in pixels.
    """

    intrinsics: np.ndarray
    cam_from_world: np.ndarray
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
        if self.width < 1 or self.height < 1:
            raise InputError(f"camera size: expected at least 1x1, got {self.width}x{self.height}")
        if count and (self.intrinsics[:, [0, 1], [0, 1]] <= 0).any():
            raise InputError("focal length: expected positive fx and fy")
        gram = self.cam_from_world[:, :3, :3] @ self.cam_from_world[:, :3, :3].swapaxes(1, 2)
        off = np.abs(gram - np.eye(3)).max(initial=0.0)
        if off > 1e-3 or (np.linalg.det(self.cam_from_world[:, :3, :3]) < 0).any():
            raise InputError(
                f"cam_from_world: expected rotations in its upper 3x3, got a matrix {off:.3g} off"
            )
        if count and np.abs(self.cam_from_world[:, 3] - [0, 0, 0, 1]).max() > 1e-6:
            raise InputError("cam_from_world: expected the last row 0 0 0 1")

    @classmethod
    def pinhole(
        cls,
        focal: float | np.ndarray,
        width: int,
        height: int,
        cam_from_world: np.ndarray,
        centre: tuple[float, float] | None = None,
    ) -> Cameras:
        """Make cameras of one focal length in pixels, or one a frame [T], square pixels.

        The principal point is the image centre unless `centre` (cx, cy) is given.
        """
        cam_from_world = np.asarray(cam_from_world, np.float64).reshape(-1, 4, 4)
        intrinsics = np.zeros((len(cam_from_world), 3, 3))
        intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
        intrinsics[:, :2, 2] = (width / 2, height / 2) if centre is None else centre
        intrinsics[:, 2, 2] = 1
        return cls(intrinsics, cam_from_world, width, height)

    def __len__(self) -> int:
        return len(self.cam_from_world)

    def __getitem__(self, index: int | np.integer | slice | np.ndarray | list[int]) -> Cameras:
        """Return the cameras at an index (still a sequence, of length one), a slice or a list."""
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
    def world_from_cam(self) -> np.ndarray:
        """[T, 4, 4]."""
        return invert_transforms(self.cam_from_world)

    @property
    def centres(self) -> np.ndarray:
        """[T, 3] camera centres in the world."""
        return self.world_from_cam[:, :3, 3]

    def interpolated(self, positions: np.ndarray) -> Cameras:
        """Return the cameras at fractional indices: centres linearly, rotations the shorter way.

        Args:
            positions: [N] indices, 0 to the last; a whole number gives that camera, exactly.

        Raises:
            InputError: an index outside the cameras.
        """
        from scipy.spatial.transform import Rotation

        positions = np.asarray(positions, np.float64)
        last = len(self) - 1
        if positions.size and not (positions.min() >= 0 and positions.max() <= last):
            raise InputError(f"camera position: expected 0 to {last}, got {positions}")
        low = np.floor(positions).astype(int)
        high = np.minimum(low + 1, last)
        share = positions - low
        start = self.cam_from_world[low, :3, :3]
        turn = self.cam_from_world[high, :3, :3] @ start.swapaxes(1, 2)
        part = Rotation.from_rotvec(
            share[:, None] * Rotation.from_matrix(turn).as_rotvec().reshape(-1, 3)
        )
        rotation = part.as_matrix().reshape(-1, 3, 3) @ start
        centres = self.centres
        centre = centres[low] + share[:, None] * (centres[high] - centres[low])
        pose = np.tile(np.eye(4), (len(positions), 1, 1))
        pose[:, :3, :3] = rotation
        pose[:, :3, 3] = -(rotation @ centre[..., None])[..., 0]
        whole = (share == 0)[:, None, None]
        k_low, k_high = self.intrinsics[low], self.intrinsics[high]
        return replace(
            self,
            intrinsics=k_low + share[:, None, None] * (k_high - k_low),
            cam_from_world=np.where(whole, self.cam_from_world[low], pose),
        )

    def tensors(self, device: torch.device | str = "cpu") -> CameraTensors:
        """Return the cameras as float32 tensors on a device."""
        intrinsics = torch.as_tensor(self.intrinsics, dtype=torch.float32, device=device)
        pose = torch.as_tensor(self.cam_from_world, dtype=torch.float32, device=device)
        return CameraTensors(intrinsics, pose, self.width, self.height)

    def resized(self, width: int, height: int) -> Cameras:
        """Return the same cameras for images resampled to another size."""
        intrinsics = self.intrinsics.copy()
        intrinsics[:, 0] *= width / self.width
        intrinsics[:, 1] *= height / self.height
        return replace(self, intrinsics=intrinsics, width=width, height=height)

    def transformed(self, new_from_old: Similarity) -> Cameras:
        """Return the same cameras in another world."""
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
        """Return some of the cameras."""
        return replace(
            self, intrinsics=self.intrinsics[index], cam_from_world=self.cam_from_world[index]
        )

    @property
    def centres(self) -> Float[Tensor, "cameras 3"]:
        """Camera centres in the world."""
        rotation = self.cam_from_world[:, :3, :3]
        return -(rotation.mT @ self.cam_from_world[:, :3, 3:]).squeeze(-1)


def _rotate(rotation: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return (rotation @ vectors[..., None])[..., 0]


def world_points_from_depth(depth: np.ndarray, camera: Cameras) -> np.ndarray:
    """Unproject a depth map [H, W] (z-depth) of one camera to world points [H, W, 3].

    Pixels of depth 0 (unknown) map to the camera centre: mask them out.
    """
    height, width = depth.shape
    ys, xs = np.mgrid[0:height, 0:width]
    xy = np.stack([xs + 0.5, ys + 0.5], axis=-1).reshape(-1, 2)
    points = unproject(camera.intrinsics[0], xy, depth.reshape(-1).astype(np.float64))
    return transform_points(camera.world_from_cam[0], points).reshape(height, width, 3)
