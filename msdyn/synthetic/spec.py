"""The description of a synthetic scene: textured parts that move, cameras, and nothing computed.

The world is metric with z up and the table top at z = 0; the first camera looks along +y.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from msdyn.errors import InputError
from msdyn.geometry import Cameras, transform_points
from msdyn.synthetic.textures import Material

__all__ = ["DOWN", "Deformation", "Part", "SceneSpec", "Shape"]

DOWN = np.array([0.0, 0.0, -1.0])
Deformation = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Shape:
    """A triangle mesh. Faces that share a vertex are shaded smoothly across their edge.

    Attributes:
        vertices: [V, 3] metres.
        faces: [F, 3] vertex indices, counter-clockwise seen from outside.
    """

    vertices: np.ndarray
    faces: np.ndarray

    def moved(self, offset: tuple[float, float, float], turn: float = 0.0) -> Shape:
        """Return the shape turned about the vertical by `turn` degrees, then shifted."""
        c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        return Shape(self.vertices @ rotation.T + offset, self.faces)

    def placed(self, dst_from_src: np.ndarray) -> Shape:
        """Return the shape mapped by a rigid transform [4, 4]."""
        return Shape(transform_points(dst_from_src, self.vertices), self.faces)


@dataclass(frozen=True)
class Part:
    """A textured mesh that belongs to an object.

    Attributes:
        name: unique within the scene.
        shape: its mesh at rest, in the coordinates of its link (of the world, if static).
        material: its texture.
        object: 0 static, 1..K a moving object instance.
        link: name of the rigid link that carries it; parts of one link share one pose.
        world_from_link: [T, 4, 4] pose of the link in every frame; None for static parts.
        deformation: maps rest vertices [V, 3] and a frame to vertices [V, 3] in the link; None for
            rigid parts.
        sides: other materials by the axis a face looks along at rest: "+x", "-x", ... "-z".
        texel: size of a texel in metres.
    """

    name: str
    shape: Shape
    material: Material
    object: int = 0
    link: str = ""
    world_from_link: np.ndarray | None = None
    deformation: Deformation | None = None
    sides: Mapping[str, Material] = field(default_factory=dict)
    texel: float = 0.002

    def vertices(self, frame: int) -> np.ndarray:
        """Return the world positions [V, 3] of the vertices in a frame."""
        vertices = self.shape.vertices
        if self.deformation is not None:
            vertices = self.deformation(vertices, frame)
        if self.world_from_link is None:
            return vertices
        return transform_points(self.world_from_link[frame], vertices)


@dataclass(frozen=True)
class SceneSpec:
    """A scene to be rendered.

    Attributes:
        name: of the scene.
        parts: all meshes; static ones enclose every camera, so that no pixel is empty.
        cameras: the input camera, one a frame.
        views: still cameras by name, held out for evaluation; one camera each.
        fps: frames a second.
        seed: of the textures and of all sampling.
    """

    name: str
    parts: tuple[Part, ...]
    cameras: Cameras
    views: Mapping[str, Cameras]
    fps: float = 24.0
    seed: int = 0

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if len(set(names)) != len(names):
            raise InputError(f"scene {self.name}: expected part names to be unique, got {names}")
        for name, view in self.views.items():
            if len(view) != 1:
                raise InputError(f"view {name}: expected one still camera, got {len(view)}")
        for part in self.parts:
            if (part.object > 0) != (part.world_from_link is not None):
                raise InputError(f"part {part.name}: expected a pose if and only if it moves")
            if part.world_from_link is not None and len(part.world_from_link) != self.frames:
                raise InputError(
                    f"part {part.name}: expected {self.frames} poses, "
                    f"got {len(part.world_from_link)}"
                )

    @property
    def frames(self) -> int:
        return len(self.cameras)

    @property
    def width(self) -> int:
        return self.cameras.width

    @property
    def height(self) -> int:
        return self.cameras.height

    @property
    def objects(self) -> list[int]:
        """Indices of the moving objects, ascending."""
        return sorted({part.object for part in self.parts} - {0})
