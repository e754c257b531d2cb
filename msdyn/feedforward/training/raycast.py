"""Exact ray casting of boxes, ellipsoids and a room, batched over scenes and views.

Rays are given per view in world coordinates with directions whose component along the optical axis
is 1, so that the distance along a ray is the z-depth. B scenes, V views, K objects, N rays. The
first half of the objects are boxes, the second half ellipsoids; index K is the room, a box seen
from within.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Hits", "cast_rays"]

_NEAREST = 0.05
"""Surfaces nearer than this are not hit, in scene units."""
_TINY = 1e-9


@dataclass(frozen=True)
class Hits:
    """What the rays hit.

    Attributes:
        depth: z-depth.
        index: of the object; K for the room.
        local: the point in the object's coordinates; the room's are the world's, rotated.
        normal: outward unit normal in the object's coordinates (of the room: inward).
    """

    depth: Float[Tensor, "scenes views rays"]
    index: Int[Tensor, "scenes views rays"]
    local: Float[Tensor, "scenes views rays 3"]
    normal: Float[Tensor, "scenes views rays 3"]


def cast_rays(
    centres: Float[Tensor, "scenes views 3"],
    directions: Float[Tensor, "scenes views rays 3"],
    world_from_object: Float[Tensor, "scenes views objects 4 4"],
    half_sizes: Float[Tensor, "scenes objects 3"],
    world_from_room: Float[Tensor, "scenes 4 4"],
    room_half_size: Float[Tensor, "scenes 3"],
) -> Hits:
    """Return the first surface on each ray.

    Args:
        centres: of the cameras, within the room.
        directions: with component 1 along the optical axis.
        world_from_object: poses at the times of the views.
        half_sizes: half sides of the boxes, semi-axes of the ellipsoids; 0 for no object.
        world_from_room: pose of the room.
        room_half_size: half sides of the room.
    """
    objects = half_sizes.shape[1]
    boxes = objects // 2
    rotation = world_from_object[..., :3, :3]  # [B, V, K, 3, 3]
    offset = centres[:, :, None] - world_from_object[..., :3, 3]
    origin = torch.einsum("bvkji,bvkj->bvki", rotation, offset)[..., None, :]  # [B, V, K, 1, 3]
    direction = directions[:, :, None] @ rotation  # [B, V, K, N, 3]
    sizes = half_sizes[:, None, :, None].clamp_min(_TINY)  # [B, 1, K, 1, 3]
    # In units of the half sizes both shapes are those of the unit cube and the unit sphere.
    unit_origin, unit_direction = origin / sizes, direction / sizes
    depths = torch.cat(
        [
            _into_cube(unit_origin[:, :, :boxes], unit_direction[:, :, :boxes]),
            _into_sphere(unit_origin[:, :, boxes:], unit_direction[:, :, boxes:]),
        ],
        dim=2,
    )  # [B, V, K, N]
    room_rotation = world_from_room[:, None, :3, :3]
    room_origin = (centres - world_from_room[:, None, :3, 3])[:, :, None] @ room_rotation
    # Parallel to a wall, a ray leaves through it at a large distance, not at a negative one.
    room_direction = _nonzero(directions @ room_rotation)  # [B, V, N, 3]
    room_size = room_half_size[:, None, None]
    exits = (room_size * room_direction.sign() - room_origin) / room_direction
    room_depth, room_axis = exits.min(dim=-1)
    depth, index = torch.cat([depths, room_depth[:, :, None]], dim=2).min(dim=2)

    chosen = index.clamp_max(objects - 1)[:, :, None, :, None].expand(-1, -1, 1, -1, 3)
    local = origin.expand_as(direction).gather(2, chosen)[:, :, 0]
    local = local + depth[..., None] * direction.gather(2, chosen)[:, :, 0]
    in_room = (index == objects)[..., None]
    local = torch.where(in_room, room_origin + depth[..., None] * room_direction, local)

    own_sizes = half_sizes.gather(1, chosen[:, :, 0].flatten(1, 2)[..., :1].expand(-1, -1, 3))
    unit = local / own_sizes.view_as(local).clamp_min(_TINY)
    face = unit.abs().argmax(dim=-1, keepdim=True)
    flat = torch.zeros_like(unit).scatter_(-1, face, unit.gather(-1, face).sign())
    round_ = torch.nn.functional.normalize(unit / own_sizes.view_as(local).clamp_min(_TINY), dim=-1)
    normal = torch.where((index < boxes)[..., None], flat, round_)
    wall = torch.zeros_like(unit).scatter_(
        -1, room_axis[..., None], -room_direction.gather(-1, room_axis[..., None]).sign()
    )
    return Hits(depth, index, local, torch.where(in_room, wall, normal))


def _into_cube(
    origin: Float[Tensor, "*batch 1 3"], direction: Float[Tensor, "*batch rays 3"]
) -> Float[Tensor, "*batch rays"]:
    """Return the distance at which rays enter the cube [-1, 1]^3; infinity if they do not."""
    inverse = 1 / _nonzero(direction)
    centre, half = -origin * inverse, inverse.abs()
    enter = (centre - half).amax(dim=-1)
    leave = (centre + half).amin(dim=-1)
    return torch.where((enter <= leave) & (enter > _NEAREST), enter, torch.inf)


def _into_sphere(
    origin: Float[Tensor, "*batch 1 3"], direction: Float[Tensor, "*batch rays 3"]
) -> Float[Tensor, "*batch rays"]:
    """Return the distance at which rays enter the unit sphere; infinity if they do not."""
    a = direction.square().sum(-1)
    b = (origin * direction).sum(-1)
    # The squared distance of the line to the centre, rather than b^2 - a c, which cancels.
    nearest = origin - (b / a)[..., None] * direction
    inside = 1 - nearest.square().sum(-1)
    enter = -b / a - (inside.clamp_min(0) / a).sqrt()
    return torch.where((inside > 0) & (enter > _NEAREST), enter, torch.inf)


def _nonzero(values: Tensor) -> Tensor:
    return torch.where(values.abs() < _TINY, _TINY, values)
