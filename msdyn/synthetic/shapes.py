"""Meshes: boxes, cylinders, ellipsoids, tori, surfaces of revolution. All closed, metres, z up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from msdyn.synthetic.spec import Shape

if TYPE_CHECKING:
    import trimesh

__all__ = ["ball", "box", "cylinder", "lathe", "room", "slab", "torus"]


def box(x: float, y: float, z: float, *, bevel: float = 0.0) -> Shape:
    """Return a box standing on z = 0, centred in x and y, with edges bevelled by `bevel`."""
    import trimesh

    if not bevel:
        return _creased(trimesh.creation.box((x, y, z)), lift=z / 2)
    extents = np.array([x, y, z])
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    points = [
        corners * (extents / 2 - bevel * (1 - np.eye(3)[axis])) for axis in range(3)
    ]  # the corners of each face, moved inwards by the bevel
    return _creased(trimesh.convex.convex_hull(np.concatenate(points)), lift=z / 2)


def slab(x: float, y: float, z: float, cell: float) -> Shape:
    """Return a box as of `box`, with its faces subdivided into cells no longer than `cell`."""
    import trimesh

    mesh = trimesh.creation.box((x, y, z))
    # 1.42: the diagonal of a square cell is the longest edge of its two triangles.
    fine = trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, 1.42 * cell, 20)
    return _creased(trimesh.Trimesh(fine[0], fine[1]), lift=z / 2)


def cylinder(radius: float, z: float, *, sections: int = 32) -> Shape:
    """Return an upright cylinder standing on z = 0."""
    import trimesh

    return _creased(trimesh.creation.cylinder(radius, z, sections=sections), lift=z / 2)


def ball(x: float, y: float, z: float, *, subdivisions: int = 3) -> Shape:
    """Return an ellipsoid of these diameters standing on z = 0."""
    import trimesh

    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=1.0)
    vertices = np.asarray(mesh.vertices) * (x / 2, y / 2, z / 2) + (0, 0, z / 2)
    return Shape(vertices, np.asarray(mesh.faces))


def lathe(
    profile: Sequence[tuple[float, float]], *, sections: int = 48, ribs: int = 0, depth: float = 0.0
) -> Shape:
    """Return a surface of revolution about z.

    Args:
        profile: (radius, z) from bottom to top, beginning and ending at radius 0.
        sections: number of faces around the axis.
        ribs: number of ridges around the axis.
        depth: depth of the grooves between ridges, as a fraction of the radius.
    """
    import trimesh

    mesh = trimesh.creation.revolve(np.asarray(profile, np.float64), sections=sections)
    if ribs:
        angle = np.arctan2(mesh.vertices[:, 1], mesh.vertices[:, 0])
        groove = 1 - depth * (0.5 - 0.5 * np.cos(ribs * angle))
        mesh.vertices[:, :2] *= groove[:, None]
    return _creased(mesh)


def torus(radius: float, thickness: float) -> Shape:
    """Return a torus around z at height 0; `thickness` is the radius of its tube."""
    import trimesh

    return _creased(trimesh.creation.torus(radius, thickness, major_sections=32, minor_sections=16))


def room(x: float, y: float, z: float, cell: float) -> Shape:
    """Return a box that stands on z = 0 with its faces turned inwards."""
    outside = slab(x, y, z, cell)
    return Shape(outside.vertices, outside.faces[:, ::-1])


def _creased(mesh: trimesh.Trimesh, lift: float = 0.0, angle: float = 35.0) -> Shape:
    """Split vertices along edges sharper than `angle` degrees and raise the mesh by `lift`."""
    import trimesh

    mesh.fix_normals()
    smooth = trimesh.graph.smooth_shade(mesh, angle=np.radians(angle))
    return Shape(np.asarray(smooth.vertices) + (0, 0, lift), np.asarray(smooth.faces))
