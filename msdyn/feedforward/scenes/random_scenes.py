"""Random scenes: a textured room with static props and moving objects.

Objects move rigidly along smooth paths; on demand two or three are joined by hinges, or change
their shape by an affine map that depends on time. Scenes are made as training goes, batched and on
any device, so that no scene is seen twice. World coordinates here are those of the cameras' mean
position: x right, y down, z forward, with the content about 1 away.
`msdyn.feedforward.scenes.render` renders them and changes to the canonical world. B scenes, V
views, K objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from msdyn.feedforward.scenes.options import SceneOptions
from msdyn.feedforward.scenes.raycast import SHAPES, limits_of
from msdyn.feedforward.scenes.textures import Textures, random_textures
from msdyn.geometry import rotations_from_rotvecs

__all__ = ["RandomScenes", "SceneOptions", "random_scenes"]

_BOXES = _ELLIPSOIDS = 4
OBJECTS = _BOXES + _ELLIPSOIDS
"""Objects of a scene, by default boxes first, then ellipsoids; some of them are absent."""
# Objects that may move, in the order in which they are drawn, and joined.
_MOVERS = (0, 4, 1)
_PROPS = tuple(index for index in range(OBJECTS) if index not in _MOVERS)
_SHAPES = (SHAPES.index("box"),) * _BOXES + (SHAPES.index("ellipsoid"),) * _ELLIPSOIDS
_ON_FACE = 0.95
"""Position of a hinge, between the centre of a part and its face."""
_FIXED_ROOT = 0.3
"""Share of the joined objects whose first part does not move."""
_SMALLEST = 0.03
"""Smallest angle or change of shape, relative to the largest, if lengths are log-uniform."""


@dataclass(frozen=True)
class RandomScenes:
    """Shapes, paths and textures of B scenes; times are in [0, 1].

    Attributes:
        half_sizes: half extents (of boxes the sides, of ellipsoids the axes); 0 for absent objects.
        limits: what bounds the objects besides, see `raycast`.
        moving: objects that move.
        centres, travel, curve: of the objects' paths, position at time 1/2, and vectors.
        rotation, rotation_rate: rotation vectors at time 1/2, and over the clip.
        joined: objects that turn about a hinge with the mover before them, and follow it.
        hinge: of the joined objects, in the coordinates of the mover before.
        anchor: of the joined objects, the hinge in their own coordinates.
        stretch, shear: how the shape changes, logarithms and tangents, in the object's axes.
        beat: cycles of this change over the clip, and its phase, in cycles.
        world_from_room, room_half_size: the room.
        camera_travel, camera_curve: of the camera's path.
        camera_rotation: over the clip.
        target: the point that the camera looks at, on average.
        side: offset of the second camera.
        focal: over the side of the image.
        textures: of the objects, then the room.
        light: unit vector towards the light.
        ambient: share of the light that comes from everywhere.
    """

    half_sizes: Float[Tensor, "scenes objects 3"]
    limits: Float[Tensor, "scenes objects 3"]
    moving: Bool[Tensor, "scenes objects"]
    centres: Float[Tensor, "scenes objects 3"]
    travel: Float[Tensor, "scenes objects 3"]
    curve: Float[Tensor, "scenes objects 3"]
    rotation: Float[Tensor, "scenes objects 3"]
    rotation_rate: Float[Tensor, "scenes objects 3"]
    joined: Bool[Tensor, "scenes objects"]
    hinge: Float[Tensor, "scenes objects 3"]
    anchor: Float[Tensor, "scenes objects 3"]
    stretch: Float[Tensor, "scenes objects 3"]
    shear: Float[Tensor, "scenes objects 3"]
    beat: Float[Tensor, "scenes objects 2"]
    world_from_room: Float[Tensor, "scenes 4 4"]
    room_half_size: Float[Tensor, "scenes 3"]
    camera_travel: Float[Tensor, "scenes 3"]
    camera_curve: Float[Tensor, "scenes 3"]
    camera_rotation: Float[Tensor, "scenes 3"]
    target: Float[Tensor, "scenes 3"]
    side: Float[Tensor, "scenes 3"]
    focal: Float[Tensor, " scenes"]
    textures: Textures
    light: Float[Tensor, "scenes 3"]
    ambient: Float[Tensor, " scenes"]

    def world_from_object(
        self, times: Float[Tensor, "scenes views"]
    ) -> Float[Tensor, "scenes views objects 4 4"]:
        """Return the poses of all objects at given times, affine for those that change shape."""
        t = (times - 0.5)[:, :, None, None]
        # Rotation about the centre: the order of the two factors makes it one in the world.
        spin = rotations_from_rotvecs(t * self.rotation_rate[:, None])
        rotation = spin @ rotations_from_rotvecs(self.rotation)[:, None]
        path = t * self.travel[:, None] + torch.sin(2 * math.pi * t) * self.curve[:, None]
        linear = rotation @ self._change_of_shape(times)
        poses = _matrices(linear, self.centres[:, None] + path)
        if not self.joined.any():
            return poses
        for before, index in zip(_MOVERS, _MOVERS[1:], strict=False):
            own = linear[:, :, index]
            anchor = (own @ self.anchor[:, None, index, :, None])[..., 0]
            follow = poses[:, :, before] @ _matrices(own, self.hinge[:, None, index] - anchor)
            joined = self.joined[:, index, None, None, None]
            poses[:, :, index] = torch.where(joined, follow, poses[:, :, index])
        return poses

    def _change_of_shape(
        self, times: Float[Tensor, "scenes views"]
    ) -> Float[Tensor, "scenes views objects 3 3"]:
        """Return how the objects are deformed, in their own axes; the identity for most."""
        cycles, phase = self.beat[:, None].unbind(-1)
        amount = torch.sin(2 * math.pi * (cycles * times[..., None] + phase))[..., None]
        stretch = (amount * self.stretch[:, None]).exp()
        change = torch.eye(3, device=times.device).expand(*stretch.shape, 3).clone()
        row, column = (0, 0, 1), (1, 2, 2)
        change[..., row, column] = amount * self.shear[:, None]
        return stretch[..., None] * change

    def world_from_camera(
        self, times: Float[Tensor, "scenes views"], *, side: bool = False
    ) -> Float[Tensor, "scenes views 4 4"]:
        """Return the poses of the camera, or of the second one beside it, at given times."""
        t = (times - 0.5)[:, :, None]
        bend = torch.cos(math.pi * t) * self.camera_curve[:, None]
        centre = t * self.camera_travel[:, None] + bend
        if side:
            centre = centre + self.side[:, None]
        forward = normalize(self.target[:, None] - centre, dim=-1)
        down = torch.tensor([0.0, 1.0, 0.0], device=t.device).expand_as(forward)
        right = normalize(torch.linalg.cross(down, forward), dim=-1)
        down = torch.linalg.cross(forward, right)
        rotation = torch.stack([right, down, forward], dim=-1)
        shake = rotations_from_rotvecs(t * self.camera_rotation[:, None])
        return _matrices(rotation @ shake, centre)


def random_scenes(options: SceneOptions, count: int, generator: torch.Generator) -> RandomScenes:
    """Return random scenes on the generator's device, determined by its state."""
    device = generator.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        values = torch.rand((count, *shape), generator=generator, device=device)
        return low + (high - low) * values

    def length(low: float, high: float, *shape: int) -> Tensor:
        if not options.log_lengths or low == high:
            return uniform(low, high, *shape)
        low = max(low, _SMALLEST * high)
        return low * (high / low) ** uniform(0.0, 1.0, *shape)

    def direction(*shape: int) -> Tensor:
        normal = torch.randn((count, *shape, 3), generator=generator, device=device)
        return normalize(normal, dim=-1)

    present = torch.zeros(count, OBJECTS, dtype=torch.bool, device=device)
    for slots, (low, high) in ((_MOVERS, options.movers), (_PROPS, options.props)):
        chosen = torch.rand((count, len(slots)), generator=generator, device=device).argsort(1)
        number = torch.randint(low, high + 1, (count, 1), generator=generator, device=device)
        present[:, list(slots)] = chosen < number
    is_mover = torch.zeros(OBJECTS, dtype=torch.bool, device=device)
    is_mover[list(_MOVERS)] = True
    moving = present & is_mover

    focal = uniform(*options.focal)
    z = torch.where(is_mover, uniform(0.6, 1.1, OBJECTS), uniform(0.7, 1.7, OBJECTS))
    spread = torch.where(is_mover, 0.25, 0.5)[None, :, None]
    in_image = uniform(-1.0, 1.0, OBJECTS, 2) * spread  # of the side, from the centre of the image
    centres = torch.cat([in_image * (z / focal[:, None])[..., None], z[..., None]], dim=-1)
    share = torch.where(
        is_mover, uniform(*options.mover_share, OBJECTS), uniform(0.02, 0.1, OBJECTS)
    )
    size = 0.5 * z / focal[:, None] * share.sqrt()
    half_sizes_of_all = size[..., None] * uniform(0.7, 1.4, OBJECTS, 3)
    half_sizes = half_sizes_of_all * present[..., None]

    flat = torch.tensor([1.0, 1.0, 0.6], device=device)
    step = direction(OBJECTS) * flat * length(*options.travel, OBJECTS)[..., None]
    step = step * is_mover[:, None]
    bend = direction(OBJECTS) * step.norm(dim=-1, keepdim=True)
    rate = direction(OBJECTS) * length(0.0, options.rotation, OBJECTS)[..., None]

    # The room contains the cameras, and is turned about them.
    near = torch.stack([uniform(-1.6, -0.9), uniform(-1.4, -0.8), uniform(-1.2, -0.8)], dim=-1)
    far = torch.stack([uniform(0.9, 1.6), uniform(0.8, 1.2), uniform(1.5, 2.4)], dim=-1)
    tilt = torch.stack([uniform(-0.1, 0.4), uniform(-0.6, 0.6), uniform(-0.1, 0.1)], dim=-1)
    room_rotation = rotations_from_rotvecs(tilt)
    middle = (room_rotation @ ((near + far) / 2)[..., None])[..., 0]

    camera_step = direction() * length(*options.camera_travel)[:, None]
    sideways = torch.tensor([1.0, 1.0, 0.3], device=device)
    camera_bend = direction() * 0.2 * camera_step.norm(dim=-1, keepdim=True)
    target = torch.stack([uniform(-0.1, 0.1), uniform(-0.1, 0.1), uniform(0.8, 1.3)], dim=-1)
    zero = torch.zeros_like(centres)
    scenes = RandomScenes(
        half_sizes=half_sizes,
        limits=limits_of(torch.tensor(_SHAPES, device=device).expand(count, -1)),
        moving=moving,
        centres=centres,
        travel=step,
        curve=options.curve * 0.25 * bend,
        rotation=direction(OBJECTS) * uniform(0.0, math.pi, OBJECTS)[..., None],
        rotation_rate=rate * is_mover[:, None],
        joined=torch.zeros_like(moving),
        hinge=zero,
        anchor=zero,
        stretch=zero,
        shear=zero,
        beat=zero[..., :2],
        world_from_room=_matrices(room_rotation, middle),
        room_half_size=(far - near) / 2,
        camera_travel=camera_step * sideways,
        camera_curve=camera_bend * sideways,
        camera_rotation=direction() * uniform(0.0, options.camera_rotation)[:, None],
        target=target,
        side=direction() * sideways * length(*options.side)[:, None],
        focal=focal,
        textures=random_textures(
            count, OBJECTS + 1, options.texture_cell, generator, options.textures
        ),
        light=direction(),
        ambient=torch.full((count,), options.ambient[0], device=device),
    )
    # Drawn last, so that scenes without them are the same as ever.
    if options.shapes:
        table = torch.tensor([SHAPES.index(name) for name in options.shapes], device=device)
        drawn = (len(table) * uniform(0.0, 1.0, OBJECTS)).long().clamp_max(len(table) - 1)
        scenes = replace(scenes, limits=limits_of(table[drawn]))
    if options.ambient[1] > options.ambient[0]:
        scenes = replace(scenes, ambient=uniform(*options.ambient))
    if options.jointed:
        scenes = _joined(scenes, half_sizes_of_all, options, generator)
    if options.soft:
        soft = (uniform(0.0, 1.0, OBJECTS) < options.soft) & scenes.moving
        amount = length(0.0, options.softness, OBJECTS) * soft
        change = uniform(-1.0, 1.0, OBJECTS, 2, 3) * amount[..., None, None]
        beat = torch.stack([uniform(0.25, 1.0, OBJECTS), uniform(0.0, 1.0, OBJECTS)], dim=-1)
        scenes = replace(scenes, stretch=change[..., 0, :], shear=change[..., 1, :], beat=beat)
    return scenes


def _joined(
    scenes: RandomScenes,
    half_sizes: Float[Tensor, "scenes objects 3"],
    options: SceneOptions,
    generator: torch.Generator,
) -> RandomScenes:
    """Join the moving objects of some scenes to one, of two or three parts.

    Each part is joined to the one before at the middle of a face of both, whose normals are, at
    time 1/2, within 0.8 rad; the axis of the hinge has any direction.
    """
    count, device = len(half_sizes), half_sizes.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand((count, *shape), generator=generator, device=device)

    parts = 2 + (uniform() < 0.5).long()
    chosen = uniform() < options.jointed
    fixed = chosen & (uniform() < _FIXED_ROOT)
    axis = torch.nn.functional.one_hot((3 * uniform(OBJECTS)).long().clamp_max(2), 3)
    axis = axis * (2 * (uniform(OBJECTS, 1) < 0.5) - 1)  # of the face of the part before
    normal = torch.randn((2, count, OBJECTS, 3), generator=generator, device=device)
    turn, about = normalize(normal, dim=-1)
    low = _SMALLEST if options.log_lengths else 0.2
    angle = options.hinge * low ** uniform(OBJECTS)

    sizes, moving = scenes.half_sizes.clone(), scenes.moving.clone()
    joined = scenes.joined.clone()
    hinge, anchor = scenes.hinge.clone(), scenes.anchor.clone()
    rotation, rate = scenes.rotation.clone(), scenes.rotation_rate.clone()
    for number, index in enumerate(_MOVERS):
        there = chosen & (number < parts)
        size = half_sizes[:, index] * there[:, None]
        sizes[:, index] = torch.where(chosen[:, None], size, sizes[:, index])
        moving[:, index] = torch.where(chosen, there, moving[:, index])
        if number == 0:
            moving[:, index] &= ~fixed
            continue
        joined[:, index] = there
        hinge[:, index] = _ON_FACE * axis[:, index] * half_sizes[:, _MOVERS[number - 1]]
        anchor[:, index] = -_ON_FACE * axis[:, index] * half_sizes[:, index]
        rest = 0.8 * uniform(1) * turn[:, index]
        rotation[:, index] = torch.where(there[:, None], rest, rotation[:, index])
        spin = angle[:, index, None] * about[:, index]
        rate[:, index] = torch.where(there[:, None], spin, rate[:, index])
    still = (~moving)[..., None] & chosen[:, None, None]
    return replace(
        scenes,
        half_sizes=sizes,
        moving=moving,
        joined=joined,
        hinge=hinge,
        anchor=anchor,
        rotation=rotation,
        rotation_rate=torch.where(still, 0.0, rate),
        travel=torch.where(still, 0.0, scenes.travel),
        curve=torch.where(still, 0.0, scenes.curve),
    )


def _matrices(
    rotation: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    matrices = torch.zeros((*rotation.shape[:-2], 4, 4), device=rotation.device)
    matrices[..., :3, :3] = rotation
    matrices[..., :3, 3] = translation
    matrices[..., 3, 3] = 1
    return matrices
