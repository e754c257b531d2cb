"""Exact motion: trajectories of surface points, and the rigid motions of links."""

import numpy as np
from jaxtyping import Float, Shaped

from msdyn.geometry import invert_transforms, transform_points
from msdyn.scene import Tracks3D
from msdyn.synthetic.raycast import Caster, SurfacePoints, rays_through
from msdyn.synthetic.spec import SceneSpec

__all__ = ["link_motions", "project_tracks", "surface_tracks"]


def surface_tracks(
    spec: SceneSpec, *, per_object: int = 400, static: int = 800, seed: int = 0
) -> tuple[Tracks3D, Shaped[np.ndarray, " tracks"]]:
    """Return trajectories of points sampled uniformly over the pixels of each object in all frames.

    Args:
        spec: the scene; its images are not rendered.
        per_object: number of points per moving object (fewer where it covers hardly any pixel).
        static: number of points on static surfaces.
        seed: of the sampling.

    Returns:
        The trajectories with their visibility in the input camera, and the name of the link of each
        point, "" for static points.
    """
    return follow_pixels(Caster(spec), per_object, static, seed)


def follow_pixels(
    caster: Caster, per_object: int, static: int, seed: int
) -> tuple[Tracks3D, Shaped[np.ndarray, " tracks"]]:
    """Return `surface_tracks` of a scene whose meshes are ready for ray casting."""
    spec = caster.spec
    rng = np.random.default_rng([seed, 1])
    # Per frame; about twice the rays that an object needs if it covers 1 % of the images.
    rays = -(-200 * max(per_object, static) // spec.frames)
    query_xy, face, weights = [], [], []
    for frame, camera in enumerate(spec.cameras):
        xy = rng.uniform((0, 0), (spec.width, spec.height), (rays, 2))
        points, _ = caster.mesh(frame).cast(camera.centres[0], rays_through(camera, xy))
        query_xy.append(xy)
        face.append(points.face)
        weights.append(points.weights)
    query_xy = np.concatenate(query_xy)
    query_frame = np.repeat(np.arange(spec.frames), rays)
    points = SurfacePoints(np.concatenate(face), np.concatenate(weights))
    owner = np.where(points.face >= 0, caster.face_object[points.face], -1)

    chosen = []
    for instance in [0, *spec.objects]:
        own = rng.permutation(np.flatnonzero(owner == instance))
        chosen.append(own[: per_object if instance else static])
    chosen = np.concatenate(chosen)
    points = points.select(chosen)
    tracks = Tracks3D(
        xyz=np.stack([caster.positions(t, points) for t in range(spec.frames)], 1),
        visible=np.stack(
            [caster.visible(t, camera, points) for t, camera in enumerate(spec.cameras)], 1
        ),
        query_frame=query_frame[chosen],
        query_xy=query_xy[chosen],
        object=owner[chosen],
    )
    links = np.array([part.link for part in spec.parts])[caster.face_part[points.face]]
    return tracks, links


def link_motions(spec: SceneSpec, reference: int = 0) -> dict[str, Float[np.ndarray, "frames 4 4"]]:
    """Return the motion of each rigid link since a reference frame, by the link's name.

    Returns:
        Transforms of the world positions of the link's points in the reference frame to those in
        every frame. Links with a deforming part are left out.
    """
    motions = {}
    for part in spec.parts:
        if part.world_from_link is not None:
            pose = part.world_from_link
            motions[part.link] = pose @ invert_transforms(pose[reference])
    for part in spec.parts:
        if part.deformation is not None:
            motions.pop(part.link, None)
    return motions


def project_tracks(spec: SceneSpec, tracks: Tracks3D) -> Float[np.ndarray, "tracks frames 2"]:
    """Return the projections of trajectories to the input camera, px; 0 behind the camera."""
    xyz_cam = transform_points(spec.cameras.cam_from_world, tracks.xyz.swapaxes(0, 1))  # [T, N, 3]
    depth = xyz_cam[..., 2:]
    homogeneous = xyz_cam @ spec.cameras.intrinsics.swapaxes(-1, -2)
    xy = np.where(depth > 1e-6, homogeneous[..., :2] / np.where(depth > 1e-6, depth, 1), 0)
    return xy.swapaxes(0, 1)
