"""Random rigid scenes: a textured room with static props and moving boxes and ellipsoids.

Scenes are made as training goes, batched and on any device, so that no scene is seen twice. World
coordinates here are those of the cameras' mean position: x right, y down, z forward, with the
content about 1 away. `msdyn.feedforward.training.batches` renders them and changes to the canonical
world. B scenes, V views, K objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from msdyn.feedforward.training.textures import Textures, random_textures
from msdyn.geometry import rotations_from_rotvecs

__all__ = ["RandomScenes", "SceneOptions", "random_scenes"]

_BOXES = _ELLIPSOIDS = 4
OBJECTS = _BOXES + _ELLIPSOIDS
"""Objects of a scene, boxes first; some of them are absent."""
# Objects that may move, in the order in which they are drawn.
_MOVERS = (0, 4, 1)
_PROPS = tuple(index for index in range(OBJECTS) if index not in _MOVERS)


@dataclass(frozen=True)
class SceneOptions:
    """What is drawn at random; ranges are (smallest, largest)."""

    movers: tuple[int, int] = (1, 2)
    """Moving objects, at most 3."""
    props: tuple[int, int] = (2, 5)
    """Static objects, at most 5."""
    mover_share: tuple[float, float] = (0.04, 0.25)
    """Share of the image that a mover covers, unless something occludes it."""
    travel: tuple[float, float] = (0.15, 0.7)
    """Length of a mover's path over the clip."""
    rotation: float = 1.0
    """Largest rotation of a mover over the clip, rad."""
    curve: float = 0.3
    """Amplitude of the path's curvature, relative to its length."""
    camera_travel: tuple[float, float] = (0.1, 0.6)
    """Length of the camera's path over the clip; (0, 0) for a static camera."""
    camera_rotation: float = 0.1
    """Largest rotation of the camera over the clip besides looking at the content, rad."""
    side: tuple[float, float] = (0.05, 0.25)
    """Distance of the second camera, which observes the targets."""
    focal: tuple[float, float] = (0.85, 1.2)
    """Focal length over the side of the image."""
    texture_cell: tuple[float, float] = (0.06, 0.16)
    """Size of the features of textures."""


@dataclass(frozen=True)
class RandomScenes:
    """Shapes, paths and textures of B scenes; times are in [0, 1].

    Attributes:
        half_sizes: half sides of boxes, semi-axes of ellipsoids; 0 for absent objects.
        moving: objects that move.
        centres, travel, curve: of the objects' paths, position at time 1/2, and vectors.
        rotation, rotation_rate: rotation vectors at time 1/2, and over the clip.
        world_from_room, room_half_size: the room.
        camera_travel, camera_curve: of the camera's path.
        camera_rotation: over the clip.
        target: the point that the camera looks at, on average.
        side: offset of the second camera.
        focal: over the side of the image.
        textures: of the objects, then the room.
        light: unit vector towards the light.
    """

    half_sizes: Float[Tensor, "scenes objects 3"]
    moving: Bool[Tensor, "scenes objects"]
    centres: Float[Tensor, "scenes objects 3"]
    travel: Float[Tensor, "scenes objects 3"]
    curve: Float[Tensor, "scenes objects 3"]
    rotation: Float[Tensor, "scenes objects 3"]
    rotation_rate: Float[Tensor, "scenes objects 3"]
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

    def world_from_object(
        self, times: Float[Tensor, "scenes views"]
    ) -> Float[Tensor, "scenes views objects 4 4"]:
        """Return the poses of all objects at given times."""
        t = (times - 0.5)[:, :, None, None]
        # Rotation about the centre: the order of the two factors makes it one in the world.
        spin = rotations_from_rotvecs(t * self.rotation_rate[:, None])
        rotation = spin @ rotations_from_rotvecs(self.rotation)[:, None]
        path = t * self.travel[:, None] + torch.sin(2 * math.pi * t) * self.curve[:, None]
        return _matrices(rotation, self.centres[:, None] + path)

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
    half_sizes = size[..., None] * uniform(0.7, 1.4, OBJECTS, 3) * present[..., None]

    flat = torch.tensor([1.0, 1.0, 0.6], device=device)
    step = direction(OBJECTS) * flat * uniform(*options.travel, OBJECTS)[..., None]
    step = step * moving[..., None]
    bend = direction(OBJECTS) * step.norm(dim=-1, keepdim=True)
    rate = direction(OBJECTS) * uniform(0.0, options.rotation, OBJECTS)[..., None]

    # The room contains the cameras, and is turned about them.
    near = torch.stack([uniform(-1.6, -0.9), uniform(-1.4, -0.8), uniform(-1.2, -0.8)], dim=-1)
    far = torch.stack([uniform(0.9, 1.6), uniform(0.8, 1.2), uniform(1.5, 2.4)], dim=-1)
    tilt = torch.stack([uniform(-0.1, 0.4), uniform(-0.6, 0.6), uniform(-0.1, 0.1)], dim=-1)
    room_rotation = rotations_from_rotvecs(tilt)
    middle = (room_rotation @ ((near + far) / 2)[..., None])[..., 0]

    camera_step = direction() * uniform(*options.camera_travel)[:, None]
    sideways = torch.tensor([1.0, 1.0, 0.3], device=device)
    camera_bend = direction() * 0.2 * camera_step.norm(dim=-1, keepdim=True)
    target = torch.stack([uniform(-0.1, 0.1), uniform(-0.1, 0.1), uniform(0.8, 1.3)], dim=-1)
    return RandomScenes(
        half_sizes=half_sizes,
        moving=moving,
        centres=centres,
        travel=step,
        curve=options.curve * 0.25 * bend,
        rotation=direction(OBJECTS) * uniform(0.0, math.pi, OBJECTS)[..., None],
        rotation_rate=rate * moving[..., None],
        world_from_room=_matrices(room_rotation, middle),
        room_half_size=(far - near) / 2,
        camera_travel=camera_step * sideways,
        camera_curve=camera_bend * sideways,
        camera_rotation=direction() * uniform(0.0, options.camera_rotation)[:, None],
        target=target,
        side=direction() * sideways * uniform(*options.side)[:, None],
        focal=focal,
        textures=random_textures(count, OBJECTS + 1, options.texture_cell, generator),
        light=direction(),
    )


def _matrices(
    rotation: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    matrices = torch.zeros((*rotation.shape[:-2], 4, 4), device=rotation.device)
    matrices[..., :3, :3] = rotation
    matrices[..., :3, 3] = translation
    matrices[..., 3, 3] = 1
    return matrices
