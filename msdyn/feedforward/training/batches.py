"""Training batches: rendered random scenes with exact depth and motion, in the canonical world.

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

from msdyn.feedforward.embeddings import pixel_rays
from msdyn.feedforward.model import ClipTensors
from msdyn.feedforward.splats import points_from_depth
from msdyn.feedforward.training.random_scenes import RandomScenes, SceneOptions, random_scenes
from msdyn.feedforward.training.raycast import Hits, cast_rays, inverse_affine

__all__ = [
    "MOTION_KINDS",
    "BatchOptions",
    "MotionKind",
    "TrackedMotion",
    "TrainingBatch",
    "random_batch",
    "render_batch",
    "render_views",
    "true_matches",
]

MotionKind = Literal["poses", "tracks", "static", "unknown"]
"""What is known of the motion of a clip: a pose of each object, tracks of points, that nothing
moves, or nothing."""
MOTION_KINDS: tuple[MotionKind, ...] = get_args(MotionKind)

_SUPERSAMPLING = 2
_OCCLUDED = 0.05
"""Relative depth behind the visible surface from which a point counts as occluded."""


@dataclass(frozen=True)
class BatchOptions:
    """Size of a batch."""

    scenes: int = 4
    """Scenes of a batch."""
    frames: int = 4
    """Input frames of a clip, at even times from 0 to 1."""
    size: int = 64
    """Width of the images, px."""
    heights: tuple[int, ...] = ()
    """Heights of the images, px, one of which is drawn for each batch; by default the width."""
    queries: int = 1
    """Query times per scene."""
    query_times: Literal["frames", "random"] = "random"
    """Query times are those of input frames, or uniform in [0, 1]."""
    targets: bool = True
    """Render the query times from the second camera."""


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


def random_batch(
    scene_options: SceneOptions, options: BatchOptions, generator: torch.Generator
) -> TrainingBatch:
    """Return new random scenes, rendered, on the generator's device."""
    device = generator.device
    scenes = random_scenes(scene_options, options.scenes, generator)
    times = torch.linspace(0, 1, options.frames, device=device).expand(options.scenes, -1)
    if options.query_times == "frames":
        chosen = torch.randint(
            options.frames,
            (options.scenes, options.queries),
            generator=generator,
            device=device,
        )
        queries = times.gather(1, chosen)
    else:
        queries = torch.rand((options.scenes, options.queries), generator=generator, device=device)
    height = options.size
    if options.heights:
        drawn = torch.randint(len(options.heights), (1,), generator=generator, device=device)
        height = options.heights[int(drawn)]
    return render_batch(scenes, times, queries, (height, options.size), targets=options.targets)


def render_batch(
    scenes: RandomScenes,
    times: Float[Tensor, "scenes frames"],
    query_times: Float[Tensor, "scenes queries"],
    size: tuple[int, int],
    *,
    targets: bool,
) -> TrainingBatch:
    """Return input frames at `times`, and targets at the query times, of given scenes.

    Args:
        scenes: shapes, paths, cameras and textures.
        times: of the input frames.
        query_times: of the targets.
        size: height and width of the images, px.
        targets: whether to render them.
    """
    half = torch.full_like(scenes.focal, 0.5)
    intrinsics = torch.stack([scenes.focal, scenes.focal * (size[1] / size[0]), half, half], dim=-1)
    world_from_cam = scenes.world_from_camera(times)
    side_from = scenes.world_from_camera(query_times, side=True)
    exact = _cast(scenes, world_from_cam, intrinsics, times, size)
    depth = exact.depth.view(*times.shape, *size)
    views, view_times = world_from_cam, times
    if targets:
        views = torch.cat([views, side_from], dim=1)
        view_times = torch.cat([times, query_times], dim=1)
    images = _images(scenes, views, intrinsics, view_times, size)

    first = inverse_affine(world_from_cam[:, :1])  # canonical from world
    cameras = first @ world_from_cam
    frame_intrinsics = intrinsics[:, None].expand(-1, times.shape[1], -1)
    scale = points_from_depth(depth, cameras, frame_intrinsics).norm(dim=-1).mean(dim=(1, 2, 3))

    def canonical(poses: Tensor) -> Tensor:
        """Change the world of poses [B, V, ..., 4, 4] and scale it."""
        change = first if poses.ndim == 4 else first[:, None]
        poses = change @ poses
        poses[..., :3, 3] /= scale.view(-1, *(1,) * (poses.ndim - 2))
        return poses

    def with_static(poses: Tensor) -> Tensor:
        identity = torch.eye(4, device=poses.device).expand(*poses.shape[:2], 1, 4, 4)
        return torch.cat([canonical(poses), identity], dim=2)

    index = exact.index.view(depth.shape)
    moving_of = torch.cat([scenes.moving, scenes.moving.new_zeros(len(depth), 1)], dim=1)
    moving = moving_of.gather(1, index.flatten(1)).view(depth.shape)
    return TrainingBatch(
        clip=ClipTensors(
            images[:, : times.shape[1]], canonical(world_from_cam), frame_intrinsics, times
        ),
        depth=depth / scale[:, None, None, None],
        moving=moving,
        objects=index,
        frame_poses=with_static(scenes.world_from_object(times)),
        query_times=query_times,
        query_poses=with_static(scenes.world_from_object(query_times)),
        target_images=images[:, times.shape[1] :] if targets else None,
        target_world_from_cam=canonical(side_from),
        target_intrinsics=intrinsics[:, None].expand(-1, query_times.shape[1], -1),
    )


def _cast(
    scenes: RandomScenes,
    world_from_cam: Float[Tensor, "scenes views 4 4"],
    intrinsics: Float[Tensor, "scenes 4"],
    times: Float[Tensor, "scenes views"],
    size: tuple[int, int],
) -> Hits:
    """Return what the centres of the pixels of all views see."""
    rays = pixel_rays(intrinsics, *size).flatten(1, 2)[:, None]  # [B, 1, N, 3]
    return cast_rays(
        world_from_cam[..., :3, 3],
        rays @ world_from_cam[..., :3, :3].mT,
        scenes.world_from_object(times),
        scenes.half_sizes,
        scenes.limits,
        scenes.world_from_room,
        scenes.room_half_size,
    )


def _images(
    scenes: RandomScenes,
    world_from_cam: Float[Tensor, "scenes views 4 4"],
    intrinsics: Float[Tensor, "scenes 4"],
    times: Float[Tensor, "scenes views"],
    size: tuple[int, int],
) -> Float[Tensor, "scenes views 3 height width"]:
    """Return shaded images, each pixel the mean of 2 x 2 rays."""
    fine = (_SUPERSAMPLING * size[0], _SUPERSAMPLING * size[1])
    hits = _cast(scenes, world_from_cam, intrinsics, times, fine)
    colours = scenes.textures.colours_at(hits.local.flatten(1, 2), hits.index.flatten(1, 2))
    facing = (hits.normal @ scenes.light[:, None, :, None])[..., 0].clamp_min(0)
    ambient = scenes.ambient[:, None, None]
    shade = ambient + (1 - ambient) * facing
    shaded = colours.view(*hits.depth.shape, 3) * shade[..., None]
    image = shaded.view(*times.shape, size[0], _SUPERSAMPLING, size[1], _SUPERSAMPLING, 3)
    return image.mean(dim=(3, 5)).movedim(-1, 2)


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
    sides = points.new_tensor([size[1], size[0]])
    return (plane * intrinsics[:, None, :2] + intrinsics[:, None, 2:]) * sides, depth


def _inside(pixels: Float[Tensor, "*batch 2"], size: tuple[int, int]) -> Bool[Tensor, "*batch"]:
    sides = pixels.new_tensor([size[1], size[0]])
    return ((pixels >= 0) & (pixels < sides)).all(dim=-1)


def _nearest(
    maps: Shaped[Tensor, "scenes height width"], pixels: Float[Tensor, "scenes points 2"]
) -> Shaped[Tensor, "scenes points"]:
    """Return the values at the pixels that contain given positions, clamped to the image."""
    height, width = maps.shape[-2:]
    column = pixels[..., 0].floor().clamp(0, width - 1).long()
    row = pixels[..., 1].floor().clamp(0, height - 1).long()
    return maps.flatten(1).gather(1, row * width + column)


def render_views(
    scenes: RandomScenes, times: Float[Tensor, "scenes views"], size: int, *, side: bool
) -> tuple[
    Float[Tensor, "scenes views 3 height width"],
    Float[Tensor, "scenes views height width"],
    Int[Tensor, "scenes views height width"],
]:
    """Return images, z-depth and objects that a camera sees, in the world of the scenes.

    Args:
        scenes: the scenes; the index of the room is the number of objects.
        times: of the views.
        size: side of the images, px.
        side: from the second camera.
    """
    half = torch.full_like(scenes.focal, 0.5)
    intrinsics = torch.stack([scenes.focal, scenes.focal, half, half], dim=-1)
    cameras = scenes.world_from_camera(times, side=side)
    exact = _cast(scenes, cameras, intrinsics, times, (size, size))
    shape = (*times.shape, size, size)
    images = _images(scenes, cameras, intrinsics, times, (size, size))
    return images, exact.depth.view(shape), exact.index.view(shape)
