"""Random scenes, rendered: training batches with exact depth and motion, and views of a scene.

B scenes, F input frames, Q query times, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from msdyn.feedforward.batches import TrainingBatch, inverse_affine
from msdyn.feedforward.embeddings import pixel_rays
from msdyn.feedforward.model import ClipTensors
from msdyn.feedforward.scenes.random_scenes import RandomScenes, SceneOptions, random_scenes
from msdyn.feedforward.scenes.raycast import Hits, cast_rays
from msdyn.feedforward.splats import points_from_depth
from msdyn.options import Options, Range

__all__ = ["BatchOptions", "random_batch", "render_batch", "render_views"]

_SUPERSAMPLING = 2


_Count = Annotated[int, Range(1)]


@dataclass(frozen=True)
class BatchOptions(Options):
    """Size of a batch."""

    scenes: _Count = 4
    """Scenes of a batch."""
    frames: _Count = 4
    """Input frames of a clip, at even times from 0 to 1."""
    size: _Count = 64
    """Width of the images, px."""
    heights: tuple[_Count, ...] = ()
    """Heights of the images, px, one of which is drawn for each batch; by default the width."""
    queries: _Count = 1
    """Query times per scene."""
    query_times: Literal["frames", "random"] = "random"
    """Query times are those of input frames, or uniform in [0, 1]."""
    targets: bool = True
    """Render the query times from the second camera."""


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
