"""Ray casting against a scene in a frame: which surface a ray hits, and whether a point is visible.

A surface point is given by its face and barycentric coordinates, so that it can be tracked as its
mesh moves. Face indices run over all parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int

from msdyn.errors import InputError
from msdyn.geometry import Cameras, Lens, project, transform_points, unproject
from msdyn.synthetic.spec import SceneSpec

__all__ = ["Caster", "RayMesh", "SurfacePoints", "in_image", "pixel_centres", "rays_through"]

# A point is visible if the first hit along its ray is at most this much nearer, metres: far above
# the rounding of float32 rays across a room (1e-6), far below the thinnest part (3e-3).
TOLERANCE = 5e-4


@dataclass(frozen=True)
class SurfacePoints:
    """Points attached to mesh faces.

    Attributes:
        face: face index, -1 for a ray that hits nothing.
        weights: barycentric coordinates.
    """

    face: Int[np.ndarray, " points"]
    weights: Float[np.ndarray, "points 3"]

    def __len__(self) -> int:
        return len(self.face)

    def select(self, index: Int[np.ndarray, " _"] | Bool[np.ndarray, " _"]) -> SurfacePoints:
        """Return the points at an index array or boolean mask."""
        return SurfacePoints(self.face[index], self.weights[index])


def rays_through(
    camera: Cameras, xy: Float[np.ndarray, "pixels 2"], lens: Lens | None = None
) -> Float[np.ndarray, "pixels 3"]:
    """Return the directions, in the world, of the rays through pixels of one camera.

    Their component along the optical axis is 1: distances in multiples of them are z-depths.

    Args:
        camera: one camera.
        xy: px.
        lens: in place of the camera's intrinsics.

    Raises:
        InputError: a pixel that the lens cannot be inverted at.
    """
    rays = unproject(camera.intrinsics[0], xy, np.ones(len(xy)))
    if lens is not None:
        rays[:, :2], valid = lens.normalised(xy)
        if not valid.all():
            raise InputError(
                f"lens: {lens.model}: expected rays for all pixels, got {valid.mean()}"
            )
    return rays @ camera.cam_from_world[0, :3, :3]


def pixel_centres(camera: Cameras) -> Float[np.ndarray, "pixels 2"]:
    """Return the pixel centres, row by row."""
    y, x = np.mgrid[0 : camera.height, 0 : camera.width]
    return np.stack([x + 0.5, y + 0.5], -1).reshape(-1, 2)


class RayMesh:
    """A triangle mesh for ray casting."""

    def __init__(
        self, vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
    ) -> None:
        """Build the search tree."""
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self._scene = EmbreeScene(robust=True)
        TriangleMesh(self._scene, vertices.astype(np.float32), faces.astype(np.int32))

    def cast(
        self,
        origins: Float[np.ndarray, "rays 3"] | Float[np.ndarray, " 3"],
        directions: Float[np.ndarray, "rays 3"],
    ) -> tuple[SurfacePoints, Float32[np.ndarray, " rays"]]:
        """Return the first surface point along every ray, and its distance.

        Args:
            origins: one per ray, or one for all.
            directions: of any length but zero.

        Returns:
            The points, and their distances in multiples of `directions`, huge where a ray hits
            nothing.
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
        vertices: world positions.
        faces: vertex indices.
        face_part: index into `spec.parts`.
        face_object: object index of the part, 0 static.
    """

    spec: SceneSpec
    vertices: Float64[np.ndarray, "frames vertices 3"]
    faces: Int[np.ndarray, "faces 3"]
    face_part: Int[np.ndarray, " faces"]
    face_object: Int[np.ndarray, " faces"]

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

    def face_normals(
        self, frame: int, faces: Int[np.ndarray, " chosen"]
    ) -> Float64[np.ndarray, "chosen 3"]:
        """Return the normals of chosen faces in a frame, of length twice the face's area."""
        a, b, c = np.moveaxis(self.vertices[frame][self.faces[faces]], 1, 0)
        return np.cross(b - a, c - a)

    def depth(
        self,
        frame: int,
        camera: Cameras,
        rays: Float[np.ndarray, "rays 3"],
        face: Int[np.ndarray, " rays"],
    ) -> Float64[np.ndarray, " rays"]:
        """Return the z-depth at which rays intersect the planes of the faces they hit.

        Args:
            frame: frame of the scene.
            camera: the camera the rays come from.
            rays: of `rays_through`.
            face: the face each ray hits; where -1, the depth is 0.
        """
        normal = self.face_normals(frame, face)
        corner = self.vertices[frame][self.faces[face, 0]]
        depth = ((corner - camera.centres[0]) * normal).sum(-1) / (rays * normal).sum(-1)
        return np.where(face >= 0, depth, 0.0)

    def positions(self, frame: int, points: SurfacePoints) -> Float64[np.ndarray, "points 3"]:
        """Return the world positions of surface points in a frame."""
        corners = self.vertices[frame][self.faces[points.face]]
        return (points.weights[:, None] @ corners)[:, 0]

    def visible(
        self, frame: int, camera: Cameras, points: SurfacePoints
    ) -> Bool[np.ndarray, " points"]:
        """Return which points are inside the image of the camera and not occluded in a frame."""
        xyz = self.positions(frame, points)
        centre = camera.centres[0]
        facing = (self.face_normals(frame, points.face) * (xyz - centre)).sum(-1) < 0
        candidates = np.flatnonzero(facing & in_image(camera, xyz))
        offsets = xyz[candidates] - centre
        _, distance = self.mesh(frame).cast(centre, offsets)
        visible = np.zeros(len(points), bool)
        visible[candidates] = distance > 1 - TOLERANCE / np.linalg.norm(offsets, axis=-1)
        return visible


def in_image(camera: Cameras, xyz: Float[np.ndarray, "points 3"]) -> Bool[np.ndarray, " points"]:
    """Return which world points project into the image of one camera."""
    xyz_cam = transform_points(camera.cam_from_world[0], xyz)
    in_front = xyz_cam[:, 2] > 1e-3
    xy = project(camera.intrinsics[0], np.where(in_front[:, None], xyz_cam, [0, 0, 1]))
    return in_front & (xy >= 0).all(-1) & (xy < [camera.width, camera.height]).all(-1)
