"""Ray casting against a scene in a frame: which surface a ray meets, and whether a point is seen.

A surface point is named by its face and barycentric coordinates, so that it can be followed as its
mesh moves. Faces of all parts are numbered through.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdyn.geometry import Cameras, project, transform_points, unproject
from msdyn.synthetic.spec import SceneSpec

__all__ = ["Caster", "RayMesh", "SurfacePoints", "in_image", "pixel_centres", "rays_through"]

# A point counts as seen if nothing is met before it but for this much, in metres: far above the
# rounding of float32 rays over a room (1e-6) and far below the thinnest part (3e-3).
TOLERANCE = 5e-4


@dataclass(frozen=True)
class SurfacePoints:
    """Points that stick to faces.

    Attributes:
        face: [N] face index, -1 for a ray that met nothing.
        weights: [N, 3] barycentric coordinates.
    """

    face: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.face)

    def select(self, index: np.ndarray) -> SurfacePoints:
        """Return the points at an index array or boolean mask."""
        return SurfacePoints(self.face[index], self.weights[index])


def rays_through(camera: Cameras, xy: np.ndarray) -> np.ndarray:
    """Return world directions [N, 3] of the rays through pixels [N, 2] of one camera.

    Their component along the optical axis is 1, so that a multiple of one is a z-depth.
    """
    rays = unproject(camera.intrinsics[0], xy, np.ones(len(xy)))
    return rays @ camera.cam_from_world[0, :3, :3]


def pixel_centres(camera: Cameras) -> np.ndarray:
    """Return the pixel centres [H * W, 2], row by row."""
    y, x = np.mgrid[0 : camera.height, 0 : camera.width]
    return np.stack([x + 0.5, y + 0.5], -1).reshape(-1, 2)


class RayMesh:
    """A triangle mesh to cast rays at."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        """Build the search tree over vertices [V, 3] and faces [F, 3]."""
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self._scene = EmbreeScene(robust=True)
        TriangleMesh(self._scene, vertices.astype(np.float32), faces.astype(np.int32))

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> tuple[SurfacePoints, np.ndarray]:
        """Return the first surface point along every ray and how far it is.

        Args:
            origins: [N, 3], or [3] for all.
            directions: [N, 3] of any length but zero.

        Returns:
            The points, and their distances [N] float32 in multiples of `directions`, huge where a
            ray met nothing.
        """
        directions = np.ascontiguousarray(directions, np.float32)
        origins = np.ascontiguousarray(np.broadcast_to(origins, directions.shape), np.float32)
        hit = self._scene.run(origins, directions, output=True)
        u, v = hit["u"].astype(np.float64), hit["v"].astype(np.float64)
        return SurfacePoints(hit["primID"], np.stack([1 - u - v, u, v], -1)), hit["tfar"]


class Caster:
    """The meshes of a scene in all frames, ready for ray casting.

    Attributes:
        spec: the scene.
        vertices: [T, V, 3] float64 world positions.
        faces: [F, 3] vertex indices.
        face_part: [F] index into `spec.parts`.
        face_object: [F] object index of the part, 0 static.
    """

    def __init__(self, spec: SceneSpec) -> None:
        self.spec = spec
        self.vertices = np.stack(
            [
                np.concatenate([part.vertices(frame) for part in spec.parts])
                for frame in range(spec.frames)
            ]
        )
        sizes = [len(part.shape.vertices) for part in spec.parts]
        starts = np.r_[0, np.cumsum(sizes)[:-1]]
        self.faces = np.concatenate(
            [part.shape.faces + start for part, start in zip(spec.parts, starts, strict=True)]
        )
        counts = [len(part.shape.faces) for part in spec.parts]
        self.face_part = np.repeat(np.arange(len(spec.parts)), counts)
        self.face_object = np.array([part.object for part in spec.parts])[self.face_part]
        self._meshes: dict[int, RayMesh] = {}

    def mesh(self, frame: int) -> RayMesh:
        """Return the whole scene in a frame; its search tree is built once."""
        if frame not in self._meshes:
            self._meshes[frame] = RayMesh(self.vertices[frame], self.faces)
        return self._meshes[frame]

    def face_normals(self, frame: int, faces: np.ndarray) -> np.ndarray:
        """Return the normals [N, 3] of faces [N] in a frame, twice the face's area long."""
        a, b, c = np.moveaxis(self.vertices[frame][self.faces[faces]], 1, 0)
        return np.cross(b - a, c - a)

    def depth(self, frame: int, camera: Cameras, rays: np.ndarray, face: np.ndarray) -> np.ndarray:
        """Return the z-depth [N] float64 at which rays cut the planes of the faces they met.

        Args:
            frame: frame of the scene.
            camera: the camera the rays come from.
            rays: [N, 3] of `rays_through`.
            face: [N]; where -1, the depth is 0.
        """
        normal = self.face_normals(frame, face)
        corner = self.vertices[frame][self.faces[face, 0]]
        depth = ((corner - camera.centres[0]) * normal).sum(-1) / (rays * normal).sum(-1)
        return np.where(face >= 0, depth, 0.0)

    def positions(self, frame: int, points: SurfacePoints) -> np.ndarray:
        """Return world positions [N, 3] float64 of surface points in a frame."""
        corners = self.vertices[frame][self.faces[points.face]]
        return (points.weights[:, None] @ corners)[:, 0]

    def visible(self, frame: int, camera: Cameras, points: SurfacePoints) -> np.ndarray:
        """Return [N] bool: inside the image of the camera and hidden by nothing in this frame."""
        xyz = self.positions(frame, points)
        centre = camera.centres[0]
        facing = (self.face_normals(frame, points.face) * (xyz - centre)).sum(-1) < 0
        candidates = np.flatnonzero(facing & in_image(camera, xyz))
        offsets = xyz[candidates] - centre
        _, reach = self.mesh(frame).cast(centre, offsets)
        seen = np.zeros(len(points), bool)
        seen[candidates] = reach > 1 - TOLERANCE / np.linalg.norm(offsets, axis=-1)
        return seen


def in_image(camera: Cameras, xyz: np.ndarray) -> np.ndarray:
    """Return [N] bool: world points [N, 3] that project into the image of one camera."""
    xyz_cam = transform_points(camera.cam_from_world[0], xyz)
    ahead = xyz_cam[:, 2] > 1e-3
    xy = project(camera.intrinsics[0], np.where(ahead[:, None], xyz_cam, [0, 0, 1]))
    return ahead & (xy >= 0).all(-1) & (xy < [camera.width, camera.height]).all(-1)
