"""Exact ray casting of convex objects and a room, batched over scenes and views.

Rays are given per view in world coordinates with directions whose component along the optical axis
is 1, so that the distance along a ray is the z-depth. B scenes, V views, K objects, N rays; index K
is the room, a box seen from within. In units of its half sizes each object is the part of the cube
[-1, 1]^3 within a sphere, a cylinder about z and an octahedron, whose `limits` say how large they
are: infinite for a box, a sphere of radius 1 for an ellipsoid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from msdyn.feedforward.batches import inverse_affine
from msdyn.feedforward.scenes.options import Shape

__all__ = ["SHAPES", "Hits", "Shape", "cast_rays", "limits_of"]

SHAPES: tuple[Shape, ...] = get_args(Shape)

_INF = float("inf")
_LIMITS: dict[Shape, tuple[float, float, float]] = {
    "box": (_INF, _INF, _INF),
    "ellipsoid": (1.0, _INF, _INF),
    "cylinder": (_INF, 1.0, _INF),
    "rounded": (1.25, _INF, _INF),
    "octahedron": (_INF, _INF, 1.0),
    "cut": (_INF, _INF, 2.0),
}
_SPHERE, _CYLINDER, _OCTAHEDRON = range(3)
_OCTAHEDRON_NORMALS = ((1.0, 1.0, 1.0), (1.0, 1.0, -1.0), (1.0, -1.0, 1.0), (-1.0, 1.0, 1.0))
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
        normal: outward unit normal in the world (of the room: inward).
    """

    depth: Float[Tensor, "scenes views rays"]
    index: Int[Tensor, "scenes views rays"]
    local: Float[Tensor, "scenes views rays 3"]
    normal: Float[Tensor, "scenes views rays 3"]


def limits_of(
    shapes: Int[Tensor, "scenes objects"],
) -> Float[Tensor, "scenes objects 3"]:
    """Return the limits of objects whose shapes are given as indices into `SHAPES`."""
    table = torch.tensor([_LIMITS[shape] for shape in SHAPES], device=shapes.device)
    return table[shapes]


def cast_rays(
    centres: Float[Tensor, "scenes views 3"],
    directions: Float[Tensor, "scenes views rays 3"],
    world_from_object: Float[Tensor, "scenes views objects 4 4"],
    half_sizes: Float[Tensor, "scenes objects 3"],
    limits: Float[Tensor, "scenes objects 3"],
    world_from_room: Float[Tensor, "scenes 4 4"],
    room_half_size: Float[Tensor, "scenes 3"],
) -> Hits:
    """Return the first surface on each ray.

    Args:
        centres: of the cameras, in the world.
        directions: of the rays, in the world.
        world_from_object: poses, which may be affine.
        half_sizes: half extents; 0 for absent objects.
        limits: radii of the sphere and the cylinder, and size of the octahedron, that bound each
            object, in units of its half sizes.
        world_from_room: pose of the room.
        room_half_size: half sides of the room.
    """
    scenes, objects = half_sizes.shape[:2]
    to_object = inverse_affine(world_from_object)[..., :3, :]  # [B, V, K, 3, 4]
    present = half_sizes.amax(dim=-1) > 0
    depths = directions.new_full((scenes, objects, *directions.shape[1:3]), torch.inf)
    # Of the objects that are there, as a list.
    scene, number = present.nonzero(as_tuple=True)
    linear = to_object[scene, :, number, :, :3]  # [P, V, 3, 3]
    size = half_sizes[present][:, None, None]
    origin = (linear @ centres[scene][..., None])[..., 0] + to_object[scene, :, number, :, 3]
    direction = directions[scene] @ (linear / size.mT).mT
    depths[present] = _into_objects(origin[:, :, None] / size, direction, limits[present])
    room_rotation = world_from_room[:, None, :3, :3]
    room_origin = (centres - world_from_room[:, None, :3, 3])[:, :, None] @ room_rotation
    # Parallel to a wall, a ray leaves through it at a large distance, not at a negative one.
    room_direction = _nonzero(directions @ room_rotation)  # [B, V, N, 3]
    room_size = room_half_size[:, None, None]
    exits = (room_size * room_direction.sign() - room_origin) / room_direction
    room_depth, room_axis = exits.min(dim=-1)
    depth, index = torch.cat([depths.transpose(1, 2), room_depth[:, :, None]], dim=2).min(dim=2)

    chosen = index.clamp_max(objects - 1)
    rows = to_object.flatten(3).gather(2, chosen[..., None].expand(-1, -1, -1, 12))
    own = rows.unflatten(-1, (3, 4))  # [B, V, N, 3, 4]
    point = centres[:, :, None] + depth[..., None] * directions
    local = (own[..., :3] @ point[..., None])[..., 0] + own[..., 3]
    in_room = (index == objects)[..., None]
    local = torch.where(in_room, room_origin + depth[..., None] * room_direction, local)

    table = torch.cat([half_sizes.clamp_min(_TINY), limits], dim=-1)
    of_ray = chosen.flatten(1)[..., None].expand(-1, -1, 6)
    own_sizes, own_limits = table.gather(1, of_ray).view(*local.shape[:-1], 6).split(3, dim=-1)
    normal = _normals(local / own_sizes, own_limits) / own_sizes
    normal = (normal[..., None, :] @ own[..., :3])[..., 0, :]  # by the inverse transpose
    wall = torch.zeros_like(local).scatter_(
        -1, room_axis[..., None], -room_direction.gather(-1, room_axis[..., None]).sign()
    )
    normal = torch.where(in_room, wall @ room_rotation.mT, normal)
    return Hits(depth, index, local, normalize(normal, dim=-1))


def _into_objects(
    origin: Float[Tensor, "objects views 1 3"],
    direction: Float[Tensor, "objects views rays 3"],
    limits: Float[Tensor, "objects 3"],
) -> Float[Tensor, "objects views rays"]:
    """Return the distances at which rays enter the objects, in units of the half sizes.

    A ray is inside a convex object between the last entry into one of the parts whose intersection
    it is, and the first exit. Infinity where there is nothing between, or the ray starts inside.
    """
    enter = torch.full_like(direction[..., 0], -torch.inf)
    leave = torch.full_like(enter, torch.inf)

    def restrict(which: Bool[Tensor, " objects"], into: Tensor, out_of: Tensor) -> None:
        enter[which] = enter[which].maximum(into)
        leave[which] = leave[which].minimum(out_of)

    sphere, cylinder, octahedron = limits.T
    in_sphere, in_cylinder, in_octahedron = limits.isfinite().T
    # The cube contains the unit sphere and the unit octahedron.
    which = (sphere > 1) & (octahedron > 1)
    restrict(which, *_slabs(origin[which], direction[which], 1.0))
    which = in_sphere
    restrict(which, *_ball(origin[which], direction[which], sphere[which]))
    which = in_cylinder
    restrict(which, *_ball(origin[which][..., :2], direction[which][..., :2], cylinder[which]))
    which = in_octahedron
    normals = origin.new_tensor(_OCTAHEDRON_NORMALS)
    size = octahedron[which][:, None, None, None]
    restrict(which, *_slabs(origin[which] @ normals.mT, direction[which] @ normals.mT, size))
    return torch.where((enter <= leave) & (enter > _NEAREST), enter, torch.inf)


def _slabs(
    origin: Float[Tensor, "objects views 1 planes"],
    direction: Float[Tensor, "objects views rays planes"],
    size: float | Float[Tensor, "objects 1 1 1"],
) -> tuple[Float[Tensor, "objects views rays"], Float[Tensor, "objects views rays"]]:
    """Return where rays are within +-size along all axes: from and to."""
    inverse = 1 / _nonzero(direction)
    centre = -origin * inverse
    half = inverse.abs() * size
    return (centre - half).amax(dim=-1), (centre + half).amin(dim=-1)


def _ball(
    origin: Float[Tensor, "objects views 1 axes"],
    direction: Float[Tensor, "objects views rays axes"],
    radius: Float[Tensor, " objects"],
) -> tuple[Float[Tensor, "objects views rays"], Float[Tensor, "objects views rays"]]:
    """Return where rays are within a radius of the origin, of the given axes: from and to.

    Both are infinite where they are not.
    """
    a = direction.square().sum(-1).clamp_min(_TINY)
    b = (origin * direction).sum(-1)
    # The squared distance of the line to the centre, rather than b^2 - a c, which cancels.
    nearest = origin - (b / a)[..., None] * direction
    inside = radius[:, None, None].square() - nearest.square().sum(-1)
    half = (inside.clamp_min(0) / a).sqrt()
    hit = inside > 0
    return (
        torch.where(hit, -b / a - half, torch.inf),
        torch.where(hit, -b / a + half, -torch.inf),
    )


def _normals(
    unit: Float[Tensor, "*batch 3"], limits: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """Return outward normals, of any length, at points of surfaces in units of the half sizes."""
    face = unit.abs().argmax(dim=-1, keepdim=True)
    flat = torch.zeros_like(unit).scatter_(-1, face, unit.gather(-1, face).sign())
    round_about_z = unit * unit.new_tensor([1.0, 1.0, 0.0])
    # How far out the point is, of each of the parts: 1 on the surface of one, less within others.
    reach = torch.stack(
        [
            unit.abs().amax(dim=-1),
            unit.norm(dim=-1) / limits[..., _SPHERE],
            round_about_z.norm(dim=-1) / limits[..., _CYLINDER],
            unit.abs().sum(dim=-1) / limits[..., _OCTAHEDRON],
        ],
        dim=-1,
    )
    kinds = torch.stack([flat, unit, round_about_z, unit.sign()], dim=-2)
    which = reach.argmax(dim=-1)[..., None, None].expand_as(kinds[..., :1, :])
    return kinds.gather(-2, which)[..., 0, :]


def _nonzero(values: Tensor) -> Tensor:
    return torch.where(values.abs() < _TINY, _TINY, values)
