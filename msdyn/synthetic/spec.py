"""The description of a synthetic scene: textured moving parts and cameras, not rendered.

The world is metric with z up and the table top at z = 0; the first camera looks along +y.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from msdyn.errors import InputError
from msdyn.geometry import Cameras, transform_points
from msdyn.synthetic.textures import Material

__all__ = ["DEFAULT_TEXEL", "DOWN", "Deformation", "Part", "SceneSpec", "Shape"]

DOWN = np.array([0.0, 0.0, -1.0])
DEFAULT_TEXEL = 0.002  # metres
# Maps the rest vertices of a mesh and a frame to vertices in the frame of its link.
Deformation = Callable[
    [Float[np.ndarray, "vertices 3"], int],
    Float[np.ndarray, "vertices 3"],
]


@dataclass(frozen=True)
class Shape:
    """A triangle mesh. Faces that share a vertex are shaded smoothly across their edge.

    Attributes:
        vertices: metres.
        faces: vertex indices, counter-clockwise seen from outside.
    """

    vertices: Float[np.ndarray, "vertices 3"]
    faces: Int[np.ndarray, "faces 3"]

    def moved(self, offset: tuple[float, float, float], yaw: float = 0.0) -> Shape:
        """Return the shape rotated about the vertical by `yaw` degrees, then translated."""
        c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
        rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        return Shape(self.vertices @ rotation.T + offset, self.faces)

    def transformed(self, dst_from_src: Float[np.ndarray, "4 4"]) -> Shape:
        """Return the shape mapped by a rigid transform."""
        return Shape(transform_points(dst_from_src, self.vertices), self.faces)


@dataclass(frozen=True)
class Part:
    """A textured mesh that belongs to an object.

    Attributes:
        name: unique within the scene.
        shape: its mesh at rest, in the coordinates of its link (of the world, if static).
        material: its texture.
        object: 0 static, 1..K a moving object instance.
        link: name of the rigid link it belongs to; parts of one link share one pose.
        world_from_link: pose of the link in every frame; None for static parts.
        deformation: None for rigid parts.
        sides: materials of faces other than `material`, by the axis closest to the face's normal at
            rest: "+x", "-x", ... "-z".
        texel: size of a texel, metres.
    """

    name: str
    shape: Shape
    material: Material
    object: int = 0
    link: str = ""
    world_from_link: Float[np.ndarray, "frames 4 4"] | None = None
    deformation: Deformation | None = None
    sides: Mapping[str, Material] = field(default_factory=dict)
    texel: float = DEFAULT_TEXEL

    def vertices(self, frame: int) -> Float[np.ndarray, "vertices 3"]:
        """Return the world positions of the vertices in a frame."""
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
        cameras: the input camera, one per frame.
        views: static cameras held out for evaluation, by name.
        fps: frames per second.
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
                raise InputError(f"view {name}: expected one static camera, got {len(view)}")
        for part in self.parts:
            if (part.object > 0) != (part.world_from_link is not None):
                got = "without" if part.world_from_link is None else "with"
                raise InputError(
                    f"part {part.name}: expected world_from_link if and only if object > 0, "
                    f"got object {part.object} {got} world_from_link"
                )
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
