"""Options of random scenes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from msdyn.options import OptionError, Options, Positive, Range, Share

__all__ = ["SceneOptions", "Shape", "TextureKind"]

Shape = Literal["box", "ellipsoid", "cylinder", "rounded", "octahedron", "cut"]
"""Rounded boxes and cut boxes have no corners: a sphere or an octahedron takes them away."""
TextureKind = Literal[
    "patches", "checks", "leaves", "stripes", "plain", "gradient", "rings", "dots"
]

_Movers = tuple[Annotated[int, Range(0, 3)], Annotated[int, Range(0, 3)]]
_Props = tuple[Annotated[int, Range(0, 5)], Annotated[int, Range(0, 5)]]
_Length = Annotated[float, Range(0, 1000)]
_Positive = Annotated[float, Positive]
_Angle = Annotated[float, Range(0, 1000, unit="rad")]


@dataclass(frozen=True)
class SceneOptions(Options):
    """What is drawn at random; ranges are (smallest, largest)."""

    movers: _Movers = (1, 2)
    """Moving objects, at most 3."""
    props: _Props = (2, 5)
    """Static objects, at most 5."""
    mover_share: tuple[Share, Share] = (0.04, 0.25)
    """Share of the image that a mover covers, unless something occludes it."""
    travel: tuple[_Length, _Length] = (0.15, 0.7)
    """Length of a mover's path over the clip."""
    rotation: _Angle = 1.0
    """Largest rotation of a mover over the clip, rad."""
    curve: _Length = 0.3
    """Amplitude of the path's curvature, relative to its length."""
    camera_travel: tuple[_Length, _Length] = (0.1, 0.6)
    """Length of the camera's path over the clip; (0, 0) for a static camera."""
    camera_rotation: _Angle = 0.1
    """Largest rotation of the camera over the clip besides looking at the content, rad."""
    side: tuple[_Length, _Length] = (0.05, 0.25)
    """Distance of the second camera, which observes the targets."""
    focal: tuple[_Positive, _Positive] = (0.85, 1.2)
    """Focal length over the side of the image."""
    texture_cell: tuple[_Positive, _Positive] = (0.06, 0.16)
    """Size of the features of textures."""
    textures: tuple[TextureKind, ...] = ()
    """Kinds of textures, each as often; by default patches and checks of high contrast."""
    shapes: tuple[Shape, ...] = ()
    """Shapes of objects, each as often; by default boxes and ellipsoids."""
    log_lengths: bool = False
    """Lengths of paths, and angles, are log-uniform instead of uniform: many of them small."""
    jointed: Share = 0.0
    """Share of scenes whose moving objects, two or three, are joined by hinges."""
    hinge: _Angle = 1.5
    """Largest rotation about a hinge over the clip, rad."""
    soft: Share = 0.0
    """Share of moving objects that change their shape."""
    softness: _Length = 0.4
    """Largest stretch, as a logarithm, and shear of these."""
    ambient: tuple[Share, Share] = (0.55, 0.55)
    """Share of the light that comes from everywhere."""

    def check_relations(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            numbers = (
                [number for number in value if not isinstance(number, str)]
                if isinstance(value, tuple)
                else []
            )
            if numbers != sorted(numbers):
                raise OptionError(
                    field.name, f"expected smallest, then largest, got {numbers[0]} {numbers[1]}"
                )
