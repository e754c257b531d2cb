"""Training batches: clips with depth and motion, as far as they are known, in the canonical world.

The canonical world is the camera of frame 0, scaled so that the mean distance of the points of all
input frames to its origin is 1 (as VGGT and MoVieS normalise). B scenes, F input frames, Q query
times, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from msdyn.devices import numbers_like
from msdyn.feedforward.model import ClipTensors
from msdyn.feedforward.splats import points_from_depth

__all__ = [
    "MOTION_KINDS",
    "MotionKind",
    "TrackedMotion",
    "TrainingBatch",
    "inverse_affine",
    "true_matches",
]

MotionKind = Literal["poses", "tracks", "static", "unknown"]
"""What is known of the motion of a clip: a pose of each object, tracks of points, that nothing
moves, or nothing."""
MOTION_KINDS: tuple[MotionKind, ...] = get_args(MotionKind)

_OCCLUDED = 0.05
"""Relative depth behind the visible surface from which a point counts as occluded."""


@dataclass(frozen=True)
class TrackedMotion:
    """Motion that is known of tracked points, each at the pixel nearest to it.

    Attributes:
        displacement: from the frame's own time to the query time; 0 where it is not known.
        known: pixels with a track that is visible there, and finite at the query time.
    """

    displacement: Float[Tensor, "scenes queries frames height width 3"]
    known: Bool[Tensor, "scenes queries frames height width"]


@dataclass(frozen=True)
class TrainingBatch:
    """Input and ground truth.

    Attributes:
        clip: the input.
        depth: z-depth of the input frames.
        moving: pixels of the input frames that show a moving object.
        objects: index of the object at each pixel, `poses.shape[2]` - 1 for static surfaces.
        frame_poses: world_from_object at the frames' times, of the moving objects, affine; the
            last is the identity.
        query_times: of the targets.
        query_poses: world_from_object at the query times.
        target_images: what the targets' camera sees at the query times; None if not rendered.
        target_world_from_cam: of the targets' camera: the second one, or that of the clip.
        target_intrinsics: (fx/W, fy/H, cx/W, cy/H) of the targets.
        valid: pixels whose depth is known; None for all.
        tracked: motion of scenes in which it is known of tracks only; None if there are none.
        kind: what is known of the motion of each scene, an index into `MOTION_KINDS`; None for
            the poses of all objects.
        depth_weight, motion_weight: factors of the losses of each scene; None for 1.
    """

    clip: ClipTensors
    depth: Float[Tensor, "scenes frames height width"]
    moving: Bool[Tensor, "scenes frames height width"]
    objects: Int[Tensor, "scenes frames height width"]
    frame_poses: Float[Tensor, "scenes frames objects 4 4"]
    query_times: Float[Tensor, "scenes queries"]
    query_poses: Float[Tensor, "scenes queries objects 4 4"]
    target_images: Float[Tensor, "scenes queries 3 height width"] | None
    target_world_from_cam: Float[Tensor, "scenes queries 4 4"]
    target_intrinsics: Float[Tensor, "scenes queries 4"]
    valid: Bool[Tensor, "scenes frames height width"] | None = None
    tracked: TrackedMotion | None = None
    kind: Int[Tensor, " scenes"] | None = None
    depth_weight: Float[Tensor, " scenes"] | None = None
    motion_weight: Float[Tensor, " scenes"] | None = None

    def __len__(self) -> int:
        """Scenes."""
        return len(self.query_times)

    def has_kind(self, kind: MotionKind) -> Bool[Tensor, " scenes"]:
        """Return the scenes of whose motion this is known."""
        if self.kind is None:
            return torch.full((len(self),), kind == "poses", device=self.depth.device)
        return self.kind == MOTION_KINDS.index(kind)

    @property
    def points(self) -> Float[Tensor, "scenes frames height width 3"]:
        """World points of the input pixels at the frames' own times."""
        return points_from_depth(self.depth, self.clip.world_from_cam, self.clip.intrinsics)

    def motion(self, query: int) -> Float[Tensor, "scenes frames height width 3"]:
        """Return the true displacement of the input pixels to a query time, where it is known."""
        motion = self._motion(self.query_poses[:, query])
        if self.tracked is not None:
            tracked = self.has_kind("tracks")[:, None, None, None, None]
            motion = torch.where(tracked, self.tracked.displacement[:, query], motion)
        return motion

    def known(self, query: int) -> Bool[Tensor, "scenes frames height width"]:
        """Return the input pixels whose displacement to a query time is known.

        The pose of an object gives that of its pixels with depth.
        """
        known = ~self.has_kind("unknown")[:, None, None, None].expand(self.depth.shape)
        if self.valid is not None:
            known = known & (self.valid | ~self.moving)
        if self.tracked is not None:
            tracked = self.has_kind("tracks")[:, None, None, None]
            known = torch.where(tracked, self.tracked.known[:, query], known)
        return known

    def motion_to_frame(self, frame: int) -> Float[Tensor, "scenes frames height width 3"]:
        """Return the exact displacement of all input pixels to the time of an input frame."""
        return self._motion(self.frame_poses[:, frame])

    def _motion(self, later_poses: Float[Tensor, "scenes objects 4 4"]) -> Tensor:
        # T(query) T(frame)^-1, per object.
        change = later_poses[:, None] @ inverse_affine(self.frame_poses)  # [B, F, K + 1, 4, 4]
        index = self.objects.flatten(2)[..., None]
        rows = change[..., :3, :].flatten(3)  # [B, F, K + 1, 12]
        own = rows.gather(2, index.expand(-1, -1, -1, 12)).unflatten(-1, (3, 4))
        points = self.points.flatten(2, 3)
        moved = (own[..., :3] @ points[..., None])[..., 0] + own[..., 3]
        shift = torch.where(self.moving.flatten(2)[..., None], moved - points, 0.0)
        return shift.view(*self.depth.shape, 3)


def true_matches(
    batch: TrainingBatch, cell: int
) -> tuple[
    Float[Tensor, "scenes frames frames cells 2"], Bool[Tensor, "scenes frames frames cells"]
]:
    """Return where the centres of the cells of each frame i are in each frame j, exactly.

    Args:
        batch: with exact depth and motion.
        cell: side of a cell, px.

    Returns:
        Positions (column, row) in cells, cell centres at whole numbers, and whether the point is
        visible in frame j. Positions are NaN where depth that is not known decides.
    """
    frames = batch.depth.shape[1]
    middle = slice(cell // 2, None, cell)
    points = batch.points
    valid = torch.ones_like(batch.moving) if batch.valid is None else batch.valid
    own_valid = valid[:, :, middle, middle].flatten(2)
    positions, visible = [], []
    for later in range(frames):
        moved = (points + batch.motion_to_frame(later))[:, :, middle, middle].flatten(2, 3)
        pixels, depth = _project(
            moved.flatten(1, 2), batch.clip.world_from_cam[:, later],
            batch.clip.intrinsics[:, later], batch.clip.size,
        )  # fmt: skip
        in_image = _inside(pixels, batch.clip.size) & (depth > 0)
        known = _nearest(valid[:, later], pixels) | ~in_image
        known = known.view(moved.shape[:-1]) & own_valid
        # The pixel's centre is half a pixel from the cell's, here as there.
        position = ((pixels - 0.5) / cell - 0.5).view(*moved.shape[:-1], 2)
        positions.append(torch.where(known[..., None], position, torch.nan))
        surface = _nearest(batch.depth[:, later], pixels)
        seen = (depth < (1 + _OCCLUDED) * surface) & in_image
        visible.append(seen.view(moved.shape[:-1]) & known)
    return torch.stack(positions, dim=2), torch.stack(visible, dim=2)


def _project(
    points: Float[Tensor, "scenes points 3"],
    world_from_cam: Float[Tensor, "scenes 4 4"],
    intrinsics: Float[Tensor, "scenes 4"],
    size: tuple[int, int],
) -> tuple[Float[Tensor, "scenes points 2"], Float[Tensor, "scenes points"]]:
    """Return pixel coordinates (column, row), pixel centres at +0.5, and z-depth."""
    in_camera = (points - world_from_cam[:, None, :3, 3]) @ world_from_cam[:, :3, :3]
    depth = in_camera[..., 2]
    plane = in_camera[..., :2] / depth.clamp_min(1e-3)[..., None]
    sides = numbers_like([size[1], size[0]], points)
    return (plane * intrinsics[:, None, :2] + intrinsics[:, None, 2:]) * sides, depth


def _inside(pixels: Float[Tensor, "*batch 2"], size: tuple[int, int]) -> Bool[Tensor, "*batch"]:
    sides = numbers_like([size[1], size[0]], pixels)
    return ((pixels >= 0) & (pixels < sides)).all(dim=-1)


def _nearest(
    maps: Shaped[Tensor, "scenes height width"], pixels: Float[Tensor, "scenes points 2"]
) -> Shaped[Tensor, "scenes points"]:
    """Return the values at the pixels that contain given positions, clamped to the image."""
    height, width = maps.shape[-2:]
    column = pixels[..., 0].floor().clamp(0, width - 1).long()
    row = pixels[..., 1].floor().clamp(0, height - 1).long()
    return maps.flatten(1).gather(1, row * width + column)


def inverse_affine(poses: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Return inverses of affine transforms."""
    inverse = poses.clone()
    linear = torch.linalg.inv_ex(poses[..., :3, :3]).inverse  # unchecked: a GPU is not waited for
    inverse[..., :3, :3] = linear
    inverse[..., :3, 3] = -(linear @ poses[..., :3, 3:])[..., 0]
    return inverse
